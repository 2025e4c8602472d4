"""Where the variants of a study come from: experiments, params, commands, and what their models write."""

import json
import shlex
from typing import Any

from analysis.page.study_data import Origin
from analysis.results import parse_json
from studies.measured import open_commit
from studies.study import Study, Variant


def origins_of(study: Study, commits: dict[str, str]) -> dict[str, Origin]:
    """Return where each experiment of a study comes from; `commits` are the experiments' by name."""
    there = [each for each in study.experiments if each.name in commits]
    return {
        each.name: Origin(each.name, each.params, commands_of(each), samples_of(each, commits[each.name]))
        for each in there
    }


def commands_of(variant: Variant) -> dict[str, str]:
    """Return the commands that make a variant again, bring it into the work tree, and export its model."""
    settings = [f"-S {shlex.quote(f'{key}={written(value)}')}" for key, value in variant.settings.items()]
    apply = f"dvc exp apply {variant.name}"
    export = f"-S {shlex.quote(f'export.models=[{variant.models[-1]}]')} -S 'export.formats=[gguf-f16]' export"
    return {
        "Reproduce": " ".join(["dvc exp run", *settings, *variant.targets]),
        "Apply to the work tree": apply,
        "Export, here as GGUF": f"{apply} && dvc exp run {export}",
    }


def written(value: Any) -> str:
    """Return a value as `dvc exp run -S` reads it."""
    return value if isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum() else json.dumps(value)


def samples_of(variant: Variant, commit: str) -> dict[str, list[dict[str, str]]]:
    """Return the continuations of the variant's models; none of a model whose file is not in DVC's cache."""
    files, project = open_commit(commit)
    found = {}
    for model in variant.compared if variant.models[-1] != "base" else ["base"]:
        path = f"metrics/outcomes/{model}/samples.json"
        try:
            found[model] = parse_json(files.read_bytes(project + path), path, list)
        except FileNotFoundError:
            found[model] = []
    return found
