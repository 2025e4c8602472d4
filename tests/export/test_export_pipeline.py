"""Exports in the pipeline: made by dvc, and evaluated and profiled as models of their own."""

import pytest
from project import ran

from analysis.results import read_json


@pytest.mark.slow
def test_an_export_is_evaluated_and_profiled_beside_the_three(project):
    project.set(export__formats=["gguf-f16"], export__models=["pruned"])
    project.set(models={"pruned-gguf": "models/export/pruned-gguf-f16"})
    first = ran(project.run("dvc", "repro").stdout)
    assert set(first) == {"export", "evaluate@pruned-gguf", "profile@pruned-gguf", "report"}
    metrics = project.folder / "metrics"
    pruned, exported = (read_json(metrics / "evaluate" / f"{name}.json") for name in ("pruned", "pruned-gguf"))
    assert exported["pydocs_ppl"] == pytest.approx(pruned["pydocs_ppl"], rel=1e-3)
    sizes = [read_json(metrics / "profile" / f"{name}.json")["weights_mib"] for name in ("pruned", "pruned-gguf")]
    assert 0.45 < sizes[1] / sizes[0] < 0.6
    assert "## Further models" in (project.folder / "reports/run.md").read_text()
    assert read_json(metrics / "details/export.json")["pruned_gguf_f16_ppl_ratio"] == pytest.approx(1, rel=1e-3)
    assert ran(project.run("dvc", "repro").stdout) == []
