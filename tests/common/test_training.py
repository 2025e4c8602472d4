import json
import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from stages.common import progress as progress_bar
from stages.common import training
from stages.common.errors import UserError
from stages.common.resume import forget
from stages.common.training import (
    Plan,
    Progress,
    losses_so_far,
    restore,
    save,
    snapshot,
    train,
    write_losses,
)

TARGET = torch.linspace(-1, 1, 6).view(2, 3)


class Killed(BaseException):
    """Stands for a process that ends in the middle of a step."""


def noisy_fit(folder: Path, plan: Plan, stop_at: int | None = None, optimizers: int = 1, rate: float = 0.05):
    """Fit two tensors to TARGET with noise in every gradient; return (parameters, progress)."""
    parameters = {"a": torch.zeros(2, 3, requires_grad=True), "b.c": torch.zeros(3, 2, requires_grad=True)}
    groups = list(parameters.values())
    adams = [torch.optim.AdamW(groups[number::optimizers], lr=rate) for number in range(optimizers)]

    def distance() -> torch.Tensor:
        return (parameters["a"] - TARGET).square().mean() + (parameters["b.c"] - TARGET.T).square().mean()

    def backward(step: int) -> float:
        if step == stop_at:
            raise Killed
        loss = distance() + (torch.randn(2, 3) * parameters["a"]).sum()
        loss.backward()
        return loss.item()

    progress = train(parameters, adams, backward, lambda: distance().item(), plan, folder, "fit")
    return parameters, progress


