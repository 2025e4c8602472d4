"""A sum over slices is the sum over all, with the same gradients, and holds the logits of one slice."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stages.tune import sliced
from stages.tune.sliced import sliced_sum


def batch(tokens: int = 11, seed: int = 0) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    """Return a head with a bias, hidden states, and wanted tokens."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(6, 17)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    hidden = torch.randn(tokens, 6, generator=generator).requires_grad_()
    return head, hidden, torch.randint(0, 17, (tokens,), generator=generator)


@pytest.mark.parametrize("trained", ["all", "bias", "none"])
@pytest.mark.parametrize("tokens", [0, 1, 4, 11])
def test_sum_and_gradients_are_those_of_all_tokens_at_once(monkeypatch, tokens, trained):
    monkeypatch.setattr(sliced, "TOKENS", 4)
    head, hidden, wanted = batch(tokens)
    head.requires_grad_(trained == "all")
    head.bias.requires_grad_(trained != "none")
    inputs = [hidden, *(parameter for parameter in head.parameters() if parameter.requires_grad)]

    whole = F.cross_entropy(head(hidden), wanted, reduction="sum")
    expected = torch.autograd.grad(3 * whole, inputs)
    total = sliced_sum(lambda part, rows: F.cross_entropy(head(part), wanted[rows], reduction="sum"), hidden, head)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(torch.autograd.grad(3 * total, inputs), expected)
    with torch.no_grad():
        alone = sliced_sum(lambda part, rows: F.cross_entropy(head(part), wanted[rows], reduction="sum"), hidden, head)
    assert torch.equal(alone, total)


def test_no_more_than_a_slice_of_logits_is_held(monkeypatch):
    monkeypatch.setattr(sliced, "TOKENS", 4)
    head, hidden, wanted = batch()
    head.requires_grad_(False)
    scored = []

    def score(part: torch.Tensor, rows: slice) -> torch.Tensor:
        scored.append(len(part))
        return F.cross_entropy(head(part), wanted[rows], reduction="sum")

    total = sliced_sum(score, hidden, head)
    assert scored == [4, 4, 3]
    assert [saved.shape for saved in total.grad_fn.saved_tensors] == [hidden.shape]
    total.backward()
    assert scored == [4, 4, 3], "the backward pass computes no logits again"


def test_the_model_may_compute_in_bfloat16():
    head, hidden, wanted = batch()
    with torch.autocast("cpu", torch.bfloat16):
        total = sliced_sum(
            lambda part, rows: F.cross_entropy(head(part).float(), wanted[rows], reduction="sum"), hidden, head
        )
    total.backward()
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, F.cross_entropy(head(hidden), wanted, reduction="sum"), rtol=0.02, atol=0)
    assert hidden.grad.dtype == torch.float32
