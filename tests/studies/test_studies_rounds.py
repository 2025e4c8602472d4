"""Pruning and training in turns: what DVC is asked for, and how an interrupted loop continues."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.common.errors import UserError
from studies import rounds


@pytest.fixture
def asked(tmp_path, monkeypatch) -> list[list[str]]:
    """Return what DVC was asked for, in a folder with a base; each run writes models/merged, and "-S fail=1" fails."""
    calls: list[list[str]] = []

    def run(command):
        assert command[:3] == [sys.executable, "-m", "dvc"]
        calls.append(command[3:])
        Path("models/merged").mkdir(exist_ok=True)
        Path("models/merged/model").write_text(str(len(calls)))
        return SimpleNamespace(returncode=int("fail=1" in command))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    Path("models/base").mkdir(parents=True)
    Path("models/base/model").write_text("base")
    return calls


def call(monkeypatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rounds", *options])
    return rounds.main()


def test_each_round_starts_from_the_one_before_and_a_failed_loop_continues(asked, monkeypatch, capsys):
    options = ("--rounds", "2", "--ratio", "0.19")
    assert call(monkeypatch, *options, "-S", "fail=1") == 1
    assert not Path("rounds/2-0.19").exists()
    Path("models/base/model").write_text("that of another round")
    assert call(monkeypatch, *options, "-S", "tune.steps=9") == 0
    common = ["exp", "run", "-S", "base.source=path", "-S"]
    first, second = "base.path=rounds/base", "base.path=rounds/2-0.19/1"
    expected = [[*common, each, "-S", "prune.ratio=0.100000", "-S", "tune.steps=9", "tune"] for each in (first, second)]
    assert asked[1:] == expected
    found = [Path("rounds", name, "model").read_text() for name in ("base", "2-0.19/1", "2-0.19/2")]
    assert found == ["base", "2", "3"]
    assert call(monkeypatch, *options) == 0
    assert len(asked) == 3, "what is finished is not run again"
    assert capsys.readouterr().out.splitlines()[-1] == (
        "rounds/2-0.19/2 is the pruned model; beside one cut: dvc exp run -S base.source=path -S base.path=rounds/base "
        "-S prune.ratio=0.19 -S +models.rounds=rounds/2-0.19/2"
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--rounds", "0"], "--rounds = 0 is not allowed; expected at least 1"),
        (["--ratio", "1"], "--ratio = 1 is not allowed; expected a value between 0 and 1"),
        ([], "models/base is missing; run `dvc repro base` first"),
    ],
)
def test_a_wrong_value_is_one_line(asked, monkeypatch, options, line):
    if not options:
        Path("models/base").rename("models/other")
    with pytest.raises(UserError, match=re.escape(line) + "$"):
        call(monkeypatch, *options)
    assert not asked and not Path("rounds").exists()
