"""The three models, and what one of them writes behind a text."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextStreamer

from stages.common.checkpoint import load_model, load_tokenizer

FOLDERS = {"base": Path("models/base"), "pruned": Path("models/pruned"), "tuned": Path("models/merged")}

Model = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def load(name: str, device: torch.device) -> Model:
    """Return model and tokenizer of `name`, one of FOLDERS; UserError where the pipeline has not made it yet."""
    return load_model(FOLDERS[name], device), load_tokenizer(FOLDERS[name])


def write_behind(loaded: Model, prompt: str, new_tokens: int, stream: bool = False, **sampling) -> str:
    """Return at most `new_tokens` tokens that the model writes behind `prompt`, greedily unless `sampling` says else.

    `stream` prints them as they come. Of a prompt too long for the model's context the end is kept.
    """
    model, tokenizer = loaded
    tokens = tokenizer(prompt, return_tensors="pt")["input_ids"]
    room = model.config.max_position_embeddings - new_tokens
    tokens = tokens[:, -max(1, room) :].to(model.device)
    generate: Callable = model.generate  # type: ignore[assignment]
    output = generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=new_tokens,
        pad_token_id=tokenizer.pad_token_id or 0,
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None,
        **({"do_sample": False} | sampling),
    )
    return str(tokenizer.decode(output[0, tokens.shape[1] :], skip_special_tokens=True))
