"""Perplexity against LLM-Pruner's convention written out in float64."""

import math
import random

import pandas as pd
import pytest
import torch
from evaluate_helpers import VOCABULARY, text, tiny_model, tiny_tokenizer

from stages.common.errors import UserError
from stages.evaluate import head
from stages.evaluate.perplexity import evaluation_windows, first_windows, perplexity, read_sets, window_losses

TOKENIZER = tiny_tokenizer()


def documents(count: int = 7) -> list[str]:
    rng = random.Random(0)
    return [text(rng, rng.randint(5, 30)) for _ in range(count)]


@pytest.mark.parametrize("kind", ["GQA", "pruned"])
def test_against_float64(kind):
    model, length, losses = tiny_model(kind), 16, []
    tokens = TOKENIZER("\n\n".join(documents()))["input_ids"]
    windows = evaluation_windows("docs", documents(), TOKENIZER, length)
    measured = window_losses(model, windows, 64, "docs")
    model.double()
    with torch.no_grad():
        for start in range(0, len(tokens) - length + 1, length):
            window = tokens[start : start + length]
            logits = model(torch.tensor([window])).logits[0].log_softmax(-1)
            losses.append([-logits[i, window[i + 1]].item() for i in range(length - 1)])
    assert len(measured) == len(losses) == len(tokens) // length
    assert measured.tolist() == pytest.approx([sum(window) / len(window) for window in losses], rel=1e-5)
    every = [loss for window in losses for loss in window]
    assert perplexity(measured) == pytest.approx(math.exp(sum(every) / len(every)), rel=1e-5)


def test_batches_do_not_matter():
    model, windows = tiny_model(), evaluation_windows("docs", documents(), TOKENIZER, 16)
    whole, single = (window_losses(model, windows, tokens, "docs") for tokens in (10_000, 1))
    assert torch.allclose(whole, single, rtol=1e-5)
    assert whole.dtype == torch.float64


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity():
    model = tiny_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    windows = evaluation_windows("docs", documents(), TOKENIZER, 16)
    assert perplexity(window_losses(model, windows, 64, "docs")) == pytest.approx(VOCABULARY, rel=1e-6)


def test_text_shorter_than_a_window():
    with pytest.raises(UserError, match=r"evaluate\.sequence_length = 10000 is more than docs holds"):
        evaluation_windows("docs", documents(), TOKENIZER, 10_000)


def test_a_loss_that_is_not_finite():
    model = tiny_model()
    torch.nn.init.constant_(model.lm_head.weight, 3e38)
    with pytest.raises(UserError, match="the loss on docs is not finite"):
        window_losses(model, evaluation_windows("docs", documents(), TOKENIZER, 16), 64, "docs")


def test_sets_are_the_files_of_the_folder(tmp_path):
    with pytest.raises(UserError, match="holds no text"):
        read_sets(tmp_path)
    pd.DataFrame({"text": ["b"]}).to_parquet(tmp_path / "two.parquet")
    pd.DataFrame({"text": ["a", "c"]}).to_parquet(tmp_path / "one.parquet")
    assert read_sets(tmp_path) == {"one": ["a", "c"], "two": ["b"]}
    pd.DataFrame({"sentence": ["a"]}).to_parquet(tmp_path / "ptb.parquet")
    with pytest.raises(UserError, match=r"ptb\.parquet has no column `text`; its columns: sentence"):
        read_sets(tmp_path)


def test_windows_longer_than_the_context():
    model = tiny_model()
    with pytest.raises(UserError, match=r"sequence_length = 257 exceeds the model's context; expected 2 to 256"):
        window_losses(model, torch.zeros(1, 257, dtype=torch.int64), 64, "docs")


@pytest.mark.parametrize("logits", [1, 7 * VOCABULARY, 10_000 * VOCABULARY])
@pytest.mark.parametrize("kind", ["tied", "pruned"])
def test_slices_of_the_head_give_the_losses_of_all_logits_at_once(kind, logits, monkeypatch):
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", logits)
    model, windows = tiny_model(kind), evaluation_windows("docs", documents(), TOKENIZER, 16)
    with torch.no_grad():
        naive = torch.nn.functional.cross_entropy(
            model(windows).logits[:, :-1].transpose(1, 2), windows[:, 1:], reduction="none"
        ).mean(1)
    measured = window_losses(model, windows, 48, "docs")
    assert torch.allclose(measured, naive.double(), rtol=1e-6)


def test_no_more_logits_are_held_than_said(monkeypatch):
    model, windows, seen = tiny_model(), evaluation_windows("docs", documents(), TOKENIZER, 16), []
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", 10 * VOCABULARY)
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[:-1].numel()))
    window_losses(model, windows, 64, "docs")
    assert max(seen) == 10
    assert sum(seen) == len(windows) * 15, "the last token of a window predicts nothing"


def test_half_precision_is_summed_in_float32():
    model, windows = tiny_model().bfloat16(), evaluation_windows("docs", documents(), TOKENIZER, 16)
    with torch.no_grad():
        logits = model(windows).logits[:, :-1].double()
    naive = torch.nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none").mean(1)
    assert torch.allclose(window_losses(model, windows, 10_000, "docs"), naive, rtol=1e-3)


def test_the_first_windows_are_taken():
    windows = torch.arange(60).view(10, 6)
    assert first_windows(windows, None) is windows
    assert torch.equal(first_windows(windows, 6), windows[:1])
    assert torch.equal(first_windows(windows, 29), windows[:4])
    assert torch.equal(first_windows(windows, 10_000), windows)
