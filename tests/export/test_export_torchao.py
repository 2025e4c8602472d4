"""Exports in torch's own 8 bits: transformers loads them anywhere, and evaluate and profile measure what they hold."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from export_helpers import TEXTS, byte_level, ragged_llama
from helpers import prune_params, tiny_llama
from project import ran
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from analysis.results import read_measured
from stages.base import __main__ as base_stage
from stages.common.errors import UserError
from stages.export.card import loading
from stages.export.formats import write
from stages.export.verify import HeldOut, verify
from stages.models.checkpoint import load_model, save_checkpoint, stored
from stages.profile.memory import parameter_counts, weight_bytes
from stages.prune.pruning import prune

KIND, TOKENIZER = "torchao-int8", byte_level()
installed = importlib.util.find_spec("torchao") is not None
needs_torchao = pytest.mark.skipif(not installed, reason="torchao is not installed (make torchao)")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def exported(request, tmp_path):
    """A model with layers of different widths, and the folder of its export."""
    write(ragged_llama([(2, 32), (1, 24)]).to(request.param), TOKENIZER, KIND, tmp_path / "export")
    return ragged_llama([(2, 32), (1, 24)]).to(request.param), tmp_path / "export"


@needs_torchao
def test_every_matrix_of_a_layer_is_rounded_to_255_steps_a_row_and_nothing_else_is(exported):
    model, folder = exported
    loaded = load_model(folder)
    for name, original in model.named_parameters():
        got = loaded.get_parameter(name)
        if "layers" in name and original.ndim == 2:
            steps = original.abs().amax(1, keepdim=True).float() / 127
            assert stored(got)[0].dtype == torch.int8
            # Half a step; bfloat16 rounds the scale and the product, each by a 512th, a quarter of a step at the 127th.
            slack = 0.01 if original.dtype == torch.float32 else 0.51
            assert ((got.dequantize().float() - original.float()).abs() <= (0.5 + slack) * steps).all(), name
        else:
            assert torch.equal(got, original), name


@needs_torchao
def test_thin_matrices_are_quantised_as_others_are(windows, tmp_path):
    """Pruned, then of low rank, then in 8 bits."""
    narrow, _ = prune(tiny_llama(heads=8, kv_heads=4), windows, prune_params(method="flap", ratio=0.25))
    model, _ = prune(narrow, windows, prune_params(method="svd_llm", ratio=0.3))
    expected = model(windows).logits
    write(model, TOKENIZER, KIND, tmp_path / "export")
    loaded = load_model(tmp_path / "export")
    thin = loaded.model.layers[1].self_attn.q_proj
    assert all(stored(half.weight)[0].dtype == torch.int8 for half in thin)
    with torch.no_grad():
        torch.testing.assert_close(loaded(windows).logits, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@needs_torchao
def test_products_of_rank_1_keep_their_column(windows, tmp_path):
    """torchao takes no matrix of a single column."""
    model, _ = prune(tiny_llama(), windows, prune_params(method="svd_llm", ratio=0.9))
    columns = [name for name, each in model.named_parameters() if each.ndim == 2 and each.shape[1] == 1]
    expected = model(windows).logits
    write(model, TOKENIZER, KIND, tmp_path / "export")
    loaded = load_model(tmp_path / "export")
    matrices = [(name, each) for name, each in loaded.named_parameters() if "layers" in name and each.ndim == 2]
    whole = [name for name, each in matrices if stored(each)[0].dtype != torch.int8]
    assert whole == columns and 0 < len(columns) < len(matrices)
    assert all(torch.equal(loaded.get_parameter(name), model.get_parameter(name)) for name in columns)
    with torch.no_grad():
        torch.testing.assert_close(loaded(windows).logits, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@needs_torchao
def test_its_memory_is_that_of_the_bytes_in_the_file(exported):
    model, folder = exported
    loaded, tensors = load_model(folder), load_file(folder / "model.safetensors")
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in loaded.buffers())
    assert weight_bytes(loaded) - buffers == sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert weight_bytes(loaded) < (0.7 if model.dtype == torch.float32 else 0.9) * weight_bytes(model)
    assert parameter_counts(loaded)["parameters"] == parameter_counts(model)["parameters"]
    zeros = sum(int((parameter.dequantize() == 0).sum()) for parameter in loaded.parameters())
    assert parameter_counts(loaded)["parameters_nonzero"] == parameter_counts(model)["parameters"] - zeros


@needs_torchao
def test_its_outputs_are_those_of_the_rounded_matrices(exported):
    model, folder = exported
    tokens, loaded = torch.arange(24)[None], load_model(folder)
    with torch.no_grad():
        before = model(tokens).logits
        for name, parameter in model.named_parameters():
            parameter.copy_(loaded.get_parameter(name).dequantize())
        expected, got = model(tokens).logits, loaded(tokens).logits
    assert not torch.equal(before, expected)
    tolerance = 1e-5 if model.dtype == torch.float32 else 0.05
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@needs_torchao
def test_a_process_that_knows_transformers_and_torchao_alone_loads_it(exported, tmp_path):
    _, folder = exported
    script = tmp_path / "load.py"
    script.write_text(
        "import sys, torch\n"
        "from safetensors.torch import save_file\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "assert not any(name.startswith('stages') for name in sys.modules)\n"
        "with torch.no_grad():\n"
        "    save_file({'logits': model(torch.arange(24)[None]).logits}, 'logits.safetensors')\n"
    )
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, script, folder], cwd=tmp_path, check=True, env=environment)
    with torch.no_grad():
        expected = load_model(folder)(torch.arange(24)[None]).logits
    torch.testing.assert_close(load_file(tmp_path / "logits.safetensors")["logits"], expected)
    assert not list(folder.glob("*.bin"))


@needs_torchao
def test_it_is_verified_and_its_card_says_what_it_takes(exported):
    model, folder = exported
    windows = torch.randint(300, (6, 48), generator=torch.Generator().manual_seed(1))
    found = verify(model, TOKENIZER, folder, KIND, HeldOut(windows, TEXTS), threads=1)
    assert 0 < found["logits_relative_error"] < 0.1
    assert 0 < abs(found["ppl_ratio"] - 1) < 0.005
    text = loading("pruned-torchao-int8", KIND, "PrunedLlamaForCausalLM", plain=False)
    assert "trust_remote_code=True" in text and "It needs torchao 0." in text


@needs_torchao
def test_a_truncated_export_is_refused_by_name(exported):
    file = exported[1] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"export/model.safetensors is truncated or corrupt"):
        load_model(exported[1])


@needs_torchao
def test_scales_that_are_not_finite_are_refused(exported):
    file = exported[1] / "model.safetensors"
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj._weight_scale"][3] = float("nan")
    save_file(tensors, file, metadata)
    with pytest.raises(UserError, match=r"model.layers.1.mlp.up_proj.weight holds values that are not finite"):
        load_model(exported[1])


@needs_torchao
def test_a_quantised_base_is_refused(exported, monkeypatch):
    _, folder = exported
    monkeypatch.setattr(base_stage, "INPUTS", ())
    monkeypatch.setitem(base_stage.SOURCES, "package", lambda *_: (load_model(folder), TOKENIZER, None))
    with pytest.raises(UserError, match=r"export is quantised; expected weights in floating point"):
        base_stage.main()


@pytest.mark.skipif(installed, reason="torchao is installed")
def test_without_torchao_writing_and_loading_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"torchao is not installed; run `make torchao`"):
        write(ragged_llama([(1, 8)]), TOKENIZER, KIND, tmp_path / "export")
    save_checkpoint(ragged_llama([(1, 8)]), TOKENIZER, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    settings = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}}}
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    with pytest.raises(UserError, match=r"model: .*torchao"):
        load_model(tmp_path / "model")


@needs_torchao
@pytest.mark.slow
def test_it_is_evaluated_and_profiled_beside_the_three(project):
    project.set(export__formats=[KIND], export__models=["pruned"])
    project.set(models={"pruned-int8": f"models/export/pruned-{KIND}"})
    assert set(ran(project.run("dvc", "repro").stdout)) >= {"export", "evaluate@pruned-int8", "profile@pruned-int8"}
    metrics = project.folder / "metrics"
    pruned, exported = (read_measured(metrics, "evaluate", name) for name in ("pruned", "pruned-int8"))
    assert pruned.keys() == exported.keys()
    assert exported["pydocs_ppl"] != pruned["pydocs_ppl"]
    assert exported["pydocs_ppl"] == pytest.approx(pruned["pydocs_ppl"], rel=1e-3)
    pruned, exported = (read_measured(metrics, "profile", name) for name in ("pruned", "pruned-int8"))
    assert pruned.keys() == exported.keys()
    assert exported["weights_mib"] < 0.75 * pruned["weights_mib"]
    assert (exported["parameters"], exported["macs"]) == (pruned["parameters"], pruned["macs"])
