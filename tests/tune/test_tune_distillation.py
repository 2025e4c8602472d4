import copy
import math

import pytest
import torch
from helpers import tiny_llama
from test_tune_loss import masked_examples
from tune_helpers import VOCABULARY, tiny_model, trainable, tune_params

from stages.common.errors import UserError
from stages.tune.batches import collate
from stages.tune.distillation import Distillation, check_states
from stages.tune.examples import IGNORE
from stages.tune.lora import prepare
from stages.tune.recovery import mean_loss


def other_model():
    """Return a base for `tiny_model`: the same vocabulary, hidden size and depth."""
    return tiny_llama(mlp=40, vocab=VOCABULARY, seed=9)


def softmax(scores: list[float], temperature: float) -> list[float]:
    powers = [math.exp((score - max(scores)) / temperature) for score in scores]
    return [power / sum(powers) for power in powers]


@torch.no_grad()
def naive_loss(base, model, temperature: float, hidden_weight: float) -> float:
    """Return the loss of `masked_examples`, one sequence and one token at a time, in float64."""
    base, model = copy.deepcopy(base).double(), copy.deepcopy(model).double()
    total = 0.0
    for tokens, labels in masked_examples():
        for position in range(1, len(tokens)):
            if labels[position] == IGNORE:
                continue
            theirs, ours = (
                each(input_ids=tokens[None, :position], output_hidden_states=True) for each in (base, model)
            )
            p, q = (softmax(each.logits[0, -1].tolist(), temperature) for each in (theirs, ours))
            total += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            states = list(zip(theirs.hidden_states, ours.hidden_states, strict=True))[1:]
            errors = [float(((b - a)[0, -1] ** 2).sum() / (a[0, -1] ** 2).sum()) for a, b in states]
            total += hidden_weight * sum(errors) / 3
    return total


@pytest.mark.parametrize("kind", ["plain", "pruned"])
@pytest.mark.parametrize(("temperature", "hidden_weight"), [(1.0, 0.0), (2.5, 0.0), (1.0, 0.7)])
def test_the_loss_is_the_divergence_from_the_base_over_learnt_tokens(kind, temperature, hidden_weight):
    base, model = other_model(), tiny_model(kind)
    objective = Distillation(base, temperature, hidden_weight)
    expected = naive_loss(base, model, temperature, hidden_weight)
    assert objective(model, *collate(masked_examples())).item() == pytest.approx(expected, rel=1e-4)
    assert mean_loss(model, objective, masked_examples(), size=3) == pytest.approx(expected / 33, rel=1e-4)


def test_the_base_itself_has_nothing_to_learn():
    base = other_model()
    model = copy.deepcopy(base).train()
    loss = Distillation(base, 2.0, 1.0)(model, *collate(masked_examples()))
    loss.backward()
    assert abs(loss.item()) < 1e-3
    assert max(parameter.grad.abs().max() for parameter in model.parameters()) < 1e-3


def test_only_what_is_trained_gets_a_gradient():
    base = other_model()
    tuned = prepare(tiny_model("pruned"), tune_params())
    Distillation(base, 1.0, 0.5)(tuned.get_base_model(), *collate(masked_examples())).backward()
    assert all(parameter.grad is not None for parameter in trainable(tuned).values())
    assert all(parameter.grad is None for parameter in base.parameters())


def test_bfloat16_logits_are_compared_in_float32():
    base, model = other_model().to(torch.bfloat16), tiny_model(dtype=torch.bfloat16)
    assert Distillation(base, 1.0, 1.0)(model, *collate(masked_examples())).dtype == torch.float32


def test_hidden_states_of_models_of_another_depth_or_width_cannot_be_compared():
    model = tiny_model()
    check_states(other_model(), model, 1.0)
    for base in (tiny_llama(layers=4, vocab=VOCABULARY), tiny_llama(hidden=48, vocab=VOCABULARY)):
        check_states(base, model, 0.0)
        with pytest.raises(UserError, match=r"tune.hidden_weight = 0.5 compares layer by layer, .* expected 0$"):
            check_states(base, model, 0.5)
