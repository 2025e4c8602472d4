"""Gradual pruning of units: they become zero by the cubic schedule while the model trains, and are then removed."""

import re
from itertools import count

import pytest
import torch
from helpers import tiny_experts, tiny_family
from test_tune_loss import masked_examples
from tune_helpers import output_bytes, read_metrics, tiny_model, tune_params, write_params, write_workspace

from stages.common import training
from stages.common.errors import UserError
from stages.models.checkpoint import load_model
from stages.models.parts import Parts
from stages.models.surgery import rebuild
from stages.tune import control, full, recovery
from stages.tune.__main__ import main
from stages.tune.next_token import next_token_loss
from stages.tune.recovery import recover
from stages.tune.schedule import Schedule
from stages.tune.unit_pruning import UnitPruning

TOKENS = torch.arange(2, 26).view(2, 12)


def units(ratio=0.5, begin=0.0, end=0.75, every=1) -> dict:
    return {"structure": "block", "ratio": ratio, "begin": begin, "end": end, "every": every}


def rows_and_columns(layer) -> dict[str, list[tuple[torch.Tensor, ...]]]:
    """Return what each unit of a Llama's layer consists of: the first head's or channel's slices, the second's, ..."""
    attention, mlp = layer.self_attn, layer.mlp
    keys, size = attention.k_proj.out_features // 8, attention.num_key_value_groups * 8
    heads = [
        (
            attention.k_proj.weight[8 * i : 8 * i + 8], attention.v_proj.weight[8 * i : 8 * i + 8],
            attention.q_proj.weight[size * i : size * (i + 1)], attention.o_proj.weight[:, size * i : size * (i + 1)],
        )
        for i in range(keys)
    ]  # fmt: skip
    channels = [
        (mlp.gate_proj.weight[i], mlp.up_proj.weight[i], mlp.down_proj.weight[:, i])
        for i in range(mlp.up_proj.out_features)
    ]
    return {"attention": heads, "mlp": channels}


def zero_units(model) -> dict[str, list[int]]:
    """Return which units of a Llama are zero in all their weights, by layer and kind."""
    return {
        f"layer {index} {kind}": [i for i, unit in enumerate(found) if not any((part != 0).any() for part in unit)]
        for index, layer in enumerate(Parts(model).layers)
        for kind, found in rows_and_columns(layer).items()
    }


def sizes(model) -> dict[str, int]:
    """Return the number of units, by layer and kind."""
    layers = enumerate(Parts(model).layers)
    return {
        f"layer {index} {kind}": len(found) for index, each in layers for kind, found in rows_and_columns(each).items()
    }


