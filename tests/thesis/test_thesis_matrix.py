"""studies/thesis.yaml: the thesis's matrix, whatever the demo's params become."""

from pathlib import Path

import pytest
from helpers import ROOT

from stages.check.sections import check_params
from stages.common.params import read_params_file
from studies.settings import write_settings
from studies.study import Study, changed, load_study

FILE = Path("studies/thesis.yaml")
# The machine's; what is made and told of the models afterwards, which no experiment of this study does.
NOT_PINNED = {"run", "export", "models", "report"}
UNLIKE_ANY = "a default that nobody chose"


@pytest.fixture
def study(monkeypatch) -> Study:
    monkeypatch.chdir(ROOT)
    return load_study(FILE)


def leaves(content: dict, parent: str = "") -> dict:
    """Return the values of nested mappings by dotted key; an empty mapping is a value."""
    found = {}
    for key, value in content.items():
        found |= leaves(value, f"{parent}{key}.") if value and isinstance(value, dict) else {f"{parent}{key}": value}
    return found


def test_it_is_the_matrix(study):
    matrix = [(method, ratio) for method in ("random", "l1", "l2", "taylor") for ratio in (0.3, 0.4, 0.7)]
    *grid, tuned = study.variants
    assert [tuple(each.varied.values()) for each in grid] == matrix
    assert {each.models for each in grid} == {("base", "pruned")}
    assert tuned.label == "taylor-0.3-tuned" and tuned.models == ("base", "pruned", "tuned")
    assert study.needs(tuned).label == "taylor-0.3"
    assert [base.label for base in study.bases] == ["base"]


def test_params_of_every_variant_are_valid_and_what_the_sweep_writes(study, monkeypatch, tmp_path):
    params = Path("params.yaml").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for variant in study.variants:
        Path("params.yaml").write_text(params, encoding="utf-8")
        write_settings(Path("params.yaml"), variant.settings)
        assert read_params_file() == variant.params
        check_params(variant.params)


def test_nothing_of_it_is_the_demos(study):
    """Were every value of params.yaml another, the study's params would be these."""
    for variant in study.variants:
        others = read_params_file()
        for key in leaves(others):
            others = changed(others, {key: UNLIKE_ANY}, FILE)
        params = leaves(changed(others, variant.settings, FILE))
        inherited = {key for key, value in params.items() if value == UNLIKE_ANY}
        allowed = {key for key in inherited if key in NOT_PINNED or key.split(".")[0] in NOT_PINNED}
        assert inherited == allowed, "set these in studies/thesis.yaml"


def test_its_values_are_the_thesiss(study):
    """Those that docs/thesis.md tells of; the others are LLM-Pruner's defaults or have no counterpart there."""
    tuned = leaves(study.variants[-1].params)
    expected = {
        "base.model": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "prune.attention_layers": [4, 18],
        "prune.mlp_layers": [4, 18],
        "prune.taylor": "param_first",
        "prune.calibration.windows": 10,
        "prune.calibration.length": 64,
        "evaluate.sequence_length": 2048,
        "evaluate.num_fewshot": 0,
        "tune.lora_rank": 8,
        "tune.learning_rate": 1e-4,
        "tune.batch_size": 64,
        "profile.sequence_length": 64,
    }
    assert {key: tuned[key] for key in expected} == expected
