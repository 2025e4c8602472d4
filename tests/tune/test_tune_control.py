"""The control is the base, tuned as the pruned model is; or nothing, at no cost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from tune_helpers import tiny_model, tune_params, write_params, write_workspace

from stages.common import training
from stages.models.checkpoint import load_model
from stages.tune import __main__ as stage
from stages.tune import control


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    write_workspace(tmp_path, tiny_model("pruned"), control=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_it_the_outputs_are_empty_and_nothing_is_loaded(workspace):
    write_params(workspace, control=False)
    Path("models/control").mkdir()
    Path("models/control/model.safetensors").write_bytes(b"of an earlier run")
    code = (
        "import sys; from stages.tune.control import main; main(); "
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, check=True)
    assert [file.name for file in Path("models/control").iterdir()] == ["README.md"]
    assert Path("models/control/README.md").read_text() == "Empty: tune.control is false\n"
    assert Path("metrics/control_loss.csv").read_text() == "step,split,loss\n"
    assert Path("metrics/live/control/plots/metrics/train/loss.tsv").read_text() == "step\tloss\n"
    assert json.loads(Path("metrics/details/control.json").read_text()) == {}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.slow
def test_it_is_what_tuning_makes_of_the_base_in_the_place_of_the_pruned_model(workspace, method):
    write_params(workspace, control=True, method=method)
    control.main()
    assert not Path("models/merged").exists()
    shutil.copytree("models/base", "models/pruned", dirs_exist_ok=True)
    Path("models/pruned/modeling_pruned.py").unlink()
    stage.main()
    for made, expected in (
        ("models/control/model.safetensors", "models/merged/model.safetensors"),
        ("metrics/control_loss.csv", "metrics/tune_loss.csv"),
        ("metrics/details/control.json", "metrics/details/tune.json"),
        ("metrics/live/control/metrics.json", "metrics/live/tune/metrics.json"),
    ):
        assert Path(made).read_bytes() == Path(expected).read_bytes()
    assert not list(Path().rglob("state.safetensors"))


@pytest.mark.slow
def test_an_interrupted_one_goes_on_from_a_state_of_its_own(workspace, monkeypatch):
    control.main()
    whole = Path("models/control/model.safetensors").read_bytes()
    shutil.rmtree("models/control")
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", -1)
    snapshot, calls = training.snapshot, []

    def interrupted(parameters):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return snapshot(parameters)

    monkeypatch.setattr(training, "snapshot", interrupted)
    with pytest.raises(KeyboardInterrupt):
        control.main()
    assert not Path("models/control").exists()
    (state,) = Path(".dvc/tmp/resume").iterdir()
    assert state.name.startswith("control-")
    restored = []
    restore = training.restore
    monkeypatch.setattr(training, "restore", lambda *some: restored.append(restore(*some)) or restored[0])
    monkeypatch.setattr(training, "snapshot", snapshot)
    control.main()
    assert restored[0][0].step > 0 and restored[0][1]
    assert Path("models/control/model.safetensors").read_bytes() == whole
    assert not state.exists()
    assert load_model("models/control")(torch.arange(5)[None]).logits.isfinite().all()


def test_the_base_cannot_be_distilled_from_itself():
    tune_params(control=True)
    with pytest.raises(ValueError, match="control = true is not allowed with objective = 'distillation'"):
        tune_params(control=True, objective="distillation")