def step(model, optimizer, pruning) -> None:
    """Take one step of training."""
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    pruning.after_backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_cut_takes_the_units_of_least_w_g_and_their_momentum():
    model = full.prepare(tiny_model(), tune_params(method="full", sparsity=units()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    pruning = UnitPruning(model, optimizer, Schedule(0.5, 3, 1, 0))
    means: dict[str, list[float]] = {name: [0.0] * number for name, number in sizes(model).items()}
    for _ in range(3):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        for index, layer in enumerate(Parts(model).layers):
            weights = rows_and_columns(layer)
            for weight in layer.parameters():
                weight.data, weight.grad.data = weight.grad.data, weight.data  # the same slices of the gradients
            gradients = rows_and_columns(layer)
            for kind, values in weights.items():
                name = f"layer {index} {kind}"
                for i, pair in enumerate(zip(values, gradients[kind], strict=True)):
                    salience = sum((w.data * g.data).abs().sum().item() for w, g in zip(*pair, strict=True))
                    means[name][i] = 0.9 * means[name][i] + 0.1 * salience
            for weight in layer.parameters():
                weight.data, weight.grad.data = weight.grad.data, weight.data
        pruning.after_backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, scores in pruning.carried.items():
        torch.testing.assert_close(scores, torch.tensor(means[name]), rtol=1e-4, atol=0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    pruning.cut(3)
    expected = {
        name: sorted(sorted(range(len(each)), key=each.__getitem__)[: round(len(each) / 2)])
        for name, each in means.items()
    }
    assert zero_units(model) == expected and all(expected.values())
    for name, weight in model.named_parameters():
        assert torch.equal(weight[weight != 0], before[name][weight != 0]), name
    step(model, optimizer, pruning)  # whose momentum would move them
    assert zero_units(model) == expected
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    pruning.after_backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.grad)
    assert zero_units(model) == expected, "of zero units alone the gradient is taken away"


@pytest.mark.parametrize(
    "family", ["llama", "qwen3 biased", "olmo2", "starcoder2", "cohere normed", "gpt_neox", "phi3", "opt"]
)
def test_the_narrow_model_is_the_one_whose_units_are_zero(family):
    model = tiny_family(family).requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    pruning = UnitPruning(model, optimizer, Schedule(0.4, 1, 1, 0))
    step(model, optimizer, pruning)
    with torch.no_grad():
        dense = model(TOKENS).logits
    pruning.cut(1)
    step(model, optimizer, pruning)
    with torch.no_grad():
        zeros = model(TOKENS).logits
        metrics = pruning.finish()
        narrow = rebuild(model)
        torch.testing.assert_close(narrow(TOKENS).logits, zeros, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(dense, zeros, rtol=1e-2, atol=1e-2)
    heads = pruning.modules["layer 0 attention"].units
    assert [*Parts(narrow).widths[1].values()][1:] == [heads - round(0.4 * heads), 24 - round(0.4 * 24)]
    assert metrics["parameters_after"] == narrow.num_parameters() < metrics["parameters_before"]


def test_units_become_zero_by_the_schedule_stay_and_are_removed(tmp_path):
    params = tune_params(method="full", steps=12, learning_rate=0.02, sparsity=units(0.7, every=3))
    model, seen = full.prepare(tiny_model("pruned"), params), []
    widths, before = sizes(model), model.num_parameters()
    examples = masked_examples()
    progress, metrics = recover(
        model, next_token_loss, examples, examples[:2], params, tmp_path, lambda _: seen.append(zero_units(model))
    )
    assert len(seen) == 13
    for number, found in enumerate(seen):
        for name, width in widths.items():
            share = 0.7 * (1 - (1 - min(number // 3 * 3, 9) / 9) ** 3)
            assert len(found[name]) == min(round(share * width), width - 1), (number, name)
            if number:
                assert set(found[name]) >= set(seen[number - 1][name]), "a zero unit stays zero"
    assert progress.best_step in (10, 12)
    assert sizes(model) == {name: width - len(seen[-1][name]) for name, width in widths.items()}
    assert widths["layer 1 attention"] == sizes(model)["layer 1 attention"] == 1, "one unit stays"
    assert not any(zero_units(model).values())
    assert metrics["parameters_before"] == metrics["trainable_parameters"] == before
    assert metrics["parameters_after"] == rebuild(model).num_parameters() < before


def test_a_killed_run_ends_with_the_same_narrow_model(tmp_path, monkeypatch):
    model = tiny_model(dtype=torch.bfloat16)
    changes = {"method": "full", "steps": 8, "validate_every": 8, "sparsity": units(0.5, every=2), "control": True}
    whole = recovery.backward_mean
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", -1)
    for name, kills in (("whole", []), ("killed", [4, 1, 3])):
        write_workspace(tmp_path / name, model, **changes)
        monkeypatch.chdir(tmp_path / name)
        for kill in kills:  # in that step from where it was
            calls = count(1)

            def killed(*arguments, calls=calls, kill=kill):
                if next(calls) == kill:
                    raise KeyboardInterrupt
                return whole(*arguments)

            monkeypatch.setattr(recovery, "backward_mean", killed)
            with pytest.raises(KeyboardInterrupt):
                main()
        monkeypatch.setattr(recovery, "backward_mean", whole)
        main()
    assert output_bytes(tmp_path / "killed") == output_bytes(tmp_path / "whole")

    merged, metrics = load_model("models/merged"), read_metrics(tmp_path / "killed")
    assert merged.config.model_type == "llama" and merged.dtype == torch.bfloat16
    assert sizes(merged) == {name: width - round(width / 2) for name, width in sizes(model).items()}
    assert (metrics["parameters_before"], metrics["parameters_after"]) == (
        model.num_parameters(), merged.num_parameters(),
    )  # fmt: skip
    control.main()
    assert sizes(load_model("models/control")) == sizes(load_model("models/base"))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"sparsity": units(end=0.0)},
            "tune: sparsity.end = 0 is not allowed with sparsity.structure = 'block', whose units are chosen by the "
            "gradients of the steps before a cut; expected one step at least, or prune.ratio for a cut before the "
            "first",
        ),
        (
            {"sparsity": units() | {"structure": "layer"}},
            "tune.sparsity.structure = 'layer' is not allowed; expected 'weight' or 'block'",
        ),
        ({"method": "lora"}, "tune: sparsity.ratio = 0.5 is not allowed with method = 'lora'; expected full"),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path, monkeypatch, changes, line):
    write_params(tmp_path, **{"method": "full", "sparsity": units()} | changes)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(line) + "$"):
        main()


def test_models_without_such_units_are_refused():
    schedule = Schedule(0.5, 1, 1, 0)
    with pytest.raises(UserError, match=r"^tune\.sparsity\.ratio is not allowed for a mixture of experts"):
        UnitPruning(tiny_experts("mixtral"), None, schedule)
    model = tiny_model()
    model.config.ranks = [{}, {}, {}]
    with pytest.raises(UserError, match=r"^tune\.sparsity\.structure = 'block' is not allowed for a model of low rank"):
        UnitPruning(model, None, schedule)
