"""Queue a study as DVC experiments: python studies/queue_study.py studies/thesis.yaml, then `dvc queue start`.

It prints the `dvc exp run --queue` commands that it runs; each works by hand too.
"""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def commands(study: dict[str, Any], name: str) -> list[list[str]]:
    """Return one command for every grid of a study; its experiments are called <name>-<grid>-<number>."""
    shared = [f"{key}={value_text(value)}" for key, value in study["set"].items()]
    result = []
    for number, grid in enumerate(study["grids"], 1):
        varied = [f"{key}={','.join(map(value_text, values))}" for key, values in grid["vary"].items()]
        settings = [part for setting in [*shared, *varied] for part in ("-S", setting)]
        command = ["dvc", "exp", "run", "--queue", "-n", f"{name}-{number}", *settings, *(grid["targets"] or [])]
        result.append(command)
    return result


def value_text(value: Any) -> str:
    """Return a value as dvc's -S reads it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(value_text, value))}]" if isinstance(value, list) else str(value)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    for command in commands(YAML(typ="safe").load(file), file.stem):
        print(shlex.join(command), flush=True)
        subprocess.run(command, check=True)
