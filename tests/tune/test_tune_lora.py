import json
import subprocess
import sys

import pytest
import torch
from helpers import EXPERTS, FAMILIES, ROOT, prune_params, tiny_experts, tiny_family
from peft import PeftModel
from peft.tuners.lora import Linear
from tune_helpers import TARGETS, VOCABULARY, tiny_model, tiny_tokenizer, trainable, tune_params

from stages.common.errors import UserError
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.parts import Parts
from stages.models.surgery import rebuild
from stages.prune.block.pruning import prune
from stages.prune.pruning import prune as prune_any
from stages.tune.lora import merge, prepare, save_adapter, targets

KINDS = [(kind, tied) for kind in ("plain", "pruned") for tied in (False, True)]
TOKENS = torch.randint(0, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(5))


def trained_adapter(model, **changes) -> PeftModel:
    """Return `model` with an adapter whose weights are all away from zero."""
    tuned = prepare(model, tune_params(**changes)).eval()
    torch.manual_seed(3)
    for parameter in trainable(tuned).values():
        torch.nn.init.normal_(parameter, std=0.1)
    return tuned


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "tied"), KINDS)
def test_the_adapter_alone_is_trained_and_is_float32_and_starts_as_nothing(kind, tied, dtype):
    model = tiny_model(kind, tied, dtype)
    expected = model(input_ids=TOKENS).logits.detach()
    sizes = sum(sum(m.weight.shape) for name, m in model.named_modules() if name.split(".")[-1] in TARGETS)
    tuned = prepare(model, tune_params()).eval()
    trained = trainable(tuned)
    assert all(".lora_" in name and parameter.dtype == torch.float32 for name, parameter in trained.items())
    assert len(trained) == 3 * 7 * 2
    assert sum(parameter.numel() for parameter in trained.values()) == 2 * sizes  # rank 2
    assert torch.equal(tuned(input_ids=TOKENS).logits, expected)


