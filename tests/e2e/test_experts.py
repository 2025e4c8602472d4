"""A mixture of experts through the whole pipeline: experts removed, recovered, measured, reported."""

import csv
import json

import pytest
from helpers import tiny_experts
from project import TINY, new_project

pytestmark = pytest.mark.slow


def test_a_mixture_of_experts_runs_through_all_stages(tmp_path):
    tiny_experts("qwen3_moe", vocab=300).config.save_pretrained(tmp_path / "config")
    base = {"source": "shape", "path": str(tmp_path / "config"), "vocab_size": 300}
    prune = TINY["prune"] | {"method": "reap", "ratio": 0.3, "attention_layers": "auto", "mlp_layers": "auto"}
    project = new_project(tmp_path / "project", TINY | {"base": base, "prune": prune})
    project.run("dvc", "repro")
    metrics = project.folder / "metrics"
    with (metrics / "prune_layers.csv").open(encoding="utf-8") as table:
        assert [(row["experts_before"], row["experts"]) for row in csv.DictReader(table)] == [("6", "4")] * 3
    before, after = (json.loads((metrics / f"profile/{name}.json").read_text()) for name in ("base", "pruned"))
    assert before["parameters"] - after["parameters"] == 6 * (3 * 32 * 12 + 32)
    assert before["active_parameters"] - after["active_parameters"] == 6 * 32  # the router's rows
    assert json.loads((project.folder / "models/merged/config.json").read_text())["num_local_experts"] == 4
    report = (project.folder / "reports/run.md").read_text()
    assert "6 → 4" in report and "None differs from its source" in report
