"""A sparse model is told by its nonzero parameters, and its other costs are said to be the dense model's."""

import json

from analysis.results import is_sparse, read_by_model
from stages.report.__main__ import main
from stages.report.show import compare


def make_sparse(root, share: float = 0.3) -> None:
    """Make the study's pruned and tuned model as large as its base, `share` of it zeros."""
    base = json.loads((root / "metrics/profile/base.json").read_text())
    base["parameters_nonzero"] = base["parameters"]
    zeros = {"parameters_nonzero": round((1 - share) * base["parameters"])}
    for model, folder in (("base", "base"), ("pruned", "pruned"), ("tuned", "merged")):
        (root / f"metrics/profile/{model}.json").write_text(json.dumps(base | (zeros if model != "base" else {})))
        (root / f"metrics/details/profile/{model}.json").write_text('{"memory_on_cuda": 0}')
        (root / f"models/{folder}/config.json").write_text((root / "models/base/config.json").read_text())
    counts = {"parameters_before": base["parameters"], "parameters": base["parameters"], **zeros}
    (root / "metrics/details/prune.json").write_text(json.dumps(counts))


def cells(page: str, start: str) -> list[str]:
    """Return the cells of the first table row that starts with `start`."""
    line = next(line for line in page.splitlines() if line.removeprefix("|").strip().startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_nonzero_parameters_are_told_where_the_others_do_not_fall(run_folder):
    make_sparse(run_folder)
    main()
    page = (run_folder / "reports/run.md").read_text()
    cost = page.split("## Cost")[1]
    total = json.loads((run_folder / "metrics/profile/base.json").read_text())["parameters"]
    assert cells(cost, "pruned")[1:5] == [f"{total:,}", "100.00", f"{round(0.7 * total):,}", "70.00"]
    assert cells(cost, "pruned")[6] == "100.00"  # GMac
    nonzero, removed = f"{round(0.7 * total):,}", cells(page.split("What pruning removed")[1], "50 %")
    assert removed == ["50 %", f"{total:,}", f"{total:,}", "100.00 %", nonzero, "70.00 %"]
    shares = "30.00 % of them in the pruned model, 30.00 % of them in the tuned model"
    assert f"Parameters set to zero are still stored and multiplied: {shares}." in page
    assert "they lower neither parameters nor GMac nor\nmemory" in cost
    assert "None differs from its source" in page
    profile = read_by_model(run_folder / "metrics", "profile")
    assert "nonzero parameters" in compare({}, profile)


def test_a_few_zeros_do_not_make_a_model_sparse(run_folder):
    make_sparse(run_folder, share=0.001)
    main()
    page = (run_folder / "reports/run.md").read_text()
    assert "of those nonzero" not in page
    assert "Parameters set to zero" not in page
    assert not any(map(is_sparse, read_by_model(run_folder / "metrics", "profile").values()))
    assert not is_sparse({})
