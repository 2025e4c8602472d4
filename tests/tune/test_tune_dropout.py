"""Our dropout is torch's in all but the random numbers."""

import pytest
import torch
from tune_helpers import tiny_model, tune_params

from stages.tune.dropout import Dropout
from stages.tune.lora import prepare


@pytest.mark.parametrize("p", [0.05, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_of_zeros_is_p_and_the_mean_stays(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(1001, 333, dtype=dtype, requires_grad=True)
    y = Dropout(p)(x)
    zeros = y == 0
    assert zeros.double().mean() == pytest.approx(p, abs=0.003)
    assert zeros.double().mean(0).max() < p + 0.1, "no column is dropped more than others"
    torch.testing.assert_close(y[~zeros], torch.full_like(y[~zeros], 1 / (1 - p)), rtol=1e-2, atol=0)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach()), "what is dropped has no gradient"


def test_evaluation_changes_nothing_and_a_seed_repeats():
    dropout, x = Dropout(0.5), torch.randn(7, 9)
    assert torch.equal(dropout.eval()(x), x)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(dropout.train()(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_an_adapter_takes_it():
    tuned = prepare(tiny_model("pruned"), tune_params(lora_dropout=0.1))
    found = [module for module in tuned.modules() if isinstance(module, Dropout)]
    assert found
    assert {module.p for module in found} == {0.1}
    assert not [module for module in tuned.modules() if isinstance(module, torch.nn.Dropout)]
