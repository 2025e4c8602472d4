"""python -m chat.samples: write the continuations of evaluate.prompts by base, pruned and tuned to samples.md."""

from pathlib import Path

from tabulate import tabulate

from analysis.results import read_json
from stages.common.errors import UserError
from stages.common.outputs import staged
from stages.common.params import FOLDERS
from stages.common.stage import run

OUTPUT = Path("samples.md")


def main() -> None:
    """Write the page from stage evaluate's outputs; UserError for a model that was not evaluated."""
    with staged(OUTPUT) as file:
        file.write_text(page({name: read(name) for name in FOLDERS}), encoding="utf-8")
    print(OUTPUT)


def read(name: str) -> dict[str, str]:
    """Return the continuations of a model by prompt."""
    file = Path("metrics/outcomes") / name / "samples.json"
    if not file.is_file():
        raise UserError(f"{file} is missing; run `dvc repro` first, or `dvc pull`")
    return {each["prompt"]: each["continuation"] for each in read_json(file, list)}


def page(written: dict[str, dict[str, str]]) -> str:
    """Return a table with a row for each prompt and a column for each model."""
    prompts = dict.fromkeys(prompt for texts in written.values() for prompt in texts)
    rows = [[cell(prompt), *(cell(texts.get(prompt, "")) for texts in written.values())] for prompt in prompts]
    return tabulate(rows, ["prompt", *written], tablefmt="pipe", disable_numparse=True) + "\n"


def cell(text: str) -> str:
    """Return text escaped for a table cell."""
    for character in "&<>|*_`[]\\$~":
        text = text.replace(character, f"&#{ord(character)};") if character != "&" else text.replace("&", "&amp;")
    return text.replace("\n", "<br>")


if __name__ == "__main__":
    run("samples", main)
