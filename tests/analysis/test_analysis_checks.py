"""The audit on our own tables: nothing in honest ones, and whatever is tampered with."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from row_helpers import answered

from analysis.arithmetic import (
    Shape,
    exact_macs,
    parameters,
    stored_mib,
)
from analysis.audit import CONTRADICTION
from analysis.checks import check_accuracies, check_costs, check_quality, check_sizes, check_weights
from analysis.quality import norm_numbers, quality_numbers
from analysis.rows import Result
from analysis.tables import cost_numbers, size_table
from thesis.arithmetic import THESIS_LAYERS, TINYLLAMA, prune_like_llm_pruner


def places(findings) -> set[tuple[str, str]]:
    return {(finding.row, finding.column) for finding in findings if finding.kind == CONTRADICTION}


EVALUATE = {
    "base": {"text_ppl": math.exp(2.0), "a_acc": 0.75, "b_acc": 0.5, "a_acc_norm": 0.25},
    "pruned": {"text_ppl": math.exp(3.0), "a_acc": 0.25, "b_acc": 0.25, "a_acc_norm": 0.75},
    "tuned": {},
}
CHANCES = {"a": 0.5, "b": 0.25}
SHAPES = {"base": TINYLLAMA, "pruned": prune_like_llm_pruner(TINYLLAMA, 0.3, THESIS_LAYERS)}
PROFILE = {
    model: {"parameters": parameters(s), "gmacs": exact_macs(s, 64) / 1e9, "weights_mib": parameters(s) / 2**19}
    for model, s in SHAPES.items()
}
CONFIG = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 2048, "head_dim": 64, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632, "dtype": "bfloat16",
}  # fmt: skip


def config_of(shape: Shape) -> dict:
    """Return the config.json of a model of this shape."""
    keys = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    own = [dict(zip(keys, (each.heads, each.kv_heads, each.mlp), strict=True)) for each in shape.layers]
    return CONFIG | {"per_layer_config": {str(index): widths for index, widths in enumerate(own)}}


RIGHT = {"base": [1, 1, 1, 0, 1, 1, 0, 0], "pruned": [1, 0, 0, 0, 1, 0, 0, 0], "tuned": []}
NORMS = {"base": [0, 0, 0, 1, *[None] * 4], "pruned": [1, 1, 0, 1, *[None] * 4], "tuned": []}
LOSSES = {"base": [1.0, 3.0], "pruned": [2.0, 4.0], "tuned": []}


def result(model: str) -> Result:
    """Return a model with the outcomes that its metrics are of."""
    right = {
        "task": list("aaaabbbb")[: len(RIGHT[model])],
        "acc": RIGHT[model],
        "acc_norm": NORMS[model],
        "answer": None,
    }
    (run,) = answered(model, pd.DataFrame(right), pd.DataFrame({"set": "text", "loss": LOSSES[model], "tokens": 9}))
    config = config_of(SHAPES[model]) if model in SHAPES else {}
    return replace(run, evaluate=EVALUATE[model], profile=PROFILE.get(model, {}), config=config)


RUNS = {model: [result(model)] for model in EVALUATE}


@pytest.mark.parametrize("column", [None, "a", "average", "chance_corrected", "text_ppl"])
def test_our_quality_table_is_checked(column):
    table = quality_numbers(RUNS, CHANCES).round(2)
    if column:
        table.loc["pruned", column] += 0.5
    found = places(check_quality(table, RUNS, CHANCES))
    expected = {None: [], "a": ["a", "average", "chance_corrected"]}.get(column, [column])
    assert found == {("pruned", each) for each in expected}


def test_without_chances_nothing_is_corrected_for_them():
    table = quality_numbers(RUNS, {}).round(2)
    assert not places(check_quality(table, RUNS, {"a": 0.5}))


def test_our_table_of_acc_norm_is_checked():
    table = norm_numbers(RUNS).round(2)
    assert list(table) == ["a"] and not check_accuracies(table, RUNS, ["a"], "acc_norm")
    table.loc["base", "a"] += 0.02
    assert places(check_accuracies(table, RUNS, ["a"], "acc_norm")) == {("base", "a")}


def test_a_row_of_several_runs_prints_their_mean():
    runs = {"pruned": [*RUNS["base"], *RUNS["pruned"]]}
    table = quality_numbers(runs, CHANCES).round(2)
    expected = [(math.exp(2) + math.exp(3)) / 2, 50.0, 37.5, 43.75, 25 / 3]
    assert list(table.loc["pruned", ["text_ppl", "a", "b", "average", "chance_corrected"]]) == [
        round(each, 2) for each in expected
    ]
    assert not places(check_quality(table, runs, CHANCES))
    table.loc["pruned", "a"] += 0.02
    assert ("pruned", "a") in places(check_quality(table, runs, CHANCES))


def cost_table() -> pd.DataFrame:
    """Return the costs of base and pruned as they are printed."""
    costs = cost_numbers({model: RUNS[model] for model in PROFILE}).dropna(axis="columns", how="all")
    return costs.round({column: 4 if column == "gmacs" else 2 for column in costs})


@pytest.mark.parametrize("column", [None, "parameters", "gmacs", "weights_mib"])
@pytest.mark.parametrize("percent", [False, True])
def test_our_cost_table_is_checked(column, percent):
    table = cost_table()
    if column:
        table.loc["pruned", f"{column}_percent" if percent else column] *= 1.01
    found = places(check_costs(table, RUNS, 64) + check_weights(table, RUNS))
    changed = {("pruned", f"{column}_percent")} | (set() if percent else {("pruned", column)})
    assert found == (changed if column else set())


def test_weights_measured_on_cuda_may_be_somewhat_more():
    table, (pruned,) = cost_table(), RUNS["pruned"]
    on_cuda = RUNS | {"pruned": [replace(pruned, profile=pruned.profile | {"memory_on_cuda": 1})]}
    table.loc["pruned", "weights_mib"] *= 1.01
    assert not check_weights(table, on_cuda)
    assert places(check_weights(table, RUNS)) == {("pruned", "weights_mib")}
    table.loc["pruned", "weights_mib"] *= 1.05
    assert places(check_weights(table, on_cuda)) == {("pruned", "weights_mib")}
    assert check_weights(table.drop(columns="weights_mib"), RUNS) == []


def test_the_size_of_weights_follows_the_dtype():
    assert stored_mib(CONFIG) == PROFILE["base"]["weights_mib"] == stored_mib(CONFIG | {"dtype": "float32"}) / 2
    assert math.isnan(stored_mib(CONFIG | {"quantization_config": {}}))


def test_our_table_of_sizes_is_checked():
    counts = {"parameters_before": 1_100_048_384, "parameters": 921_651_200}
    table = size_table(counts)
    assert check_sizes(table, RUNS) == []
    assert table.loc["pruned", "kept_percent"] == 83.78
    table.loc["pruned", "before"] = 1_261_529_088
    assert places(check_sizes(table, RUNS)) == {("pruned", "before"), ("pruned", "kept_percent")}
    assert check_sizes(size_table({}), RUNS) == []
