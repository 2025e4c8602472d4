"""What the architecture of a base in a local folder does not allow is refused before anything runs."""

import json
from types import SimpleNamespace

import pytest
from helpers import prune_params

from stages.check.sections import check_base
from stages.common.errors import UserError
from stages.models.families import FAMILIES


def check(folder, model_type, source="path", method="l2", targets=("q_proj",), formats=()):
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    tune = SimpleNamespace(method="lora", target_modules=targets if targets == "all-linear" else list(targets))
    export = SimpleNamespace(models=["pruned"], formats=list(formats))
    check_base(SimpleNamespace(source=source, path=str(folder)), prune_params(method=method), tune, export)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "cohere", "method": "channel_l2"}, "prune.structure = channel is not allowed for .*'cohere'"),
        ({"model_type": "gemma2", "method": "obs_realign"}, "prune.update = realign is not allowed for .*'gemma2'"),
        (
            {"model_type": "olmo2", "method": "sparsegpt_realign"},
            "prune.update = realign is not allowed for .*'olmo2'.* expected one of: none, obs$",
        ),
        (
            {"model_type": "starcoder2", "targets": ["q_proj", "gate_proj"]},
            "gate_proj is not a linear layer of .*'starcoder2'; expected one of: q_proj, .*c_proj, lm_head",
        ),
        ({"model_type": "olmo2", "formats": ["padded", "gguf-f16"]}, "export.formats = gguf-f16 .*'olmo2'.* padded"),
    ],
)
def test_it_is_named(settings, words, tmp_path):
    with pytest.raises(UserError, match=words):
        check(tmp_path, **settings)


def test_what_is_allowed_or_not_known_yet_passes(tmp_path):
    check(tmp_path, "granite", method="channel_l2", formats=["gguf-f16"])
    check(tmp_path, "gpt_neox", targets=FAMILIES["gpt_neox"].linears)
    check(tmp_path, "gpt_neox", targets="all-linear")
    check(tmp_path, "cohere", source="hub", method="channel_l2")
    check(tmp_path, "nonesuch", method="channel_l2")
