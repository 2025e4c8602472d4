import copy

import pytest
import torch

from stages.base.muon import Muon, orthogonalize

SHAPES = [(8, 8), (4, 12), (12, 4)]


def matrices(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(rows))


def naive(matrix: torch.Tensor) -> torch.Tensor:
    """Return the update by its definition in float64: the quintic on every singular value, singular vectors kept."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalizing_moves_singular_values_to_one_and_keeps_their_vectors(shape):
    results = orthogonalize(matrices(*shape))
    for matrix, result in zip(matrices(*shape), results, strict=True):
        torch.testing.assert_close(result.double(), naive(matrix), atol=1e-4, rtol=1e-4)
        values = torch.linalg.svdvals(result)
        assert values.min() > 0.5 and values.max() < 1.5


def test_a_gradient_of_zeros_gives_an_update_of_zeros():
    assert torch.equal(orthogonalize(torch.zeros(1, 3, 5)), torch.zeros(1, 3, 5))


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_the_definition(shape):
    """Two steps of two weights against float64: Nesterov momentum, decoupled decay, update scaled to AdamW's size."""
    rate, momentum, decay = 0.1, 0.9, 0.2
    start, *gradients = matrices(*shape)
    weights = [torch.nn.Parameter(start.clone()), torch.nn.Parameter(-start)]
    optimizer = Muon(weights, lr=rate, momentum=momentum, weight_decay=decay)
    expected, buffer = start.double(), torch.zeros(shape, dtype=torch.float64)
    for gradient in gradients:
        for sign, weight in zip((1, -1), weights, strict=True):
            weight.grad = sign * gradient
        optimizer.step()
        buffer = momentum * buffer + (1 - momentum) * gradient.double()
        update = naive((1 - momentum) * gradient.double() + momentum * buffer)
        expected = expected * (1 - rate * decay) - rate * 0.2 * max(shape) ** 0.5 * update
        torch.testing.assert_close(weights[0].double(), expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(weights[1], -weights[0])


def test_a_weight_without_a_gradient_stays():
    used, unused = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(2, 3))
    used.grad = torch.ones(2, 3)
    Muon([used, unused], lr=0.1).step()
    assert torch.equal(unused, torch.ones(2, 3)) and not torch.equal(used, unused)


def test_its_state_is_restored_by_its_state_dict():
    def weight_and_optimizer():
        weight = torch.nn.Parameter(torch.ones(2, 3))
        return weight, Muon([weight], lr=0.1)

    def step(weight, optimizer, number):
        weight.grad = matrices(2, 3)[number]
        optimizer.step()

    whole, its_optimizer = weight_and_optimizer()
    step(whole, its_optimizer, 0)
    resumed, other = weight_and_optimizer()
    resumed.data.copy_(whole.data)
    other.load_state_dict(copy.deepcopy(its_optimizer.state_dict()))
    step(whole, its_optimizer, 1)
    step(resumed, other, 1)
    assert torch.equal(whole, resumed)