@pytest.fixture
def save_each_step(monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", -1)


def test_the_rate_warms_up_to_its_peak_and_decays_to_zero():
    plan = Plan(steps=110, warmup_steps=10, validate_every=1, seed=0)
    rates = [plan.rate(step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[109] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert Plan(steps=5, warmup_steps=0, validate_every=1, seed=0).rate(0) == 1.0
    assert Plan(steps=5, warmup_steps=5, validate_every=1, seed=0).rate(4) == 1.0


def test_the_optimizers_get_the_planned_rate_times_their_own_peak(tmp_path):
    weight = {"w": torch.ones(1, requires_grad=True), "v": torch.ones(1, requires_grad=True)}
    optimizer = torch.optim.SGD([{"params": [weight["w"]], "lr": 1.0}, {"params": [weight["v"]], "lr": 0.1}])
    plan = Plan(steps=2, warmup_steps=2, validate_every=9, seed=0)

    def backward(step: int) -> float:
        (weight["w"] + weight["v"]).sum().mul(0.5).backward()
        return 0.0

    train(weight, [optimizer], backward, iter([9.0, 1.0]).__next__, plan, tmp_path, "fit")
    assert weight["w"].item() == pytest.approx(1 - 0.5 * (0.5 + 1.0))
    assert weight["v"].item() == pytest.approx(1 - 0.5 * (0.05 + 0.1))


@pytest.mark.parametrize("optimizers", [1, 2])
@pytest.mark.parametrize("stop_at", [1, 7, 10, 19])
def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path, save_each_step, stop_at, optimizers):
    plan = Plan(steps=20, warmup_steps=3, validate_every=4, seed=5)
    with pytest.raises(Killed):
        noisy_fit(tmp_path / "killed", plan, stop_at, optimizers)

    whole, expected = noisy_fit(tmp_path / "again", plan, optimizers=optimizers)
    resumed, progress = noisy_fit(tmp_path / "killed", plan, optimizers=optimizers)
    assert progress == expected
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_run_does_not_depend_on_the_random_state_before_it(tmp_path):
    plan = Plan(steps=5, warmup_steps=1, validate_every=2, seed=1)
    first, _ = noisy_fit(tmp_path / "1", plan)
    torch.rand(7)
    second, _ = noisy_fit(tmp_path / "2", plan)
    assert torch.equal(first["a"], second["a"])
    other_seed, _ = noisy_fit(tmp_path / "3", Plan(steps=5, warmup_steps=1, validate_every=2, seed=2))
    assert not torch.equal(first["a"], other_seed["a"])


@pytest.mark.parametrize(
    ("losses", "best"), [([5, 4, 2, 3], 4), ([5, 4, 3, 2], 5), ([5, 6, 6, 7], 0), ([5, 2, 2, 3], 2)]
)
def test_the_parameters_end_at_their_best_validation_loss(tmp_path, losses, best):
    """Steps count 1 each into `w`; validation before the first step, after 2 and 4, and after the last, 5."""
    weight = {"w": torch.zeros(1, requires_grad=True)}

    def backward(step: int) -> float:
        (-weight["w"] * 0.5).sum().backward()
        return 1.0 + step

    plan = Plan(steps=5, warmup_steps=0, validate_every=2, seed=0)
    optimizer = torch.optim.SGD(weight.values(), lr=1.0)
    progress = train(weight, [optimizer], backward, iter(map(float, losses)).__next__, plan, tmp_path, "fit")
    assert progress.best_step == best
    assert list(progress.validation_loss.items()) == list(zip([0, 2, 4, 5], losses, strict=True))
    assert progress.train_loss == [1, 2, 3, 4, 5]
    assert weight["w"].item() == pytest.approx(0.5 * sum(plan.rate(step) for step in range(best)))


@pytest.mark.parametrize("broken", ["loss", "gradient", "validation", "before"])
def test_what_is_not_finite_is_one_line(tmp_path, broken):
    weight = {"w": torch.ones(1, requires_grad=True)}

    def backward(step: int) -> float:
        factor = float("inf") if broken == "gradient" else 1.0
        (factor * weight["w"]).sum().backward()
        return float("nan") if broken == "loss" else 1.0

    validations = [float("nan") if broken == "before" else 1.0, float("inf")]
    optimizer = torch.optim.SGD(weight.values(), lr=0.25)
    plan = Plan(steps=2, warmup_steps=0, validate_every=1, seed=0)
    with pytest.raises(UserError) as caught:
        train(weight, [optimizer], backward, iter(validations).__next__, plan, tmp_path, "fit")
    line = str(caught.value)
    assert "\n" not in line
    if broken == "before":
        assert line == "fit: the validation loss is nan before the first step; check the model's weights and the data"
    else:
        assert line.endswith("; lower it")
        assert line.startswith("fit.learning_rate = 0.25 is too high: ")
        assert {"loss": "nan", "gradient": "norm inf, at step 1", "validation": "inf after step 1"}[broken] in line


def test_gradients_are_clipped(tmp_path):
    weight = {"w": torch.zeros(4, requires_grad=True)}

    def backward(step: int) -> float:
        (100 * weight["w"]).sum().backward()
        return 1.0

    plan = Plan(steps=1, warmup_steps=0, validate_every=1, seed=0)
    train(
        weight, [torch.optim.SGD(weight.values(), lr=1.0)], backward, iter([2.0, 1.0]).__next__, plan, tmp_path, "fit"
    )
    assert weight["w"].norm().item() == pytest.approx(1.0, rel=1e-4)


def keep_saving(folder: Path, begun: Event) -> None:
    """Save states without end, each of one value throughout; tell when that of step 1 is saved."""
    for number in range(10**9):
        # Many small tensors: torch computes those without its threads, which do not survive a fork.
        values = {str(index): torch.full((10_000,), float(number)) for index in range(20)}
        save(Progress(step=number), values, snapshot(values), [], folder)
        if number == 1:
            begun.set()


@pytest.mark.slow
def test_sigkill_while_saving_leaves_a_whole_state(tmp_path):
    for _ in range(3):
        fork = multiprocessing.get_context("fork")
        begun = fork.Event()
        process = fork.Process(target=keep_saving, args=(tmp_path, begun), daemon=True)
        process.start()
        assert begun.wait(60)
        process.join(0.2)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        values = {str(index): torch.zeros(10_000) for index in range(20)}
        progress, best = restore(values, [], tmp_path)
        assert progress.step > 0
        assert all((value == progress.step).all() for value in [*values.values(), *best.values()])
    forget(tmp_path)
    assert not tmp_path.exists()


def test_transposed_parameters_are_saved(tmp_path):
    weight = torch.arange(6.0).view(2, 3).T
    save(Progress(), {"w": weight}, snapshot({"w": weight}), [], tmp_path)
    loaded = {"w": torch.zeros(3, 2)}
    restore(loaded, [], tmp_path)
    assert torch.equal(loaded["w"], weight)


def test_the_loss_curves_are_written_as_dvc_reads_them(tmp_path):
    progress = Progress(step=2, train_loss=[3.5, 1 / 3], validation_loss={0: 4.0, 2: 0.25}, best_step=2)
    write_losses(tmp_path / "metrics/loss.csv", progress)
    assert (tmp_path / "metrics/loss.csv").read_bytes() == (
        b"step,split,loss\n1,train,3.5\n2,train,0.3333333333333333\n0,validation,4.0\n2,validation,0.25\n"
    )


def test_the_training_curve_can_be_thinned_to_means(tmp_path):
    write_losses(tmp_path / "loss.csv", Progress(step=5, train_loss=[1.0, 2.0, 3.0, 5.0, 9.0]), every=2)
    assert (tmp_path / "loss.csv").read_text() == "step,split,loss\n2,train,1.5\n4,train,4.0\n"


def test_the_training_curve_can_be_averaged(tmp_path):
    write_losses(tmp_path / "loss.csv", Progress(step=5, train_loss=[1.0, 3.0, 4.0, 8.0, 9.0]), every=2)
    assert (tmp_path / "loss.csv").read_text() == "step,split,loss\n2,train,2.0\n4,train,6.0\n"


@pytest.mark.parametrize("damage", ["cut", "zeroed", "one bit", "text"])
def test_a_damaged_state_is_dropped_and_the_run_starts_anew(tmp_path, save_each_step, capsys, damage):
    plan = Plan(steps=9, warmup_steps=3, validate_every=4, seed=5)
    with pytest.raises(Killed):
        noisy_fit(tmp_path / "killed", plan, 7)
    file = tmp_path / "killed" / training.STATE_FILE
    whole = file.read_bytes()
    spoilt = {
        "cut": whole[: len(whole) // 2],
        "zeroed": bytes(len(whole)),
        "one bit": whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:],
        "text": b"state",
    }
    file.write_bytes(spoilt[damage])
    resumed, progress = noisy_fit(tmp_path / "killed", plan)
    assert capsys.readouterr().err.count("espalier: ") == 1
    again, expected = noisy_fit(tmp_path / "again", plan)
    assert progress == expected
    assert all(torch.equal(resumed[name], again[name]) for name in again)


def test_progress_survives_as_it_is(tmp_path):
    progress = Progress(step=7, train_loss=[1 / 3, 0.1 + 0.2], validation_loss={0: 2 / 3, 5: 1e-9}, best_step=5)
    save(progress, {"w": torch.ones(1)}, {"w": torch.ones(1)}, [], tmp_path)
    restored, _ = restore({"w": torch.zeros(1)}, [], tmp_path)
    assert json.dumps(vars(restored)) == json.dumps(vars(progress))
    assert restored == progress


def test_the_losses_so_far_are_a_mean_and_the_last_held_out_one():
    losses = [9.0] * 10 + [1.0, 2.0] * 10
    progress = Progress(step=30, train_loss=losses, validation_loss={0: 5.0, 30: 1.25}, best_step=30)
    assert losses_so_far(progress) == "loss 1.500, held-out 1.250"
    assert losses_so_far(Progress(step=1, train_loss=[4.0], validation_loss={0: 5.0})) == "loss 4.000, held-out 5.000"


def test_progress_is_shown_with_the_losses(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress_bar, "QUIET_SECONDS", 0)
    noisy_fit(tmp_path, Plan(steps=20, warmup_steps=2, validate_every=10, seed=1))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"fit: {10 * i} % ({2 * i} of 20)" for i in range(1, 11)]
    assert all(" loss " in line and " held-out " in line for line in lines)
