"""Stage check: params.yaml -> params.checked, whose content never changes.

DVC removes a stage's outputs before it runs the stage. Every stage depends on params.checked, so a bad value anywhere
in params.yaml stops the run here, while all earlier outputs still stand.
"""

from pathlib import Path

from stages.check.sections import check_params
from stages.common.outputs import staged
from stages.common.params import read_params_file
from stages.common.stage import run_stage


def main() -> None:
    """Check every section, and the sections against each other."""
    check_params(read_params_file())
    with staged(Path("params.checked")) as file:
        file.write_text("params.yaml is valid\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage("check", main)
