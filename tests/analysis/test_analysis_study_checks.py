"""The audit on a study's tables: nothing in honest ones, and whatever is tampered with."""

from dataclasses import replace

import pytest
import row_helpers as made

from analysis.checks import contradictions
from analysis.rows import Row
from analysis.study_tables import cost_numbers, quality_numbers, runs_of


def places(base, cells, quality=None, costs=None) -> set[tuple[str, str]]:
    """Return where the tables of the cells, or those given, are contradicted."""
    quality = quality_numbers(base, cells, made.CHANCES) if quality is None else quality
    costs = cost_numbers(base, cells) if costs is None else costs
    findings = contradictions(runs_of(base, cells), quality, costs, made.CHANCES, made.TOKENS)
    return {(each.row, each.column) for each in findings}


@pytest.fixture(scope="module", params=[(0,), (1, 2, 3)], ids=["one run", "three seeds"])
def study(request):
    base, cells = made.study(seeds=request.param)
    quantised = Row("taylor", 0.7, "pruned-gguf-q8_0", [made.measured("taylor", 0.7, "pruned-gguf-q8_0")], base)
    return base, [*cells, quantised]


def test_honest_tables_are_not_contradicted(study):
    assert places(*study) == set()


@pytest.mark.parametrize(
    ("column", "by", "also"),
    [
        ("prose_ppl", 0.02, []),
        ("gap", 2.0, ["average", "chance_corrected"]),
        ("average", 0.02, []),
        ("chance_corrected", 0.03, []),
        ("kept_percent", 0.02, []),
    ],
)
def test_a_tampered_value_of_quality_is_found(study, column, by, also):
    base, cells = study
    quality = quality_numbers(base, cells, made.CHANCES)
    tampered = quality.index[(quality["method"] == "l2") & (quality["ratio"] == 0.4)]
    quality.loc[tampered, column] += by
    assert places(base, cells, quality=quality) == {("l2 0.4", each) for each in [column, *also]}


@pytest.mark.parametrize("column", ["prose_ppl", "gap", "average", "chance_corrected"])
def test_a_tampered_spread_is_found(column):
    base, cells = made.study(ratios=(0.7,), methods=("random",), seeds=(1, 2, 3))
    quality = quality_numbers(base, cells, made.CHANCES)
    quality.loc["random 0.7", f"{column}_sd"] += 0.02
    assert places(base, cells, quality=quality) == {("random 0.7", f"{column}_sd")}


def test_a_tampered_baseline_is_found(study):
    base, cells = study
    quality = quality_numbers(base, cells, made.CHANCES)
    quality.loc[quality["method"] == "guessing", "average"] += 1
    assert places(base, cells, quality=quality) == {("guessing", "average")}


@pytest.mark.parametrize("column", ["parameters", "gmacs", "weights_mib", "peak_memory_mib"])
@pytest.mark.parametrize("percent", [False, True])
def test_a_tampered_value_of_cost_is_found(study, column, percent):
    base, cells = study
    costs = cost_numbers(base, cells)
    tampered = costs.index[(costs["method"] == "l2") & (costs["ratio"] == 0.4)]
    costs.loc[tampered, f"{column}_percent" if percent else column] *= 1.01
    found = {f"{column}_percent"} if percent or column == "peak_memory_mib" else {column, f"{column}_percent"}
    assert places(base, cells, costs=costs) == {("l2 0.4", each) for each in found}


def test_a_metric_that_its_source_contradicts_is_found():
    base, cells = made.study(ratios=(0.3,), methods=("l2",))
    (run,) = cells[0].runs
    run.evaluate["gap_acc"] += 0.005
    run.profile["weights_mib"] *= 1.02
    assert places(base, cells) == {("l2 0.3", "gap"), ("l2 0.3", "weights_mib")}
    run.profile["memory_on_cuda"] = 1  # measured there, the ends of its blocks count
    assert places(base, cells) == {("l2 0.3", "gap")}
    wider = replace(run, config=run.config | {"intermediate_size": 300})
    assert {("l2 0.3", "parameters"), ("l2 0.3", "gmacs")} <= places(
        base, [replace(cells[0], runs=[wider]), *cells[1:]]
    )
