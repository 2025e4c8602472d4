"""python -m chat MODEL: type a text, read the model's continuation; an empty line ends.

With a chat template, the model remembers the conversation; without one, it continues each line.
"""

import argparse

import torch

from stages.common.generation import write
from stages.common.params import FOLDERS, RunParams, load_section
from stages.common.stage import run
from stages.common.text import chat_tokens, to_continue
from stages.common.torch_setup import setup_torch
from stages.models.checkpoint import load_model, load_tokenizer

NEW_TOKENS, SEED = 200, 42
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}  # greedy, small models repeat themselves


def main(name: str) -> None:
    """Answer lines from the terminal until an empty one or the end of the input."""
    device = setup_torch(load_section("run", RunParams), SEED)
    model, tokenizer = load_model(FOLDERS[name], device), load_tokenizer(FOLDERS[name])
    # What the model's own generation config says comes first.
    sampling = {key: value for key, value in SAMPLING.items() if getattr(model.generation_config, key, None) is None}
    messages: list[dict[str, str]] = []
    torch.manual_seed(SEED)
    while line := read_line():
        messages.append({"role": "user", "content": line})
        prompt = chat_tokens(tokenizer, messages) if tokenizer.chat_template else to_continue(tokenizer, line)
        answer = write(model, tokenizer, prompt, NEW_TOKENS, stream=True, **sampling)
        messages.append({"role": "assistant", "content": answer})


def read_line() -> str:
    """Return the next line, an empty one at the end of the input or when interrupted."""
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m chat", description=__doc__)
    parser.add_argument("model", choices=FOLDERS)
    arguments = parser.parse_args()
    run("chat", lambda: main(arguments.model))
