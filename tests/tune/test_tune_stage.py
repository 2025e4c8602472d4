import csv
import os
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import ROOT
from peft import PeftModel
from tune_helpers import (
    VOCABULARY,
    output_bytes,
    read_metrics,
    tiny_model,
    tiny_tokenizer,
    tune_params,
    write_params,
    write_workspace,
)

from stages.common import training
from stages.common.errors import UserError
from stages.common.params import load_section
from stages.common.windows import token_stream
from stages.models.checkpoint import load_model, load_tokenizer
from stages.tune.__main__ import main
from stages.tune.data import VALIDATION, validation_examples
from stages.tune.params import TuneParams


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    write_workspace(tmp_path, tiny_model("pruned"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "tied", "dtype", "changes"),
    [
        ("pruned", True, torch.float32, {"data": "text"}),
        ("pruned", False, torch.bfloat16, {"data": "both", "window": 250}),
        ("plain", False, torch.float32, {"data": "instructions", "window": 250, "micro_batch_size": 3}),
        ("plain", True, torch.float16, {"data": "text"}),
    ],
)
@pytest.mark.slow
def test_the_stage_lowers_the_loss_and_writes_what_it_says(tmp_path, monkeypatch, kind, tied, dtype, changes):
    model = tiny_model(kind, tied)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.2)  # a calmer start: half precision at random is chaotic
    write_workspace(tmp_path, model.to(dtype), steps=12, validation_sequences=2, lora_rank=4, **changes)
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", -1)
    monkeypatch.chdir(tmp_path)
    main()

    metrics = read_metrics(tmp_path)
    assert metrics["validation_loss_after"] < metrics["validation_loss_before"]
    assert metrics["train_loss_after"] < metrics["train_loss_before"]
    assert metrics["best_step"] in (2, 4, 6, 8, 10, 12)
    assert metrics["sequences_seen"] == 12 * 4
    assert 0 <= metrics["padding_share"] < 0.2
    rows = list(csv.DictReader(Path("metrics/tune_loss.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows if row["split"] == "train"] == list(range(1, 13))
    curve = {int(row["step"]): float(row["loss"]) for row in rows if row["split"] == "validation"}
    assert list(curve) == [0, 2, 4, 6, 8, 10, 12]
    assert (curve[0], min(curve.values())) == (metrics["validation_loss_before"], metrics["validation_loss_after"])

    tokens = torch.randint(0, VOCABULARY, (2, 12))
    merged = load_model("models/merged")
    adapted = PeftModel.from_pretrained(load_model("models/pruned"), "models/adapter")
    if dtype == torch.float32:
        torch.testing.assert_close(merged(tokens).logits, adapted(tokens).logits, rtol=0, atol=1e-5)
    assert merged.dtype == dtype
    assert load_tokenizer("models/merged").get_vocab() == load_tokenizer("models/pruned").get_vocab()
    assert adapted.peft_config["default"].base_model_name_or_path == "models/pruned"
    assert list((tmp_path / ".dvc/tmp/resume").iterdir()) == []


@pytest.mark.slow
def test_the_reported_losses_are_those_of_the_models_that_were_written(workspace):
    main()
    metrics, params = read_metrics(workspace), load_section("tune", TuneParams)
    tokenizer = load_tokenizer("models/pruned")
    text = "\n\n".join(pd.read_parquet("data/text/validation.parquet")["text"])
    stream = torch.tensor(tokenizer(text)["input_ids"])
    windows = stream[: len(stream) // 16 * 16].view(-1, 16)
    drawn = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(params.seed))[:6]]
    for folder, name in (("models/pruned", "before"), ("models/merged", "after")):
        loss = load_model(folder)(input_ids=drawn, labels=drawn).loss.item()
        assert metrics[f"validation_loss_{name}"] == pytest.approx(loss, rel=1e-5)
    assert metrics["tokens_seen"] == 6 * 4 * 16
    assert metrics["loss_tokens_seen"] == 6 * 4 * 15
    assert metrics["padding_share"] == 0


@pytest.mark.slow
def test_distillation_moves_towards_the_base_and_reads_it_only_then(workspace):
    write_params(workspace, objective="distillation", temperature=2.0, hidden_weight=0.1, steps=12)
    main()
    metrics = read_metrics(workspace)
    assert metrics["train_loss_after"] < metrics["train_loss_before"]
    (workspace / "models/base/model.safetensors").unlink()
    with pytest.raises(UserError, match="models/base has no weights"):
        main()
    write_params(workspace, objective="next_token")
    main()


@pytest.mark.slow
def test_a_run_repeated_from_nothing_writes_the_same_bytes_and_another_seed_does_not(workspace):
    main()
    first = output_bytes(workspace)
    main()
    assert output_bytes(workspace) == first
    write_params(workspace, seed=2)
    main()
    assert output_bytes(workspace) != first


@pytest.mark.slow
def test_dropout_works_in_training_and_only_there(workspace):
    main()
    with_dropout = read_metrics(workspace)
    write_params(workspace, lora_dropout=0.0)
    main()
    without = read_metrics(workspace)
    assert with_dropout["train_loss_before"] == without["train_loss_before"]
    assert with_dropout["train_loss_after"] != without["train_loss_after"]


@pytest.mark.slow
def test_a_run_that_makes_things_worse_keeps_the_pruned_model_and_says_so(tmp_path, monkeypatch, capsys):
    model = tiny_model()
    # Nearly every token alike, so to learn that all is z can only harm other text. (Zeros would count as pruned.)
    torch.nn.init.normal_(model.lm_head.weight, std=1e-5)
    write_workspace(tmp_path, model, learning_rate=0.1, target_modules=["lm_head"])
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"text": ["zzzz" * 300]}).to_parquet("data/calibration.parquet")
    main()
    metrics = read_metrics(tmp_path)
    assert metrics["best_step"] == 0
    assert metrics["held_out_loss_rose"] == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("espalier: ")]
    assert line.startswith("espalier: tune: the held-out loss rose from ")
    assert metrics["train_loss_after"] == metrics["train_loss_before"] > 5
    tokens = torch.arange(12)[None]
    merged, pruned = load_model("models/merged"), load_model("models/pruned")
    assert torch.equal(merged(tokens).logits, pruned(tokens).logits)


