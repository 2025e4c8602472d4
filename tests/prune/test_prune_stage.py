"""The stage from files to files, for the structures that leave widths alone."""

import json

import pandas as pd
import pytest
from helpers import ROOT, tiny_llama, tiny_tokenizer
from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.models.checkpoint import load_model, save_checkpoint
from stages.prune.__main__ import main

TINY = {
    "ratio": 0.5,
    "ratio_of": "groups",
    "attention_layers": [1, 4],
    "mlp_layers": [1, 4],
    "calibration": {"windows": 4, "length": 16},
}


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Return a function that runs the stage in a folder of its own and returns its metrics and table of layers."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_llama(layers=4), tiny_tokenizer(), tmp_path / "models/base")
    (tmp_path / "data").mkdir()
    pd.DataFrame({"text": ["the quick brown fox jumps over the lazy dog 42 " * 20]}).to_parquet(
        "data/calibration.parquet"
    )

    def run(**changes):
        yaml = YAML()
        content = yaml.load(ROOT / "params.yaml")
        content["run"] = {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False}
        content["prune"].update(TINY | changes)
        yaml.dump(content, tmp_path / "params.yaml")
        main()
        metrics = json.loads((tmp_path / "metrics/details/prune.json").read_text())
        assert json.loads((tmp_path / "metrics/prune.json").read_text()) == {"ratio": metrics["ratio_actual"]}
        return metrics, pd.read_csv(tmp_path / "metrics/prune_layers.csv")

    return run


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_sparse_model_keeps_its_widths_and_loses_weights(stage, method):
    metrics, layers = stage(method=method)
    saved = load_model("models/pruned")
    assert saved.config.model_type == "llama"
    nonzero = sum(each.count_nonzero().item() for each in saved.parameters())
    assert metrics["parameters_nonzero"] == nonzero < metrics["parameters"] == saved.num_parameters()
    assert (layers["mlp_width"] == layers["mlp_width_before"]).all()
    assert (layers["parameters_nonzero"] / layers["parameters_nonzero_before"] < 0.51).tolist() == [
        False,
        True,
        True,
        True,
    ]


def test_matrices_of_low_rank_leave_widths_alone(stage):
    metrics, layers = stage(method="svd_llm")
    saved = load_model("models/pruned")
    assert saved.config.model_type == "pruned_llama" and [len(each) for each in saved.config.ranks] == [0, 7, 7, 7]
    assert metrics["matrices"] == metrics["matrices_of_low_rank"] == 21
    assert metrics["parameters"] == saved.num_parameters() < metrics["parameters_before"]
    assert (layers["mlp_width"] == layers["mlp_width_before"]).all()
    assert (layers["parameters_nonzero"] / layers["parameters_nonzero_before"] < 0.53).sum() == 3


def test_a_removed_layer_has_a_row_of_zeros(stage):
    metrics, layers = stage(method="first_layers", ratio=0.34)
    assert load_model("models/pruned").config.base_layers == [0, 2, 3]
    assert layers["layer"].tolist() == [0, 1, 2, 3]
    widths = ["query_heads", "kv_heads", "mlp_width", "parameters_nonzero"]
    assert layers.loc[1, widths].tolist() == [0, 0, 0, 0]
    for name in widths:
        assert layers[name].drop(1).tolist() == layers[f"{name}_before"].drop(1).tolist()
    assert (metrics["layers_before"], metrics["layers"]) == (4, 3)


def test_units_removed_leave_nonzero_parameters_behind(stage):
    metrics, layers = stage(method="l2")
    assert metrics["parameters_nonzero"] <= metrics["parameters"] < metrics["parameters_before"]
    assert layers["mlp_width"].tolist() == [24, 12, 12, 12]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"calibration": {"windows": 1, "length": 257}},
            "prune.calibration.length = 257 is longer than the context of models/base; expected at most 256 tokens",
        ),
        (
            {"method": "l2", "budget": "1 GMACs", "budget_length": 300},
            "prune.budget_length = 300 is longer than the context of models/base; expected at most 256 tokens",
        ),
    ],
)
def test_what_is_longer_than_the_context_is_refused_before_the_model_is_read(stage, tmp_path, changes, line):
    (tmp_path / "models/base/model.safetensors").unlink()
    with pytest.raises(UserError) as caught:
        stage(**changes)
    assert str(caught.value) == line
    assert not (tmp_path / "models/pruned").exists()


def test_a_rotated_model_is_a_plain_one_of_a_smaller_hidden_size(stage):
    metrics, layers = stage(method="channel_realign")
    saved = load_model("models/pruned")
    assert type(saved).__name__ == "LlamaForCausalLM"
    assert saved.config.hidden_size == metrics["hidden_size"] == 16
    assert saved.num_parameters() == metrics["parameters"]
    assert (layers["mlp_width"] == layers["mlp_width_before"]).all()
