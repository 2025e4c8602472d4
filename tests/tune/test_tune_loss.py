import copy
import math

import pytest
import torch
from tune_helpers import tiny_model, trainable, tune_params

from stages.tune.batches import collate
from stages.tune.examples import IGNORE, Example
from stages.tune.lora import prepare
from stages.tune.next_token import next_token_loss
from stages.tune.recovery import backward_mean, mean_loss


def masked_examples(seed: int = 0) -> list[Example]:
    """Return seven sequences of different lengths, each with another share of prompt."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for length, prompt in [(3, 1), (4, 3), (9, 8), (9, 0), (12, 5), (15, 2), (15, 14)]:
        tokens = torch.randint(1, 320, (length,), generator=generator)
        labels = tokens.clone()
        labels[:prompt] = IGNORE
        examples.append(Example(tokens, labels))
    return examples


@torch.no_grad()
def naive_losses(model, examples: list[Example]) -> list[float]:
    """Return the loss of every learnt token, one sequence and one token at a time, in float64."""
    model = copy.deepcopy(model).double()
    losses = []
    for tokens, labels in examples:  # 33 tokens are learnt in all
        for position in range(1, len(tokens)):
            if labels[position] != IGNORE:
                scores = model(input_ids=tokens[None, :position]).logits[0, -1].tolist()
                top = max(scores)
                log_sum = top + math.log(sum(math.exp(score - top) for score in scores))
                losses.append(log_sum - scores[int(labels[position])])
    return losses


@pytest.mark.parametrize("kind", ["plain", "pruned"])
def test_the_loss_is_the_sum_over_learnt_tokens_whatever_the_padding(kind):
    model, examples = tiny_model(kind).requires_grad_(False), masked_examples()
    expected = naive_losses(model, examples)
    assert float(next_token_loss(model, *collate(examples))) == pytest.approx(sum(expected), rel=1e-5)
    assert mean_loss(model, next_token_loss, examples, size=3) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_what_stands_in_the_padding_does_not_matter():
    model = tiny_model()
    tokens, labels = collate(masked_examples())
    padding = torch.arange(tokens.shape[1]) >= torch.tensor([len(each.tokens) for each in masked_examples()])[:, None]
    assert torch.equal(
        next_token_loss(model, tokens, labels), next_token_loss(model, tokens.masked_fill(padding, 319), labels)
    )


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 5, 100])
def test_gradients_are_of_the_mean_over_the_batchs_tokens_for_any_micro_batch(micro_batch_size):
    examples = masked_examples()
    tuned = prepare(tiny_model("pruned"), tune_params(lora_dropout=0.0))
    model, parameters = tuned.get_base_model(), trainable(tuned)
    for parameter in parameters.values():
        torch.nn.init.normal_(parameter, std=0.1)

    sum(next_token_loss(model, *collate([example])) for example in examples).backward()
    expected = {name: parameter.grad / 33 for name, parameter in parameters.items()}
    tuned.zero_grad(set_to_none=True)

    loss = backward_mean(model, next_token_loss, examples, micro_batch_size)
    assert loss == pytest.approx(mean_loss(model, next_token_loss, examples, 7), rel=1e-5)
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-7)


def test_a_bfloat16_models_loss_is_summed_in_float32():
    loss = next_token_loss(tiny_model(dtype=torch.bfloat16), *collate(masked_examples()))
    assert loss.dtype == torch.float32
