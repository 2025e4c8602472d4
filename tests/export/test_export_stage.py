"""The stage: folders, metrics and cards from models/, and nothing where nothing is asked for."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from export_helpers import TEXTS, byte_level, ragged_llama
from helpers import ROOT
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from analysis.results import read_measured
from stages.common.errors import UserError
from stages.common.outputs import write_details, write_metrics
from stages.export import __main__ as stage
from stages.export import card, formats, verify
from stages.models.checkpoint import load_model, save_checkpoint

EVALUATED = {"pydocs_ppl": 26.7512, "pydocs_gap_acc": 0.82, "pydocs_gap_acc_stderr": 0.0157, "pydocs_gap_acc_norm": 0.8}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder with three models, text, metrics and the project's params; `workspace(**export)` runs the stage."""
    monkeypatch.chdir(tmp_path)
    tokenizer = byte_level()
    for name, widths in (("base", [(2, 32), (2, 32)]), ("pruned", [(2, 32), (1, 24)]), ("merged", [(2, 32), (1, 24)])):
        save_checkpoint(ragged_llama(widths, head_dim=16), tokenizer, Path("models") / name)
    Path("data/perplexity").mkdir(parents=True)
    pd.DataFrame({"text": TEXTS * 5}).to_parquet("data/perplexity/pydocs.parquet")
    for number, name in enumerate(("base", "pruned", "tuned")):
        changed = {key: value + number / 100 for key, value in EVALUATED.items()}
        error = changed.pop("pydocs_gap_acc_stderr")
        write_metrics(f"metrics/evaluate/{name}.json", changed | {"average_acc": 0.5})
        write_details(f"metrics/details/evaluate/{name}.json", {"pydocs_gap_acc_stderr": error})
    write_details("metrics/details/prune.json", {"parameters_before": 1234567, "parameters": 765432})

    def run(base=None, **export):
        content = YAML().load(ROOT / "params.yaml")
        content["export"].update(export)
        content["base"].update(base or {})
        content["evaluate"]["sequence_length"] = 32
        content["run"]["threads"] = 1
        YAML().dump(content, Path("params.yaml"))
        stage.main()
        return json.loads(Path("metrics/details/export.json").read_text())

    return run


