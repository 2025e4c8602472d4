"""What a stage imports: no other stage, of the slow libraries only those it uses, and exactly its deps in dvc.yaml."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
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
        if name.split(".")[0] not in ("stages", "analysis", "studies", "thesis"):
            libraries.add(name.split(".")[0])
            continue
        path = ROOT / name.replace(".", "/")
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if file.is_file() and name not in seen:  # else the name of something in a module
            seen.add(name)
            left += imports(file)
    return seen, libraries


@pytest.mark.parametrize("stage", sorted(path.parent.name for path in (ROOT / "stages").glob("*/__main__.py")))
@pytest.mark.slow
def test_a_stage_starts_with_nothing_that_it_does_not_use(stage):
    modules, libraries = started(stage)
    assert libraries & SLOW == USED[stage]
    others = {name.split(".")[1] for name in modules if name.startswith("stages.")} - {stage, "common", "models"}
    assert not others or stage == "check"  # which reads every stage's params
    above = {name.split(".")[0] for name in modules} - {"stages"}
    assert above <= ({"analysis"} if stage in ("check", "report") else set())


def test_importing_a_sweep_or_check_changes_nothing_in_the_environment_of_what_they_start():
    code = "import os; was = dict(os.environ); import studies.sweep, stages.check.__main__; print(os.environ == was)"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"


@pytest.mark.parametrize(
    ("package", "below"),
    [("analysis", set()), ("chat", {"analysis"}), ("studies", {"analysis"}), ("thesis", {"analysis", "studies"})],
)
def test_a_package_imports_only_what_is_below_it(package, below):
    imported = {name for file in (ROOT / package).glob("*.py") for name in imports(file)}
    assert {name.split(".")[0] for name in imported} & {"analysis", "studies", "thesis"} - {package} <= below
    if package == "analysis":
        assert {".".join(name.split(".")[:2]) for name in imported if name.startswith("stages.")} == {"stages.common"}


# How a stage starts, reads params, reports and writes: what it computes does not depend on these.
RUNNER = {
    f"stages/common/{name}.py"
    for name in ("errors", "launch", "outputs", "params", "progress", "stage", "yaml_file")
}  # fmt: skip


MODELS = "stages/models"  # whose files import each other: one dep for all, where a stage uses more than one


def imported_anywhere(file: Path) -> set[Path]:
    """Return the project's files that the file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {file for name in names if (file := file_of(name))}


def file_of(module: str) -> Path | None:
    """Return the file of a module of the project, None for a library or a name in a module."""
    path = ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def code_of(folder: Path) -> set[str]:
    """Return the folder and the files outside it that its files import, directly or not."""
    seen: set[Path] = set()
    left = set(folder.rglob("*.py"))
    while left:
        file = left.pop()
        seen.add(file)
        left |= imported_anywhere(file) - seen
    some = {file for file in seen if len(ast.parse(file.read_text(encoding="utf-8")).body) > 1}  # than a docstring
    outside = {file.relative_to(ROOT).as_posix() for file in some if not file.is_relative_to(folder)}
    models = {path for path in outside if path.startswith(MODELS)}
    deps = (outside - models) | ({MODELS} if len(models) > 1 else models)
    return {folder.relative_to(ROOT).as_posix(), *deps} - RUNNER


def pipeline() -> dict[str, dict]:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


@pytest.mark.parametrize("name", sorted(set(pipeline()) - {"check"}))  # which runs every time
def test_a_stages_deps_are_the_code_that_it_imports(name):
    stage = pipeline()[name]
    package = stage["cmd"].split()[2].split(".")[:2]
    deps = {path for path in stage["deps"] if file_of(path.removesuffix(".py").replace("/", "."))}
    assert deps == code_of(ROOT.joinpath(*package))


def test_the_reports_deps_hold_what_its_page_is_made_of():
    assert "analysis/page/assets" in pipeline()["report"]["deps"]
