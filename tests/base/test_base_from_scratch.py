import pytest
import torch
import yaml
from helpers import ROOT

from stages.base.from_scratch import (
    VALIDATION_WINDOWS,
    batch,
    document_stream,
    make_optimizers,
    new_model,
    validation_windows,
)
from stages.base.params import BaseParams
from stages.base.tokenizer import train_tokenizer
from stages.common.errors import UserError

BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["base"] | {"source": "train"}
SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 4, "kv_heads": 2}
TOKENIZER = train_tokenizer(["Return the number of items in the list."] * 4, SIZES["vocab_size"])


def params(**changes) -> BaseParams:
    return BaseParams.model_validate(BASE | SIZES | {"window": 8, "batch_size": 3} | changes)


def test_the_projects_own_base_is_small_and_grouped():
    own = BaseParams.model_validate(BASE)
    model = new_model(own, train_tokenizer(["ab" * 9], own.vocab_size))
    assert sum(weight.numel() for weight in model.parameters()) < 1_300_000
    assert model.config.num_attention_heads == 8 and model.config.num_key_value_heads == 4
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("tied", [True, False])
def test_muon_has_the_matrices_of_the_layers_and_adamw_all_else(tied):
    model = new_model(params(tie_embeddings=tied), TOKENIZER)
    muon, adamw = make_optimizers(model, 0.1)
    names = {id(weight): name for name, weight in model.named_parameters()}
    held = [{names[id(weight)] for group in each.param_groups for weight in group["params"]} for each in (muon, adamw)]
    assert held[0] | held[1] == set(names.values()) and not held[0] & held[1]
    assert held[0] == {name for name in names.values() if "proj" in name}
    assert ("lm_head.weight" in held[1]) != tied


@pytest.mark.parametrize("tokens", [48, 55, 56, 1000])
def test_the_batches_of_an_epoch_share_no_token_and_stay_in_the_text(tokens):
    stream, chosen = torch.arange(tokens), params()
    per_epoch = (tokens - 7) // 8 // 3
    for epoch in range(20):
        windows = torch.cat([batch(stream, chosen, epoch * per_epoch + place) for place in range(per_epoch)])
        assert windows.shape == (per_epoch * 3, 8)
        assert len(windows.unique()) == windows.numel()
        assert torch.equal(windows - windows[:, :1], torch.arange(8).expand_as(windows))


def test_epochs_differ_and_the_seed_and_step_alone_decide():
    stream, chosen = torch.arange(400), params()
    per_epoch = (400 - 7) // 8 // 3
    assert not torch.equal(batch(stream, chosen, 0), batch(stream, chosen, per_epoch))
    assert not torch.equal(batch(stream, chosen, 0), batch(stream, params(seed=1), 0))
    torch.rand(3)
    assert torch.equal(batch(stream, chosen, 5), batch(stream, chosen, 5))
    starts = {int(batch(stream, chosen, step * per_epoch)[0, 0]) % 8 for step in range(40)}
    assert len(starts) == 8, "every epoch should cut the text elsewhere"


def test_text_that_fills_no_batch_or_no_validation_window_is_one_line():
    with pytest.raises(
        UserError, match=r"^base.batch_size = 3 is more than the text holds: 2 windows of base.window = 8"
    ):
        batch(torch.arange(30), params(), 0)
    with pytest.raises(UserError, match=r"^base.window = 8 is more than the validation text holds; expected up to 7"):
        validation_windows(torch.arange(7), 8)


@pytest.mark.parametrize("count", [1, VALIDATION_WINDOWS - 1, VALIDATION_WINDOWS, 3 * VALIDATION_WINDOWS + 5])
def test_validation_windows_are_spread_over_the_text(count):
    windows = validation_windows(torch.arange(count * 8 + 3), 8)
    assert min(count, VALIDATION_WINDOWS) <= len(windows) < 2 * VALIDATION_WINDOWS
    assert windows[0, 0] == 0 and windows[-1, 0] > (count - 1 - count // VALIDATION_WINDOWS) * 8 - 1


def test_every_document_ends_with_the_end_of_text():
    texts = ["Return the number", "", "of items"]
    stream = document_stream(texts, TOKENIZER)
    assert TOKENIZER.decode(stream) == "Return the number<|endoftext|><|endoftext|>of items<|endoftext|>"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_heads": 3}, "kv_heads = 3; expected a divisor of heads = 4"),
        ({"heads": 3, "kv_heads": 1}, "heads = 3; expected a divisor of half of hidden_size = 32"),
    ],
)
def test_heads_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        params(**changes)