def test_a_window_beyond_the_context_is_refused_before_the_model_is_read(workspace):
    (workspace / "models/pruned/model.safetensors").unlink()
    write_params(workspace, window=257)
    with pytest.raises(UserError) as caught:
        main()
    assert str(caught.value) == (
        "tune.window = 257 is longer than the context of models/pruned; expected at most 256 tokens"
    )


def test_a_chat_template_that_is_missing_is_one_line(workspace):
    write_params(workspace, data="both", template="chat")
    with pytest.raises(UserError, match=r"^tune.template = 'chat': .* has no chat template; set it to alpaca$"):
        main()


def empty(file: str, **columns) -> None:
    pd.DataFrame({name: pd.Series([], dtype=str) for name in columns}).to_parquet(file)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"warmup_steps": 7}, "tune: warmup_steps = 7 is not allowed; expected 0 to steps = 6"),
        ({"learning_rate": 0}, "tune.learning_rate = 0 is not allowed; expected a value greater than 0"),
        ({"lora_dropout": 1.0}, "tune.lora_dropout = 1.0 is not allowed; expected a value less than 1"),
        ({"data": "alpaca"}, "tune.data = 'alpaca' is not allowed; expected 'instructions', 'text' or 'both'"),
        ({"target_modules": []}, "tune.target_modules = [] is not allowed; expected "),
        (
            {"target_modules": ["c_attn"]},
            "tune.target_modules = ['c_attn'] is not allowed; expected all-linear, or a list of: ",
        ),
        ({"objective": "kl"}, "tune.objective = 'kl' is not allowed; expected 'next_token' or 'distillation'"),
        ({"temperature": 0.0}, "tune.temperature = 0.0 is not allowed; expected a value greater than 0"),
        (
            {"hidden_weight": -1.0},
            "tune.hidden_weight = -1.0 is not allowed; expected a value greater than or equal to 0",
        ),
        ({"method": "dora"}, "tune.method = 'dora' is not allowed; expected 'lora' or 'full'"),
        ({"window": 1}, "tune.window = 1 is not allowed; expected a value greater than or equal to 2"),
        ({"template": "chatml"}, "tune.template = 'chatml' is not allowed; expected 'auto', 'alpaca' or 'chat'"),
        ({"data": "instructions", "window": 20}, "tune.window = 20 leaves nothing of data/instructions.parquet to"),
        ({"batch_size": 10_000}, "tune.batch_size = 10000 is more than the training data holds; expected 1 to "),
        ({"learning_rate": 1e30}, "tune.learning_rate = 1e+30 is too high: the loss is nan"),
    ],
)
def test_a_wrong_value_is_one_line_with_what_is_allowed(workspace, changes, line):
    write_params(workspace, **changes)
    with pytest.raises(UserError) as caught:
        main()
    assert line in str(caught.value)
    assert re.search("; (expected|lower|use) ", str(caught.value))
    assert "\n" not in str(caught.value)
    assert not (workspace / "models/adapter").exists()


def test_a_short_validation_text_is_used_whole_and_a_line_says_so(workspace, capsys):
    params, tokenizer = tune_params(validation_sequences=999), tiny_tokenizer()
    stream = token_stream(pd.read_parquet(VALIDATION)["text"].tolist(), tokenizer)
    count = len(stream) // params.window
    assert len(validation_examples(params, tokenizer)) == count < 999
    assert capsys.readouterr().out.startswith(f"tune: {VALIDATION} holds {count} of tune.validation_sequences = 999; ")
    pd.DataFrame({"text": ["ab"]}).to_parquet(VALIDATION)
    with pytest.raises(UserError, match=rf"tune\.window = {params.window} is more than {VALIDATION} holds; expected"):
        validation_examples(params, tokenizer)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda: empty("data/calibration.parquet", text=0), "data/calibration.parquet is empty"),
        (lambda: empty("data/text/validation.parquet", text=0), "data/text/validation.parquet is empty"),
        (
            lambda: empty("data/calibration.parquet", body=0),
            "data/calibration.parquet lacks the columns text; it has body",
        ),
        (lambda: Path("data/calibration.parquet").unlink(), "data/calibration.parquet is missing"),
        (lambda: os.truncate("data/calibration.parquet", 100), "data/calibration.parquet is not a Parquet file"),
        (lambda: Path("models/pruned/tokenizer.json").unlink(), "models/pruned has no tokenizer"),
    ],
)
def test_spoilt_inputs_are_one_line(workspace, spoil, line):
    spoil()
    with pytest.raises(UserError) as caught:
        main()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_thesiss_values_and_the_defaults_are_allowed():
    tune_params(
        data="instructions", lora_rank=8, lora_alpha=16, lora_dropout=0.05, window=256, batch_size=64,
        micro_batch_size=4, warmup_steps=100, steps=1500, learning_rate=0.0001, validation_sequences=2000,
    )  # fmt: skip
    load_section("tune", TuneParams, ROOT / "params.yaml")
