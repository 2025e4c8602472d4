"""A matrix that holds several: Phi-3 against the Llama that its parts make."""

import pytest
import torch
from helpers import COMMON, prune_params, random_model, tiny_llama
from transformers import Phi3Config, Phi3ForCausalLM

from stages.export.padded import pad
from stages.models.checkpoint import load_model
from stages.models.prunable import block_modules
from stages.prune.block.costs import decode_time, narrowed
from stages.prune.block.pruning import prune


def tiny_phi3(kv_heads: int, rope: dict | None = None) -> Phi3ForCausalLM:
    config = Phi3Config(
        vocab_size=64, hidden_size=32, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=kv_heads, head_dim=8, rope_parameters=rope, rms_norm_eps=1e-6, **COMMON,
    )  # fmt: skip
    return random_model(Phi3ForCausalLM, config, 0)


def split(phi3: Phi3ForCausalLM):
    """Return the Llama of the same parts."""
    llama, stacked = tiny_llama(kv_heads=phi3.config.num_key_value_heads), phi3.state_dict()
    for name, tensor in llama.state_dict().items():
        for fused, parts in (("qkv_proj", ("q_proj", "k_proj", "v_proj")), ("gate_up_proj", ("gate_proj", "up_proj"))):
            for number, part in enumerate(parts):
                if part in name:
                    queries, keys = 32, phi3.config.num_key_value_heads * 8
                    sizes = [queries, keys, keys] if fused == "qkv_proj" else [24, 24]
                    tensor.copy_(stacked[name.replace(part, fused)].split(sizes)[number])
                    break
            else:
                continue
            break
        else:
            tensor.copy_(stacked[name])
    return llama


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize(
    ("criterion", "update"), [("l1", "none"), ("taylor", "none"), ("similarity", "none"), ("wanda_sp", "realign")]
)
def test_the_same_units_are_cut_as_of_the_split_matrices(criterion, update, kv_heads, windows):
    params = prune_params(criterion=criterion, update=update, ratio=0.5)
    if criterion == "similarity":  # the distance of whole units is not the sum of their parts'
        assert prune(tiny_phi3(kv_heads), windows, params)[1]["ratio_in_pruned_layers"] == 0.5
        return
    phi3, llama = (prune(model, windows, params)[0] for model in (tiny_phi3(kv_heads), split(tiny_phi3(kv_heads))))
    with torch.no_grad():
        torch.testing.assert_close(phi3(windows).logits, llama(windows).logits, rtol=1e-4, atol=1e-4)


def test_a_narrowed_model_runs_and_comes_back(windows):
    model = tiny_phi3(4)
    modules = block_modules(model, range(3), range(3))
    with torch.no_grad():
        before = model(windows).logits
        with narrowed({module: module.units // 2 for module in modules}):
            assert decode_time(model, windows[:1]) > 0
        assert torch.equal(model(windows).logits, before)


@pytest.mark.parametrize("everywhere", [False, True])
def test_longrope_keeps_its_factors(everywhere, windows, tmp_path):
    """The plain class refuses other numbers of heads than fill the hidden size there."""
    rope = {"rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0], "rope_theta": 1e4}
    model = tiny_phi3(4, rope | {"partial_rotary_factor": 0.5})
    layers = [0, 3] if everywhere else [1, 3]
    pruned, _ = prune(model, windows, prune_params(attention_layers=layers, mlp_layers=layers))
    pruned.save_pretrained(tmp_path)
    assert type(pruned).__name__ == "PrunedPhi3ForCausalLM"
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(windows).logits, pruned(windows).logits)
        torch.testing.assert_close(pad(pruned)(windows).logits, pruned(windows).logits, rtol=1e-5, atol=1e-5)
