"""What a stage imports when it starts: no other stage, and of the libraries that take their time only those it uses."""

import ast
from pathlib import Path

import pytest
from helpers import ROOT

SLOW = {
    "accelerate", "datasets", "gguf", "huggingface_hub", "lm_eval", "matplotlib", "pandas", "peft", "ptflops",
    "pyarrow", "scipy", "sklearn", "tokenizers", "torch", "torchao", "transformers",
}  # fmt: skip
MODEL = {"tokenizers", "torch", "transformers"}
USED = {
    "check": set(),
    "data": {"pandas", "pyarrow"},
    "base": {*MODEL, "huggingface_hub", "pandas"},
    "prune": {*MODEL, "huggingface_hub", "pyarrow"},
    "tune": {*MODEL, "huggingface_hub", "pandas", "peft"},
    "export": set(),
    "evaluate": {*MODEL, "huggingface_hub", "lm_eval", "pandas", "pyarrow"},
    "profile": {*MODEL, "huggingface_hub", "ptflops"},
    "report": {"matplotlib", "pandas", "scipy"},
    "chat": {*MODEL, "huggingface_hub"},
}


def imports(file: Path) -> set[str]:
    """Return what the file imports as soon as it is imported: modules, and names from them that may be modules."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def started(stage: str) -> tuple[set[str], set[str]]:
    """Return the modules of the project that the stage imports when it starts, and the libraries that these do."""
    seen, libraries, left = set(), set(), [f"stages.{stage}.__main__"]
    while left:
        name = left.pop()
        if name.split(".")[0] != "stages":
            libraries.add(name.split(".")[0])
            continue
        path = ROOT / name.replace(".", "/")
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if file.is_file() and name not in seen:  # else the name of something in a module
            seen.add(name)
            left += imports(file)
    return seen, libraries


@pytest.mark.parametrize("stage", sorted(path.parent.name for path in (ROOT / "stages").glob("*/__main__.py")))
def test_a_stage_starts_with_nothing_that_it_does_not_use(stage):
    modules, libraries = started(stage)
    assert libraries & SLOW == USED[stage]
    others = {name.split(".")[1] for name in modules} - {stage, "common", "models"}
    assert not others or stage == "check"  # which reads every stage's params
