"""Continuations of fixed prompts, to read beside the numbers."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.progress import progress


@torch.no_grad()
def continuations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], new_tokens: int
) -> list[dict[str, str]]:
    """Return each prompt with its greedy continuation of at most `new_tokens` tokens."""
    samples = []
    for prompt in progress(prompts, "samples"):
        # One prompt at a time: padding a batch would change the last bits of the others.
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(model.device)
        output = model.generate(  # type: ignore[operator]
            **inputs, max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id or 0
        )
        text = str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        samples.append({"prompt": prompt, "continuation": text})
    return samples
