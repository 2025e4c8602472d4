"""python -m stages.chat.samples: write what base, pruned and tuned continue evaluate.prompts with to samples.md."""

from pathlib import Path

from pydantic import ConfigDict
from tabulate import tabulate

from stages.chat.models import FOLDERS, load
from stages.common.generation import greedy
from stages.common.outputs import staged
from stages.common.params import Positive, RunParams, Section, load_section
from stages.common.stage import run
from stages.common.text import to_continue
from stages.common.torch_setup import setup_torch

OUTPUT = Path("samples.md")


class Prompts(Section):
    """The keys of section `evaluate` that say what is continued, and how far."""

    model_config = ConfigDict(extra="ignore")

    prompts: list[str]
    new_tokens: Positive


def main() -> None:
    """Write the page. Continuations are greedy, so they are those of the evaluation."""
    params, device = load_section("evaluate", Prompts), setup_torch(load_section("run", RunParams))
    written = {}
    for name in FOLDERS:
        model, tokenizer = load(name, device)
        written[name] = [
            greedy(model, tokenizer, to_continue(tokenizer, prompt), params.new_tokens) for prompt in params.prompts
        ]
    with staged(OUTPUT) as file:
        file.write_text(page(params.prompts, written), encoding="utf-8")
    print(OUTPUT)


def page(prompts: list[str], written: dict[str, list[str]]) -> str:
    """Return a table with a row for each prompt and a column for each model."""
    columns = zip(*written.values(), strict=True)
    rows = [[cell(text) for text in (prompt, *texts)] for prompt, texts in zip(prompts, columns, strict=True)]
    return tabulate(rows, ["prompt", *written], tablefmt="pipe", disable_numparse=True) + "\n"


def cell(text: str) -> str:
    """Return text that stays in its cell and is shown as it is."""
    for character in "&<>|*_`[]\\$~":
        text = text.replace(character, f"&#{ord(character)};") if character != "&" else text.replace("&", "&amp;")
    return text.replace("\n", "<br>")


if __name__ == "__main__":
    run("samples", main)
