"""Gradual pruning: zeros grow by the cubic schedule while the model trains, then stay."""

import re

import pytest
import torch
from test_tune_loss import masked_examples
from torch import nn
from tune_helpers import read_metrics, tiny_model, tune_params, write_params, write_workspace

from stages.common import training
from stages.common.errors import UserError
from stages.models.checkpoint import load_model
from stages.models.parts import Parts
from stages.profile.memory import parameter_counts
from stages.tune import control, full
from stages.tune.__main__ import main
from stages.tune.gradual import WeightPruning
from stages.tune.next_token import next_token_loss
from stages.tune.recovery import recover
from stages.tune.schedule import Schedule


def sparsity(ratio=0.6, begin=0.0, end=0.75, every=1) -> dict:
    return {"structure": "weight", "ratio": ratio, "begin": begin, "end": end, "every": every}


def linears(model) -> dict[str, torch.Tensor]:
    """Return the matrices of the decoder layers by name."""
    layers = Parts(model).layers.named_modules()
    return {name: module.weight.detach() for name, module in layers if isinstance(module, nn.Linear)}


def half_zero(model):
    """Set a quarter of one matrix to zero, the smallest weights."""
    weight = model.model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        weight.view(-1)[weight.abs().flatten().argsort()[: weight.numel() // 4]] = 0
    return model


def test_the_schedule_is_the_papers_formula():
    schedule = tune_params(method="full", steps=40, sparsity=sparsity(0.8, 0.1, 0.9, 5)).schedule
    assert schedule == Schedule(ratio=0.8, begin=4, every=5, intervals=6)
    cuts = [step for step in range(41) if schedule.cuts_after(step)]
    assert cuts == [4, 9, 14, 19, 24, 29, 34]
    for step in cuts:
        expected = 0.8 + (0.2 - 0.8) * (1 - (step - 4) / (6 * 5)) ** 3
        assert schedule.sparsity(0.2, step) == pytest.approx(expected, abs=1e-12)
    assert (schedule.sparsity(0.2, 4), schedule.sparsity(0.2, 34)) == (pytest.approx(0.2), 0.8)
    single = tune_params(method="full", sparsity=sparsity(0.8, 0.0, 0.0, 5)).schedule
    assert [step for step in range(7) if single.cuts_after(step)] == [0]
    assert single.sparsity(0.2, 0) == 0.8
    assert tune_params(sparsity=sparsity(None)).schedule is None


def test_zeros_grow_by_magnitude_stay_and_meet_the_schedule_to_half_a_weight(tmp_path):
    params = tune_params(method="full", steps=12, learning_rate=0.02, sparsity=sparsity())
    model, seen = full.prepare(half_zero(tiny_model()), params), []
    initial = {name: (weight == 0).double().mean().item() for name, weight in linears(model).items()}

    def watch(progress) -> None:
        seen.append({name: weight.clone() for name, weight in linears(model).items()})

    examples = masked_examples()
    progress, metrics = recover(model, next_token_loss, examples, examples[:2], params, tmp_path, watch)
    assert len(seen) == 13
    for step, weights in enumerate(seen):
        for name, weight in weights.items():
            zeros, at = weight == 0, min(step, 9)
            goal = 0.6 + (initial[name] - 0.6) * (1 - at / 9) ** 3
            assert int(zeros.sum()) == round(goal * weight.numel()), (step, name)
            if step:
                assert (zeros | (seen[step - 1][name] != 0)).all(), "a zero stays zero"
                assert (weight != seen[step - 1][name]).any(), "the others are trained"
    assert progress.best_step in (10, 12)
    final = linears(model)
    assert all(torch.equal(final[name], seen[progress.best_step][name]) for name in final)
    whole = sum(weight.numel() for weight in final.values())
    assert metrics["sparsity_before"] == pytest.approx(sum(initial[n] * w.numel() for n, w in final.items()) / whole)
    assert metrics["sparsity_after"] == sum(round(0.6 * weight.numel()) for weight in final.values()) / whole
    assert (model.get_input_embeddings().weight[1:] != 0).all()  # row 0 is the padding

    # A model that only gets worse: those before step 9 are better, but not sparse enough.
    params = tune_params(method="full", steps=12, learning_rate=1e-9, sparsity=sparsity(0.95))
    progress, metrics = recover(model, next_token_loss, examples, examples[:2], params, tmp_path / "worse")
    assert progress.validation_loss[0] < progress.validation_loss[12]
    assert progress.best_step in (10, 12) and metrics["sparsity_after"] == pytest.approx(0.95, abs=1e-3)


def test_a_cut_takes_the_smallest_weights_and_their_momentum():
    model = full.prepare(tiny_model(), tune_params(method="full", sparsity=sparsity()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
    pruning = WeightPruning(model, optimizer, Schedule(0.5, 1, 1, 0))
    tokens = torch.arange(12)[None]

    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    before = {name: weight.clone() for name, weight in linears(model).items()}
    pruning.cut(1)
    for name, weight in linears(model).items():
        gone = weight == 0
        assert torch.equal(weight[~gone], before[name][~gone])
        assert before[name][gone].abs().max() <= before[name][~gone].abs().min()
    step()  # whose momentum would move them
    assert all(int((weight == 0).sum()) == weight.numel() // 2 for weight in linears(model).values())


def test_a_run_of_the_stage_ends_sparse_and_the_control_stays_dense(tmp_path, monkeypatch):
    write_workspace(tmp_path, tiny_model("pruned"), method="full", steps=8, sparsity=sparsity(0.5), control=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", -1)
    main()
    merged, metrics = load_model("models/merged"), read_metrics(tmp_path)
    for weight in linears(merged).values():
        assert int((weight == 0).sum()) == round(0.5 * weight.numel())
    nonzero = [parameter_counts(model)["parameters_nonzero"] for model in (load_model("models/pruned"), merged)]
    assert nonzero[0] - nonzero[1] == sum(round(0.5 * weight.numel()) for weight in linears(merged).values())
    assert (metrics["sparsity_before"], metrics["best_step"]) == (0, 8)
    assert metrics["sparsity_after"] == pytest.approx(0.5, abs=1e-3)
    control.main()
    assert not any((weight == 0).any() for weight in linears(load_model("models/control")).values())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": "lora"}, "tune: sparsity.ratio = 0.6 is not allowed with method = 'lora'; expected full"),
        ({"sparsity": sparsity(1)}, "tune.sparsity.ratio = 1 is not allowed; expected a value less than 1"),
        ({"sparsity": sparsity(0.0)}, "tune.sparsity.ratio = 0.0 is not allowed; expected a value greater than 0"),
        ({"sparsity": sparsity(begin=0.8)}, "tune.sparsity: begin = 0.8 is not allowed; expected 0 to end = 0.75"),
        (
            {"sparsity": sparsity(every=5)},
            "tune: sparsity.every = 5 is not allowed; expected at most the 4 steps from begin to end, or begin = end "
            "for a single cut",
        ),
        (
            {"sparsity": sparsity(0.2)},
            "tune.sparsity.ratio = 0.2 is less than the share of zeros in layer 1 mlp.up_proj before training, 0.2500; "
            "expected more, or a lower prune.ratio",
        ),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path, monkeypatch, changes, line):
    write_workspace(tmp_path, half_zero(tiny_model()))
    write_params(tmp_path, **{"method": "full", "sparsity": sparsity()} | changes)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(line) + "$"):
        main()


def test_without_a_ratio_the_other_keys_do_not_matter():
    assert tune_params(steps=1, warmup_steps=0, sparsity=sparsity(None, every=500)).schedule is None
