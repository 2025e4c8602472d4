"""Stage check: params.yaml -> params.checked, whose content never changes, and inputs/.

DVC removes a stage's outputs before it runs the stage. Every stage depends on params.checked, so a bad value anywhere
in params.yaml stops the run here, before any earlier output is removed. DVC runs this stage every time, so it also
notices changes of the user's own files.
"""

from pathlib import Path

from stages.check.inputs import record, used_paths
from stages.check.sections import check_params
from stages.common.outputs import staged
from stages.common.params import read_params_file
from stages.common.stage import run_stage


def main() -> None:
    """Check every section, and the sections against each other; record how the user's files are."""
    sections = check_params(read_params_file())
    for stage, paths in used_paths(sections["data"], sections["base"]).items():
        record(stage, paths)
    with staged(Path("params.checked")) as file:
        file.write_text("params.yaml is valid\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage("check", main)
