"""The families' files are the only place that names a matrix, and every family has a tiny model in the tests."""

import re

import pytest
import transformers
from helpers import EXPERTS, FAMILIES, LIMITS, ROOT, prune_params, tiny_experts, tiny_family
from torch import nn

from stages.common.errors import UserError
from stages.models.config import read_config
from stages.models.families import FAMILIES as ARCHITECTURES
from stages.models.parts import Parts, plain_class, pruned_class
from stages.prune.families import check_family

OF_THE_FAMILIES = (
    "stages/models/families/",
    "stages/models/modeling_pruned.py",
)  # the latter stands alone in checkpoints


def test_nothing_else_names_a_matrix():
    names = {name for family in ARCHITECTURES.values() for name in family.linears}
    names -= {"lm_head", "dense"}  # the latter is a word too
    pattern = re.compile(rf"\b({'|'.join(sorted(names))})\b")
    files = {path for folder in ("stages", "analysis", "studies", "chat") for path in (ROOT / folder).rglob("*.py")}
    found = [path.relative_to(ROOT).as_posix() for path in sorted(files) if pattern.search(path.read_text("utf-8"))]
    assert [path for path in found if not path.startswith(OF_THE_FAMILIES)] == []


def test_every_family_is_tested():
    mixtures = {name.split()[0] for name in EXPERTS}
    assert {name.split()[0] for name in FAMILIES} == set(ARCHITECTURES) - mixtures == set(LIMITS)


COLUMNS = ("channel", "realign", "gguf")
ASKED = {"channel": {"method": "channel_l2"}, "realign": {"method": "obs_realign"}}


@pytest.mark.parametrize("model_type", LIMITS)
def test_what_an_architecture_does_not_allow_is_refused_by_name(model_type):
    """Before a model is read, and for its pruned class too."""
    for what, changes in ASKED.items():
        for name in (model_type, f"pruned_{model_type}"):
            if what in LIMITS[model_type]:
                with pytest.raises(UserError, match=rf"{what} is not allowed for model_type = '{name}'.*expected one"):
                    check_family(prune_params(**changes), name)
            else:
                check_family(prune_params(**changes), name)
    assert (ARCHITECTURES[model_type].gguf is None) == ("gguf" in LIMITS[model_type])


def test_the_table_in_the_docs_says_what_the_tests_do():
    text = (ROOT / "docs/architectures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (yes|no) \| (yes|no) \|$", text, re.MULTILINE)
    found = {name: {what for what, works in zip(COLUMNS, cells, strict=True) if works == "no"} for name, *cells in rows}
    assert found == {name: limits for name, limits in LIMITS.items() if name in found} and len(found) == len(LIMITS)


@pytest.mark.parametrize(("key", "value"), [("do_layer_norm_before", False), ("word_embed_proj_dim", 16)])
def test_a_config_with_other_parts_is_refused_by_its_key(key, value, tmp_path):
    config = tiny_family("opt").config
    setattr(config, key, value)
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"config.json: {key} = {value}; expected"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", [*FAMILIES, *EXPERTS])
def test_a_description_names_what_is_there(name):
    model = tiny_experts(name) if name in EXPERTS else tiny_family(name)
    family = ARCHITECTURES[model.config.model_type]
    assert type(model) is plain_class(family) is getattr(transformers, family.model_class)
    assert pruned_class(family).config_class.model_type == f"pruned_{model.config.model_type}"
    parts = Parts(model)
    halves = [parts.attention(layer) for layer in parts.layers]
    if parts.has_experts:
        stacked = {tensor for layer in parts.layers for tensor in parts.mixture(layer).tensors.values()}
        assert stacked == {weight for weight in model.parameters() if weight.ndim == 3}
    else:
        halves += [parts.mlp(layer) for layer in parts.layers]
    linears = {id(linear) for half in halves for linear in (*half.inputs.values(), half.output)}
    assert linears == {id(module) for module in model.get_decoder().modules() if isinstance(module, nn.Linear)}
    assert parts.embeddings is model.get_input_embeddings()
    assert model.get_submodule(family.head) is model.get_output_embeddings()
    for key in (*family.bias_keys, *family.layer_keys, *dict(family.needed)):
        assert hasattr(model.config, key)
