"""Continuations of fixed prompts, to read beside the numbers."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.generation import greedy
from stages.common.progress import progress
from stages.common.text import to_continue


def continuations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], new_tokens: int
) -> list[dict[str, str]]:
    """Return each prompt with its greedy continuation of at most `new_tokens` tokens."""
    # One prompt at a time: padding a batch would change the last bits of the others.
    return [
        {"prompt": prompt, "continuation": greedy(model, tokenizer, to_continue(tokenizer, prompt), new_tokens)}
        for prompt in progress(prompts, "samples")
    ]
