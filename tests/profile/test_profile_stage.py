"""What the stage refuses before it measures."""

import pytest
import yaml
from helpers import tiny_llama, tiny_tokenizer

from stages.common.errors import UserError
from stages.models.checkpoint import save_checkpoint
from stages.profile.__main__ import main


@pytest.mark.parametrize(
    ("length", "decoded", "line"),
    [
        (257, 1, "profile.sequence_length = 257 is longer than the context of model; expected at most 256 tokens"),
        (
            250,
            7,
            "profile.sequence_length + profile.decode_tokens = 257 is longer than the context of model; expected at "
            "most 256 tokens",
        ),
    ],
)
def test_what_is_longer_than_the_context_is_refused_before_the_model_is_read(
    tmp_path, monkeypatch, length, decoded, line
):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_llama(), tiny_tokenizer(), tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    sections = {
        "run": {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False},
        "profile": {"sequence_length": length, "decode_tokens": decoded, "repetitions": 1},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    with pytest.raises(UserError) as caught:
        main("base", "model")
    assert str(caught.value) == line
