"""The audit: it finds the thesis's errors, nothing in honest tables, and whatever is tampered with."""

import math
from pathlib import Path

import pandas as pd
import pytest
from helpers import FAMILIES, prune_params, tiny_family
from hypothesis import given
from hypothesis import strategies as st

from analysis.arithmetic import (
    Layer,
    exact_macs,
    parameters,
    shape_of,
)
from analysis.audit import (
    CONTRADICTION,
    ROUNDING,
    check_average,
    check_chance_corrected,
    check_known,
    check_share,
)
from thesis.arithmetic import THESIS_LAYERS, TINYLLAMA, prune_like_llm_pruner, thesis_macs
from thesis.printed import (
    REFERENCE,
    audit_cost,
    audit_quality,
    check_claims,
    check_ratios,
    read_claims,
    read_cost,
    read_quality,
    read_ratios,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "reference"
SCORES = st.floats(0, 100, allow_nan=False)


def places(findings, kind=CONTRADICTION) -> set[tuple[str, str]]:
    return {(finding.row, finding.column) for finding in findings if finding.kind == kind}


@pytest.mark.parametrize(
    ("ratio", "count", "macs"),
    [(0.3, 921_651_200, 54_798_305_792), (0.4, 873_224_192, 51_697_968_384), (0.7, 694_827_008, 40_277_520_128)],
)
def test_the_thesis_s_models_to_the_last_digit(ratio, count, macs):
    shape = prune_like_llm_pruner(TINYLLAMA, ratio, THESIS_LAYERS)
    assert (parameters(shape), thesis_macs(shape)) == (count, macs)


def test_tinyllama_to_the_last_digit():
    assert (parameters(TINYLLAMA), thesis_macs(TINYLLAMA)) == (1_100_048_384, 66_218_754_048)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_shapes_count_what_transformers_builds(tied, bias):
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=10,
        tie_word_embeddings=tied,
        attention_bias=bias,
        mlp_bias=bias,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    shape = shape_of(config.to_dict())
    assert parameters(shape) == model.num_parameters()
    linear = sum(each.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) for each in m.parameters())
    assert exact_macs(shape, 7) == 7 * linear + 3 * 2 * 4 * 10 * 7 * 7


def test_per_layer_widths_override_the_config_s():
    config = {
        "model_type": "pruned_llama",
        "vocab_size": 50,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 40,
        "per_layer_config": {"1": {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 9}},
    }
    assert shape_of(config).layers == (Layer(4, 2, 40), Layer(2, 1, 9))
    assert shape_of(config).head_dim == 6


@pytest.mark.parametrize("update", ["none", "bias"])
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_count_every_architecture_pruned(family, update):
    """Twelve layers: transformers pads the numbers of the layers with zeros then."""
    torch = pytest.importorskip("torch")
    from stages.prune.block.pruning import prune

    model = tiny_family(family, layers=12)
    assert parameters(shape_of(model.config.to_dict())) == model.num_parameters()
    pruned, _ = prune(model, torch.zeros(1, 4, dtype=torch.int64), prune_params(criterion="flap", update=update))
    assert parameters(shape_of(pruned.config.to_dict())) == pruned.num_parameters()


def test_the_thesis_s_quality_tables():
    findings = audit_quality(read_quality(), read_claims(), read_ratios())
    tuned = "4.3.1 (only HellaSwag and ARC-c improved): taylor 0.3 tuned against taylor 0.3"
    below = "5 (L1 is below random in all tests): random 0.3 against l1 0.3"
    assert places(findings) == {
        ("base", "average"),
        ("random 0.3", "average"),
        ("l2 0.4", "average"),
        (tuned, "tasks on which it scores higher"),
        (tuned, "average of taylor 0.3"),
        (below, "tasks on which it scores higher"),
        ("3.5.2 (the ratios chosen)", "ratios"),
    }
    assert places(findings, ROUNDING) == {("taylor 0.7", "average")}
    found = {(finding.row, finding.column): finding.expected for finding in findings}
    assert found["base", "average"] == pytest.approx(44.416)
    assert found["l2 0.4", "average"] == pytest.approx(37.462)
    assert found["3.5.2 (the ratios chosen)", "ratios"] == "0.3, 0.4, 0.7"
    assert found[tuned, "tasks on which it scores higher"] == "hellaswag, winogrande, arc_challenge"