@pytest.mark.parametrize(("kind", "tied"), [*KINDS, ("lacking an attention and an MLP", False)])
def test_merged_equals_base_plus_adapter_after_a_round_trip(tmp_path, kind, tied):
    base, model = tmp_path / "models/pruned", tiny_model(kind, tied)
    if kind.startswith("lacking"):
        Parts(model).skip(0, "attention")
        Parts(model).skip(2, "mlp")
        model = rebuild(model)
    save_checkpoint(model, tiny_tokenizer(), base)
    tuned = trained_adapter(load_model(base))
    expected = tuned(input_ids=TOKENS).logits
    assert (expected - load_model(base)(input_ids=TOKENS).logits).abs().max() > 0.1
    save_adapter(tuned, base, tmp_path / "adapter")
    save_checkpoint(merge(tuned), tiny_tokenizer(), tmp_path / "merged")

    loaded = PeftModel.from_pretrained(load_model(base), tmp_path / "adapter")
    torch.testing.assert_close(loaded(input_ids=TOKENS).logits, expected, rtol=0, atol=1e-5)
    merged = load_model(tmp_path / "merged")
    assert type(merged) is type(load_model(base))
    assert (tmp_path / "merged/config.json").read_bytes() == (base / "config.json").read_bytes()
    torch.testing.assert_close(merged(input_ids=TOKENS).logits, expected, rtol=0, atol=1e-5)
    assert not any("lora" in name for name, _ in merged.named_parameters())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_pefts(dtype, autocast):
    tuned = trained_adapter(tiny_model("pruned", dtype=dtype), lora_dropout=0.0)

    def measure() -> list[torch.Tensor]:
        tuned.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = tuned(input_ids=TOKENS).logits
            (logits.float() * torch.linspace(-1, 1, VOCABULARY)).sum().backward()
        return [logits.detach(), *(parameter.grad.clone() for parameter in trainable(tuned).values())]

    found = measure()
    for layer in [module for module in tuned.modules() if isinstance(module, Linear)]:
        del layer.forward
    expected = measure()
    exact = dtype == torch.float32 and not autocast
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-4 if exact else 0.1, atol=1e-4 if exact else 0.1 * theirs.abs().max()
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_once_pruned_is_tuned_and_merged(tmp_path, family):
    params = prune_params(criterion="flap", update="bias")
    pruned, _ = prune(tiny_family(family, vocab=VOCABULARY, tied=True), TOKENS, params)
    described = Parts(pruned).family
    targets = [name for name in described.linears if name != described.head]
    tuned = trained_adapter(pruned, target_modules=targets)
    assert len(trainable(tuned)) == 3 * len(targets) * 2
    expected = tuned(input_ids=TOKENS).logits
    save_checkpoint(merge(tuned), tiny_tokenizer(), tmp_path)
    torch.testing.assert_close(load_model(tmp_path)(input_ids=TOKENS).logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", EXPERTS)
def test_a_mixture_of_experts_is_tuned_in_its_attention_and_merged(tmp_path, family):
    tuned = trained_adapter(tiny_experts(family, vocab=VOCABULARY), target_modules="all-linear")
    adapted = {name.split(".lora_")[0].split(".")[-1] for name, _ in tuned.named_parameters() if ".lora_" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj"}
    expected = tuned(input_ids=TOKENS).logits
    save_checkpoint(merge(tuned), tiny_tokenizer(), tmp_path)
    torch.testing.assert_close(load_model(tmp_path)(input_ids=TOKENS).logits, expected, rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="up_proj is not a linear layer of this model; expected one of: q_proj, k_proj"):
        prepare(tiny_experts(family), tune_params(target_modules=["up_proj"]))


@pytest.mark.parametrize("chosen", ["all-linear", ["q_proj", "down_proj"]])
def test_of_matrices_of_low_rank_the_thin_ones_are_tuned_and_merged(tmp_path, chosen):
    """Some matrices of the model stay whole, and have an adapter of their own by the same name."""
    params = prune_params(method="svd_llm", ratio=0.3, attention_layers=[0, 1], mlp_layers=[1, 3])
    pruned, _ = prune_any(tiny_family("llama", vocab=VOCABULARY), TOKENS, params)
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path / "pruned")
    tuned = trained_adapter(pruned, target_modules=chosen)
    adapted = {name.split(".lora_")[0].split("layers.")[1] for name in trainable(tuned)}
    assert {"0.self_attn.q_proj.left", "0.self_attn.q_proj.right", "1.self_attn.q_proj", "0.mlp.down_proj"} <= adapted
    assert len(adapted) == (3 * 7 + 4 + 2 * 3 if chosen == "all-linear" else 3 * 2 + 1 + 2)
    expected = tuned(input_ids=TOKENS).logits
    save_adapter(tuned, tmp_path / "pruned", tmp_path / "adapter")
    save_checkpoint(merge(tuned), tiny_tokenizer(), tmp_path / "merged")
    loaded = load_model(tmp_path / "merged")
    assert loaded.config.ranks == pruned.config.ranks and type(loaded) is type(pruned)
    apart = PeftModel.from_pretrained(load_model(tmp_path / "pruned"), tmp_path / "adapter")
    for model in (loaded, apart):
        torch.testing.assert_close(model(input_ids=TOKENS).logits, expected, rtol=0, atol=1e-4)


def test_a_bfloat16_model_stays_one(tmp_path):
    tuned = trained_adapter(tiny_model("pruned", dtype=torch.bfloat16))
    expected = tuned(input_ids=TOKENS).logits
    save_checkpoint(merge(tuned), tiny_tokenizer(), tmp_path)
    merged = load_model(tmp_path)
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(merged(input_ids=TOKENS).logits, expected, rtol=0.1, atol=0.3)


@pytest.mark.slow  # two processes
def test_the_adapter_folder_names_its_base_and_is_the_same_for_every_hash_seed(tmp_path):
    script = (
        "from tune_helpers import *; from stages.tune.lora import *; model = tiny_model(); "
        "torch.manual_seed(0); "
        "save_adapter(prepare(model, tune_params()), Path('models/pruned'), Path('adapter'))"
    )
    written = []
    for hash_seed in ("1", "2"):
        folder = tmp_path / hash_seed
        folder.mkdir()
        path = f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/tune'}"
        environment = {"PYTHONPATH": path, "PYTHONHASHSEED": hash_seed, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, check=True)
        written.append({file.name: file.read_bytes() for file in (folder / "adapter").iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    config = json.loads(written[0]["adapter_config.json"])
    assert config["base_model_name_or_path"] == "models/pruned"
    assert b"base_model: models/pruned" in written[0]["README.md"]
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (2, 4, 0.1)
    assert config["target_modules"] == sorted(TARGETS)


@pytest.mark.parametrize(
    ("targets", "tied", "named"),
    [
        (["q_proj", "query"], False, "query is not a linear layer"),
        (["embed_tokens"], False, "embed_tokens is not a linear layer"),
        (["self_attn", "mlp"], False, "self_attn, mlp is not a linear layer"),
        (["lm_head"], True, "lm_head is not a linear layer"),  # merging it would change the embeddings too
    ],
)
def test_a_target_that_names_no_linear_layer(targets, tied, named):
    with pytest.raises(UserError) as caught:
        prepare(tiny_model(tied=tied), tune_params().model_copy(update={"target_modules": targets}))
    line = str(caught.value)
    assert line.startswith(f"tune.target_modules = {targets}")
    assert named in line
    assert "expected one of: q_proj, k_proj" in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["llama", "starcoder2", "gpt_neox"])
def test_all_linear_layers_but_the_head_are_targets(name):
    model = tiny_family(name)
    linears = {path.split(".")[-1] for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(targets(model, "all-linear")) == linears - {"lm_head"}


def test_an_untied_output_layer_can_be_a_target():
    tuned = trained_adapter(tiny_model(), target_modules=["lm_head"])
    expected = tuned(input_ids=TOKENS).logits
    torch.testing.assert_close(merge(tuned)(input_ids=TOKENS).logits, expected, rtol=0, atol=1e-5)
