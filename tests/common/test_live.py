"""Training curves as DVC reads them while a training runs, after it was killed, and after it went on."""

import csv
import json
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT
from ruamel.yaml import YAML

from stages.common.live import LiveCurves
from stages.common.training import Progress

FILES = ("train/loss", "validation/loss", "validation/ppl")


def read(stage: str, name: str) -> list[dict[str, float]]:
    text = Path(f"metrics/live/{stage}/plots/metrics/{name}.tsv").read_text()
    return [
        {key: float(value) for key, value in row.items()} for row in csv.DictReader(text.splitlines(), delimiter="\t")
    ]


def reached(step: int) -> Progress:
    """Return the progress of a training after `step` steps, which validates after every fourth."""
    held_out = {each: 2.0 - each / 10 for each in range(0, step + 1, 4)}
    return Progress(step=step, train_loss=[3.0 - each / 10 for each in range(step)], validation_loss=held_out)


def bytes_of(stage: str) -> dict[str, bytes]:
    folder = Path(f"metrics/live/{stage}")
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_curves_grow_step_by_step_in_dvclives_format(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    curves = LiveCurves("tune")
    assert sorted(bytes_of("tune")) == ["metrics.json", *(f"plots/metrics/{name}.tsv" for name in FILES)]
    assert [read("tune", name) for name in FILES] == [[], [], []]
    for step in range(6):
        curves.update(reached(step))
        assert [row["step"] for row in read("tune", "train/loss")] == list(range(1, step + 1))
    assert Path("metrics/live/tune/plots/metrics/train/loss.tsv").read_text().startswith("step\tloss\n1\t3.0\n2\t2.9\n")
    assert read("tune", "validation/loss") == [{"step": 0, "loss": 2.0}, {"step": 4, "loss": 1.6}]
    assert read("tune", "validation/ppl")[1] == {"step": 4, "ppl": pytest.approx(4.953032)}
    latest = json.loads(Path("metrics/live/tune/metrics.json").read_text())
    assert latest.pop("validation") == {"loss": 1.6, "ppl": pytest.approx(4.953032)}
    assert latest == {"train": {"loss": pytest.approx(2.6)}, "step": 5}

    curves.update(Progress(step=6, train_loss=[*reached(5).train_loss, 1.0], validation_loss={0: 2.0, 4: 1.6, 6: 1e9}))
    assert json.loads(Path("metrics/live/tune/metrics.json").read_text())["validation"] == {"loss": 1e9, "ppl": "inf"}


@pytest.mark.parametrize("every", [1, 3])
def test_a_killed_training_goes_on_in_the_same_curves(tmp_path, monkeypatch, every):
    monkeypatch.chdir(tmp_path)
    for name, steps in {"whole": range(10), "killed": range(8)}.items():
        curves = LiveCurves(name, every)
        for step in steps:
            curves.update(reached(step))
    curves = LiveCurves("killed", every)
    for step in range(5, 10):  # the saved state is older than the last step
        curves.update(reached(step))
    assert bytes_of("killed") == bytes_of("whole")
    expected = [sum(3.0 - each / 10 for each in range(end - every, end)) / every for end in range(every, 10, every)]
    assert [row["loss"] for row in read("killed", "train/loss")] == pytest.approx(expected)


@pytest.mark.slow
def test_dvc_plots_shows_a_training_that_has_not_ended(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")
    stage = {"cmd": "false", "outs": ["metrics/live/base"]}
    plots = [each for each in pipeline["plots"] if any("base" in name for name in each)]
    YAML().dump({"stages": {"base": stage}, "plots": plots}, Path("dvc.yaml"))
    subprocess.run("git init -q . && dvc init -q", shell=True, check=True)
    Path(".dvc/plots").mkdir()
    Path(".dvc/plots/curve.json").write_text((ROOT / ".dvc/plots/curve.json").read_text())
    LiveCurves("base").update(reached(5))
    done = subprocess.run(["dvc", "plots", "show", "--json"], capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert "errors" not in shown and len(shown["data"]) == 2
    losses, perplexities = (plot["content"]["data"]["values"] for (plot,) in shown["data"].values())
    points = [*(("train/loss.tsv", step) for step in range(1, 6)), *(("validation/loss.tsv", step) for step in (0, 4))]
    assert [(row["filename"], int(row["step"])) for row in losses] == points
    assert [row["ppl"] for row in perplexities] == [str(row["ppl"]) for row in read("base", "validation/ppl")]
