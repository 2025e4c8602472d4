"""All stages, one after the other in this process, on models in which the stages find other parts than in Llama's."""

import json
import shutil

import pandas as pd
import pytest
from helpers import ROOT, chat_tokenizer, tiny_family
from project import TINY, Project

from stages.base.__main__ import main as base
from stages.check.__main__ import main as check
from stages.data.__main__ import main as data
from stages.evaluate.__main__ import main as evaluate
from stages.export.__main__ import main as export
from stages.models.checkpoint import save_checkpoint
from stages.profile.__main__ import main as profile
from stages.prune.__main__ import main as prune
from stages.report.__main__ import main as report
from stages.tune.__main__ import main as tune
from stages.tune.control import main as control

pytestmark = pytest.mark.slow
MODELS = {"base": "models/base", "pruned": "models/pruned", "tuned": "models/merged"}
SMALLER = {
    "tune": TINY["tune"] | {"steps": 2, "warmup_steps": 1, "validate_every": 2},
    "evaluate": TINY["evaluate"] | {"limit": 2, "tokens": 256},
}


def in_folder(folder, params) -> None:
    """Put the project's params, changed to `params`, and its pipeline into `folder`."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    for section, keys in params.items():
        Project(folder).set(**{f"{section}__{key}": value for key, value in keys.items()})


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A folder in which stage data has run, with the beginnings of its texts."""
    folder = tmp_path_factory.mktemp("collected")
    in_folder(folder, TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data()
    for file in (folder / "data").glob("*.parquet"):  # to tokenise all of it takes longer than what is tested
        pd.read_parquet(file).head(100).to_parquet(file)
    return folder


@pytest.mark.parametrize(
    ("family", "formats"),
    [
        ("gemma3_text", ["safetensors-float16"]),
        ("phi3", ["padded"]),
        ("cohere", ["padded"]),
        ("opt", ["safetensors-float16"]),
    ],
)
def test_every_stage_runs(family, formats, collected, tmp_path, monkeypatch):
    folder = shutil.copytree(collected, tmp_path / "project")
    save_checkpoint(tiny_family(family, kv_heads=4, vocab=260), chat_tokenizer(), tmp_path / "own")
    changes = {
        "base": {"source": "path", "path": str(tmp_path / "own")},
        "export": {"models": ["tuned"], "formats": formats},
    }
    in_folder(folder, TINY | SMALLER | changes)
    monkeypatch.chdir(folder)
    for stage in (check, base, prune, tune, control):
        stage()
    for stage in (evaluate, profile):
        for name, model in MODELS.items():
            stage(name, model)
    export()
    report()
    prune_metrics = json.loads((folder / "metrics/details/prune.json").read_text())
    sizes = {name: json.loads((folder / f"metrics/details/profile/{name}.json").read_text()) for name in MODELS}
    counts = {name: sizes[name] | json.loads((folder / f"metrics/profile/{name}.json").read_text()) for name in MODELS}
    assert counts["pruned"]["parameters"] == counts["tuned"]["parameters"] == prune_metrics["parameters"]
    assert counts["pruned"]["parameters"] < counts["base"]["parameters"]
    assert json.loads((folder / "metrics/details/export.json").read_text())
    assert "None differs from its source" in (folder / "reports/run.md").read_text()