def table(card: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table under a heading of a card, by their first cell."""
    lines = card.split(f"## {heading}")[1].split("##")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_nothing_asked_for_is_nothing_made_and_nothing_imported(workspace):
    assert workspace() == {"exports": 0}
    assert list(Path("models/export").iterdir()) == []
    code = "import stages.export.__main__ as stage, sys; stage.main(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_every_model_is_written_in_every_format_with_its_numbers_in_its_card(workspace):
    kinds = ["gguf-f16", "padded", "safetensors-bfloat16"]
    metrics = workspace(models=["base", "pruned", "tuned"], formats=kinds)
    folders = sorted(folder.name for folder in Path("models/export").iterdir())
    assert folders == sorted(f"{name}-{kind}" for name in ("base", "pruned", "tuned") for kind in kinds)
    assert metrics["exports"] == len(folders)
    evaluated = [read_measured(Path("metrics"), "evaluate", name) for name in ("base", "pruned", "tuned")]
    for folder in folders:
        load_model(Path("models/export") / folder)
        card = (Path("models/export") / folder / "README.md").read_text()
        quality = table(card, "Measured")
        assert quality["pydocs_ppl"] == [f"{each['pydocs_ppl']:.2f}" for each in evaluated]
        assert quality["pydocs_gap_acc"] == [
            f"{100 * each['pydocs_gap_acc']:.2f} ± {100 * each['pydocs_gap_acc_stderr']:.2f}" for each in evaluated
        ]
        found = {float(row[0]) for row in list(table(card, "This export").values())[2:]}
        prefix = folder.replace("-", "_") + "_"
        expected = {float(f"{value:.6g}") for key, value in metrics.items() if key.startswith(prefix)}
        assert found == expected and len(expected) >= 3
        if not folder.startswith("base"):
            assert "1,234,567 parameters before, 765,432 after" in card
            assert "prune.ratio" in card and ("tune.lora_rank" in card) == ("tuned" in folder)


@pytest.mark.parametrize("source", ["hub", "train"])
def test_a_card_names_base_revision_and_licence_in_the_hubs_format(workspace, source):
    if source == "hub":
        Path("models/base/README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# Base\n")
    workspace(
        base={"source": source, "model": "someone/llama", "revision": "abc123"}, models=["pruned"], formats=["gguf-f32"]
    )
    card = ModelCard.load(Path("models/export/pruned-gguf-f32/README.md"))
    assert card.data.base_model == ("someone/llama" if source == "hub" else None)
    assert card.data.license == ("apache-2.0" if source == "hub" else None)
    assert card.data.tags == ["espalier", "pruned"]
    if source == "hub":
        assert "at revision `abc123`" in card.text and "Inherited from the base model: apache-2.0." in card.text
    else:
        assert "trained from scratch" in card.text and "inherit no licence" in card.text


@pytest.mark.parametrize(
    ("prune", "tune", "said"),
    [
        ({}, {}, ["method `l2`, ratio 0.5 of groups: 1,234,567", "by distillation from the base with LoRA, merged."]),
        (
            {"budget": "1 GiB", "criterion": "l1"},
            {"method": "full", "objective": "next_token"},
            ["`l2`, criterion `l1`, budget 1 GiB: 1,234,567", "by next-token training of every weight."],
        ),
        ({"structure": "weight", "pattern": "2:4"}, {}, ["pattern 2:4: 1,234,567"]),
        ({"structure": "weight", "pattern": "row"}, {}, ["ratio 0.5 of groups: 1,234,567"]),
    ],
)
def test_a_card_says_what_was_done(prune, tune, said):
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["prune"] |= {"method": "l2", "ratio": 0.5, "ratio_of": "groups", "budget": None, "pattern": None} | prune
    params["tune"] |= {"method": "lora"} | tune
    facts = card.Facts(params, {}, {"parameters_before": 1234567, "parameters": 765432})
    text = card.origin("tuned", facts)
    assert all(each in text for each in said)
    assert "Recovered" not in card.origin("pruned", facts)


def test_what_does_not_fit_leaves_earlier_exports_as_they_were(workspace):
    workspace(models=["base"], formats=["gguf-q8_0"])
    with pytest.raises(UserError, match=r"model.layers.1.mlp.down_proj.weight has rows of 24 .*prune\.round_to = 32"):
        workspace(models=["pruned"], formats=["gguf-q8_0"])
    assert [folder.name for folder in Path("models").iterdir() if folder.name.startswith(".")] == []
    assert [folder.name for folder in Path("models/export").iterdir()] == ["base-gguf-q8_0"]


def test_an_export_that_differs_is_refused(workspace, monkeypatch):
    def spoiled(model, tokenizer, kind, folder):
        model.model.layers[0].mlp.up_proj.weight.data *= 1.2
        formats_write(model, tokenizer, kind, folder)

    formats_write = formats.write
    monkeypatch.setattr(formats, "write", spoiled)
    with pytest.raises(verify.ExportError, match="pruned-padded: the logits differ by"):
        workspace(models=["pruned"], formats=["padded"])


@pytest.mark.slow
def test_a_quantised_export_tells_its_loss_and_its_size(workspace):
    metrics = workspace(models=["base"], formats=["gguf-f32", "gguf-q4_0"])
    assert metrics["base_gguf_f32_ppl_ratio"] == pytest.approx(1, abs=1e-9)
    assert metrics["base_gguf_f32_logits_relative_error"] == 0
    assert metrics["base_gguf_q4_0_logits_relative_error"] > 0.001
    assert metrics["base_gguf_q4_0_mib"] < metrics["base_gguf_f32_mib"] / 2
    assert math.isfinite(metrics["base_gguf_q4_0_ppl"])


def test_no_text_to_compare_on_is_said(workspace):
    shutil.rmtree("data/perplexity")
    with pytest.raises(UserError, match=re.escape("data/perplexity holds no text")):
        workspace(models=["base"], formats=["padded"])
