"""The whole pipeline on a small model that it trains, by the method that costs most time in studies/demo.yaml.

`make test-demo` trains that study's model; a part of `make test` trains a smaller one for half as many steps.
"""

import json
import os

import pandas as pd
import pytest
from project import new_project
from ruamel.yaml import YAML
from scipy.stats import binomtest

from analysis.results import read_measured

pytestmark = pytest.mark.slow

FULL = os.environ.get("ESPALIER_DEMO") == "full"
SMALLER = {} if FULL else {
    "base__vocab_size": 512, "base__hidden_size": 96, "base__intermediate_size": 256,
    "base__layers": 4, "base__heads": 4, "base__kv_heads": 2, "base__steps": 900, "base__warmup_steps": 40,
    "base__learning_rate": 0.01, "prune__attention_layers": [1, 4], "prune__mlp_layers": [1, 4], "tune__steps": 150,
    "tune__warmup_steps": 5, "tune__validate_every": 50, "tune__validation_sequences": 32, "evaluate__tokens": 16384,
}  # fmt: skip
# Measured: perplexity 20, and of the smaller base 13 and 19, by the documentation of two Python installations; of it,
# pruned 1.15 (1.29 by taylor), and 1.27 both; tuned 1.056, and 1.073 both.
QUESTIONS, BASE, PRUNED, TUNED, CHANCE = (500, 21, 1.2, 1.075, 0.001) if FULL else (500, 20, 1.3, 1.09, 0.01)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The project after `dvc repro` with the demo study's params, on one core: other tests run on the second."""
    project = new_project(tmp_path_factory.mktemp("demo") / "project", {})
    demo = YAML(typ="safe").load(project.folder / "studies/demo.yaml")["set"]
    project.set(**{key.replace(".", "__"): value for key, value in demo.items()})
    project.set(run__threads=1, prune__method="knapsack_realign", prune__ratio=0.5, **SMALLER)
    project.run("dvc", "repro")
    return project


def read(demo, name: str) -> dict[str, float]:
    return json.loads((demo.folder / "metrics" / f"{name}.json").read_text())


def test_the_base_models_english(demo):
    assert read(demo, "evaluate/base")["pydocs_ppl"] <= BASE


def test_the_base_beats_chance_on_every_task_and_clearly_on_two(demo):
    questions = pd.read_parquet(demo.folder / "metrics/outcomes/base/questions.parquet")
    clear = 0
    for task, rows in questions.groupby("task"):
        chance = YAML(typ="safe").load(demo.folder / f"data/tasks/{task}.yaml")["metadata"]["chance"]
        assert len(rows) >= QUESTIONS
        assert binomtest(int(rows["acc"].sum()), len(rows), chance, alternative="greater").pvalue < CHANCE, task
        clear += rows["acc"].mean() >= chance + 0.1
    assert questions["task"].nunique() == 3
    assert clear >= 2


def test_pruning_costs_and_recovery_wins_back_most_of_it(demo):
    base, pruned, tuned = (read(demo, f"evaluate/{model}")["pydocs_ppl"] for model in ("base", "pruned", "tuned"))
    assert base < tuned < pruned
    assert pruned <= PRUNED * base
    assert tuned <= TUNED * base
    assert read(demo, "details/report")["tuned_pydocs_log_ppl_recovered"] >= 0.5


def test_every_stage_fits_in_4_gib(demo):
    peaks = {path.stem: json.loads(path.read_text())["peak_resident_mib"] for path in runtime(demo)}
    assert len(peaks) == 14
    assert max(peaks.values()) < 4096, peaks


def runtime(demo):
    return list((demo.folder / "metrics/runtime").glob("*.json"))


def test_the_report_shows_its_numbers_and_plots(demo):
    report = (demo.folder / "reports/run.md").read_text()
    for model in ("base", "pruned", "tuned"):
        assert f"{read(demo, f'evaluate/{model}')['pydocs_ppl']:.2f}" in report
        assert f"{read_measured(demo.folder / 'metrics', 'profile', model)['parameters']:,}" in report
    for plot in ("loss", "perplexity", "accuracy", "layers"):
        assert f"plots/{plot}.png" in report
        assert (demo.folder / f"reports/plots/{plot}.png").stat().st_size > 5000
