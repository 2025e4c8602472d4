"""Continue tokens with a model: greedily, or by its own generation config."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, TextStreamer


def greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: list[int], new_tokens: int) -> str:
    """Return the most likely continuation, token by token, until an end token or `new_tokens` tokens.

    Penalties, beams and the like in its generation config would show something else than the model; they are left out.
    """
    with plain(model):
        return write(model, tokenizer, tokens, new_tokens, do_sample=False)


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: list[int],
    new_tokens: int,
    stream: bool = False,
    **settings,
) -> str:
    """Return at most `new_tokens` tokens that the model writes after `tokens`, by its generation config and `settings`.

    `stream` prints them as they come, without beams, which end too late for that. Of tokens too many for the model's
    context the last ones are kept.
    """
    if stream:
        settings = {"num_beams": 1, **settings}
    room = max(1, model.config.max_position_embeddings - new_tokens)
    kept = torch.tensor([tokens[-room:]], device=model.device)
    generate: Callable = model.generate  # type: ignore[assignment]
    with torch.no_grad():
        output = generate(
            kept,
            attention_mask=torch.ones_like(kept),
            max_new_tokens=new_tokens,
            num_return_sequences=1,
            return_dict_in_generate=False,
            pad_token_id=tokenizer.pad_token_id or 0,
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None,
            **settings,
        )
    return str(tokenizer.decode(output[0, kept.shape[1] :], skip_special_tokens=True))


@contextmanager
def plain(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's generation config be nothing but its end tokens."""
    own = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id if own else model.config.eos_token_id)
    try:
        yield
    finally:
        model.generation_config = own
