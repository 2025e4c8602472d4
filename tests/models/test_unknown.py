"""A model outside the list: which file is missing, and what the model is made of."""

import pytest

from stages.common.errors import UserError
from stages.models.config import SUPPORTED_MODEL_TYPES, read_config


def message(tmp_path, content: str) -> str:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_missing_file_and_the_modules_of_a_model_that_transformers_has(tmp_path):
    content = '{"model_type": "stablelm", "num_hidden_layers": 1000000000, "hidden_size": 64, "num_attention_heads": 4}'
    expected = (
        f"model_type = 'stablelm' is not supported; expected one of: {', '.join(SUPPORTED_MODEL_TYPES)}; "
        "stages/models/families/stablelm.py would describe it (docs/architectures.md): StableLmForCausalLM has "
        "model.embed_tokens (Embedding), model.norm (LayerNorm), model.rotary_emb (StableLmRotaryEmbedding), "
        "lm_head (Linear); and in each of model.layers (StableLmDecoderLayer) "
    )
    found = message(tmp_path, content)
    assert expected in found
    assert "self_attn.q_proj (Linear)" in found and "mlp.down_proj (Linear)" in found


def test_a_config_that_no_model_can_be_built_from_still_names_the_file(tmp_path):
    found = message(tmp_path, '{"model_type": "stablelm", "hidden_size": "wide"}')
    assert found.endswith("stages/models/families/stablelm.py would describe it (docs/architectures.md)")


@pytest.mark.parametrize(("model_type", "reason"), [("bloom", "a slope for each head"), ("falcon", "size of a head")])
def test_what_no_description_holds_has_its_reason(model_type, reason, tmp_path):
    found = message(tmp_path, f'{{"model_type": "{model_type}"}}')
    assert found.endswith("(docs/architectures.md)") and reason in found and f"{model_type}.py" not in found


@pytest.mark.parametrize("model_type", ['"nonesuch"', '"t5"'])
def test_what_transformers_has_no_causal_model_of(tmp_path, model_type):
    found = message(tmp_path, f'{{"model_type": {model_type}}}')
    assert found.endswith("either") and "no causal language model of type" in found