def test_the_thesis_s_cost_tables():
    pruned = [f"ratio {ratio}" for ratio in (0.3, 0.4, 0.7)]
    shares = ("params_kept_percent", "gmacs_percent", "gpu_memory_percent")
    assert places(audit_cost(read_cost())) == {
        *((row, "params_before_millions") for row in ["ratio 0.0", *pruned]),
        *((row, column) for row in pruned for column in shares),
        *(("ratio 0.0", column) for column in ("params_after_millions", "gmacs", "gpu_memory_mib")),
    }


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared reference tables are not here")
@pytest.mark.parametrize("name", ["thesis_quality.csv", "thesis_cost.csv"])
def test_the_tables_are_the_shared_ones(name):
    pd.testing.assert_frame_equal(pd.read_csv(REFERENCE / name), pd.read_csv(SHARED / name))


@given(st.lists(st.lists(SCORES, min_size=3, max_size=3), min_size=1, max_size=4))
def test_honest_rounding_is_no_contradiction(rows):
    table = pd.DataFrame(rows, columns=["a", "b", "c"])
    table["average"] = table.mean(axis=1)
    table["whole"] = 123.456
    table["percent"] = 100 * table["a"] / table["whole"]
    printed = table.round(2)
    findings = check_average(printed, "average", ["a", "b", "c"]) + check_share(printed, "percent", "a", "whole")
    assert not places(findings)


@given(st.lists(st.lists(SCORES, min_size=3, max_size=3), min_size=1, max_size=4))
def test_honest_rounding_of_a_corrected_average_is_no_contradiction(rows):
    chances = pd.Series({"a": 50.0, "b": 25.0, "c": 25.0})
    table = pd.DataFrame(rows, columns=["a", "b", "c"])
    table["corrected"] = (100 * (table - chances) / (100 - chances)).mean(axis=1)
    assert not places(check_chance_corrected(table.round(2), "corrected", chances))


@given(st.lists(SCORES, min_size=3, max_size=3), st.sampled_from([-1, 1]), st.floats(0.021, 50))
def test_a_tampered_average_is_flagged(scores, sign, by):
    table = pd.DataFrame([scores], columns=["a", "b", "c"], index=["row"]).round(2)
    table["average"] = round(sum(scores) / 3 + sign * by, 2)
    assert places(check_average(table, "average", ["a", "b", "c"])) == {("row", "average")}


def test_an_average_over_a_missing_score_is_flagged():
    table = pd.DataFrame({"a": [50.0, 50.0], "b": [math.nan, math.nan], "average": [50.0, math.nan]}, index=["x", "y"])
    assert places(check_average(table, "average", ["a", "b"])) == {("x", "average")}


def test_known_values_may_be_missing_or_tolerant():
    table = pd.DataFrame({"size": [100.0, 104.0, 106.0, math.nan]}, index=list("abcd"))
    known = pd.Series([math.nan, 100.0, 100.0, 100.0], index=list("abcd"))
    assert places(check_known(table, "size", known, "", tolerance=0.05)) == {("c", "size")}
    assert places(check_known(table, "size", known, "")) == {("b", "size"), ("c", "size")}


def test_true_claims_pass():
    table = pd.DataFrame({"a": [2.0, 1.0], "b": [1.0, 2.0], "average": [1.5, 1.5]}, index=["x", "y"])
    claim = {"better": "x", "worse": "y", "tasks": "a", "better_average": 1.5, "worse_average": math.nan}
    assert check_claims(table, pd.DataFrame([claim], index=["here"]), ["a", "b"]) == []
    wrong = pd.DataFrame([claim | {"worse_average": 1.6}], index=["here"])
    assert places(check_claims(table, wrong, ["a", "b"])) == {("here: x against y", "average of y")}


def test_true_ratios_pass():
    table = pd.DataFrame({"ratio": [0.0, 0.3, 0.5, 0.3]})
    assert check_ratios(table, pd.DataFrame({"ratios": ["0.5 0.3"]}, index=["here"])) == []
    assert places(check_ratios(table, pd.DataFrame({"ratios": ["0.3"]}, index=["here"]))) == {("here", "ratios")}
