"""What DVC shows of a run: few metrics, each of them a number that a person compares."""

import json
import re

import pytest
from project import ROOT

pytestmark = pytest.mark.slow

TASKS = ("pydocs_continuation", "pydocs_gap", "pydocs_object")
COSTS = {"parameters", "gmacs", "weights_mib", "peak_memory_mib", "decode_tokens_per_second"}


def shown(project) -> dict[str, set[str]]:
    """Return the names of the metrics that `dvc exp show` has of the work tree, by file."""
    (workspace, *_) = json.loads(project.run("dvc", "exp", "show", "--json").stdout)
    return {path: set(file["data"]) for path, file in workspace["data"]["metrics"].items()}


def test_dvc_shows_at_most_thirty_metrics(finished):
    found = shown(finished)
    sets = {path.stem for path in (finished.folder / "data/perplexity").glob("*.parquet")}
    quality = {f"{name}_ppl" for name in sets} | {f"{task}_acc" for task in TASKS} | {"average_acc"}
    recovered = found.pop("metrics/comparison.json")
    assert found == {
        **{f"metrics/evaluate/{model}.json": quality for model in ("base", "pruned", "tuned")},
        **{f"metrics/profile/{model}.json": COSTS for model in ("base", "pruned")},
        "metrics/profile/tuned.json": set(),
        "metrics/prune.json": {"ratio"},
    }
    assert recovered <= {f"{name}_recovered" for name in sets} and len(recovered) <= 1
    assert sum(map(len, found.values())) + 1 <= 30


def test_a_model_of_the_users_has_metrics_too(project):
    project.set(models={"mine": "models/pruned"})
    project.run("dvc", "repro", "profile@mine", "evaluate@mine")
    assert shown(project)["metrics/profile/mine.json"] == COSTS


def test_every_metric_and_detail_is_documented(finished):
    page = (ROOT / "docs/metrics.md").read_text()
    found = [name for name in re.findall(r"`([a-z<][\w<>]*)`", page) if not re.fullmatch(r"<\w+>", name)]
    documented = [re.sub(r"<\w+>", r"\\w+", name) for name in found]
    paths = [path for path in (finished.folder / "metrics").rglob("*.json") if "outcomes" not in path.parts]
    names = {(path.name, name) for path in paths for name in json.loads(path.read_text())}
    assert len(names) > 100
    assert [each for each in sorted(names) if not re.fullmatch("|".join(documented), each[1])] == []
