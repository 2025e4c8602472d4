"""Outputs are whole or absent; a failing stage says one line and exits with its code."""

import json
import os
import subprocess
import sys

import pytest
from helpers import ROOT

from stages.common.outputs import staged, write_details, write_metrics


def test_a_failed_write_leaves_the_earlier_output(tmp_path):
    (tmp_path / "file").write_text("earlier")
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "file") as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert (tmp_path / "file").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_replaces_the_earlier_one_whole(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    (tmp_path / ".out.partial").mkdir()  # what a killed process left
    (tmp_path / ".out.partial" / "stale").write_text("stale")
    with staged(tmp_path / "out") as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


@pytest.mark.parametrize("value", ["1", None, True, [1]])
def test_metrics_are_numbers_only(tmp_path, value):
    with pytest.raises(TypeError, match="metric loss = "):
        write_metrics(tmp_path / "m.json", {"loss": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metrics_are_finite(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics(tmp_path / "m.json", {"loss": value})
    assert not list(tmp_path.iterdir())


def test_details_may_be_texts_and_lists_but_numbers_are_finite(tmp_path):
    details = {"own_domain": None, "layers": [2, 28], "name": "größer"}
    write_details(tmp_path / "m.json", details)
    assert json.loads((tmp_path / "m.json").read_text()) == details
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_details(tmp_path / "m.json", {"losses": [float("nan")]})
    assert json.loads((tmp_path / "m.json").read_text()) == details


STAGES = {
    "user": ("raise UserError('ratio = 2 is not allowed')", 2, "espalier: demo: ratio = 2 is not allowed\n"),
    "bug": ("raise KeyError('x')", 1, "espalier: demo: KeyError: 'x' (ESPALIER_TRACEBACK=1 shows where)\n"),
    "rights": (
        "raise PermissionError(13, 'Permission denied', 'models/.base.partial')",
        1,
        "models/.base.partial: Permission denied; get write permission there (chmod, chown), then run",
    ),
    "read-only": ("raise OSError(30, 'Read-only file system', 'metrics/x')", 1, "metrics/x: Read-only file system; "),
    "disk": ("raise OSError(28, 'No space left on device', 'models/x')", 1, "no space left on the disk of models/x"),
    "memory": ("raise MemoryError()", 1, "espalier: demo: out of memory"),
    "torch memory": ("import torch; torch.empty(1 << 60)", 1, "espalier: demo: out of memory"),
    "interrupt": ("signal.raise_signal(signal.SIGINT)", 130, "espalier: demo: interrupted"),
    "terminate": ("signal.raise_signal(signal.SIGTERM)", 130, "espalier: demo: interrupted"),
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case == "torch memory" else case for case in STAGES]
)
def test_a_failing_stage_says_one_line_and_exits_with_its_code(case, tmp_path):
    body, code, message = STAGES[case]
    script = (
        "import signal\nfrom stages.common.errors import UserError\nfrom stages.common.stage import run_stage\n"
        f"def stage():\n    {body}\nrun_stage('demo', stage)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "metrics").exists()


def test_a_stage_records_its_time_and_memory(tmp_path):
    script = "from stages.common.stage import run_stage\nrun_stage('demo', lambda: None)"
    subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    cost = json.loads((tmp_path / "metrics" / "runtime" / "demo.json").read_text())
    assert cost.keys() == {"wall_seconds", "peak_resident_mib"}
    assert cost["peak_resident_mib"] > 1


def test_an_interpreter_without_the_packages_says_so_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-m", "stages.check"], cwd=ROOT, text=True, capture_output=True,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "lacks the project's packages; run `make setup`" in done.stderr
    assert done.stderr.count("\n") == 1
