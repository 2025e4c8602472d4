import pytest
import torch
from test_tune_loss import masked_examples
from tune_helpers import read_metrics, tiny_model, trainable, tune_params, write_workspace

from stages.common.training import Progress
from stages.models.checkpoint import load_model
from stages.tune import full, lora
from stages.tune.__main__ import main
from stages.tune.next_token import next_token_loss
from stages.tune.recovery import backward_mean, held_out_loss_rose, recover, warning


@pytest.mark.parametrize(
    ("kind", "tied", "dtype", "objective"),
    [("pruned", True, torch.float32, "distillation"), ("plain", False, torch.bfloat16, "next_token")],
)
@pytest.mark.slow
def test_full_fine_tuning_trains_every_weight_and_keeps_the_dtype(tmp_path, monkeypatch, kind, tied, dtype, objective):
    changes = {"method": "full", "objective": objective, "learning_rate": 0.05, "hidden_weight": 0.1}
    write_workspace(tmp_path, tiny_model(kind, tied, dtype), steps=12, **changes)
    monkeypatch.chdir(tmp_path)
    main()
    before, after = load_model("models/pruned"), load_model("models/merged")
    assert type(after) is type(before)
    assert {parameter.dtype for parameter in after.parameters()} == {dtype}
    after_by_name = dict(after.named_parameters())
    assert all(not torch.equal(weight, after_by_name[name]) for name, weight in before.named_parameters())
    assert after.config.tie_word_embeddings == tied
    metrics = read_metrics(tmp_path)
    assert metrics["trainable_parameters"] == before.num_parameters()
    assert metrics["best_step"] > 0
    assert metrics["train_loss_after"] < metrics["train_loss_before"]
    (note,) = (tmp_path / "models/adapter").iterdir()
    assert note.read_text().startswith("No adapter: tune.method is full, so every weight of models/pruned was trained.")


@pytest.mark.parametrize("method", [lora, full])
def test_gradient_checkpointing_computes_layers_twice_and_changes_no_bit(tmp_path, method):
    found, calls = [], []
    for checkpointing in (False, True):
        params = tune_params(gradient_checkpointing=checkpointing, steps=1, warmup_steps=0, validate_every=1)
        torch.manual_seed(0)
        model = method.trained(method.prepare(tiny_model("pruned"), params))
        recover(model, next_token_loss, masked_examples(), masked_examples()[:2], params, tmp_path, [].append)
        model.zero_grad(set_to_none=True)
        count = []
        model.get_decoder().layers[1].mlp.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        torch.manual_seed(0)
        backward_mean(model.train(), next_token_loss, masked_examples(), 7)
        found.append({name: parameter.grad for name, parameter in trainable(model).items()})
        calls.append(len(count))
    assert calls == [1, 2]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize(
    ("train", "held_out", "best", "rose"),
    [
        ([4, 3, 2, 1], {0: 5.0, 2: 5.1, 4: 5.2}, 0, True),  # never better than before
        ([4, 3, 2, 1], {0: 5.0, 2: 4.0, 4: 4.1}, 2, True),  # learnt too long
        ([4, 3, 2, 1], {0: 5.0, 2: 4.0, 4: 4.005}, 2, False),  # noise
        ([4, 3, 2, 1], {0: 5.0, 2: 5.5, 4: 4.0}, 4, False),  # rose for a while only
        ([4, 3, 1, 2], {0: 5.0, 2: 4.0, 4: 4.1}, 2, False),  # the training loss rose too
        ([4], {0: 5.0, 1: 5.5}, 0, False),  # one step has no course
    ],
)
def test_a_held_out_loss_that_rises_while_the_training_loss_falls_is_noticed(train, held_out, best, rose):
    progress = Progress(step=len(train), train_loss=train, validation_loss=held_out, best_step=best)
    assert held_out_loss_rose(progress) == rose


def test_the_warning_is_one_line_with_both_losses():
    line = warning(Progress(step=4, train_loss=[4, 3, 2, 1], validation_loss={0: 5.0, 2: 4.0, 4: 4.1}, best_step=2))
    assert "from 4.0000 (step 2) to 4.1000 (step 4)" in line
    assert "\n" not in line


def test_half_precision_is_trained_in_full():
    model = tiny_model(dtype=torch.bfloat16)
    model.config.dtype = torch.bfloat16  # as a loaded model's is
    model = full.prepare(model, tune_params())
    assert {(weight.dtype, weight.requires_grad) for weight in model.parameters()} == {(torch.float32, True)}
    assert full.merge(model).dtype == torch.bfloat16
