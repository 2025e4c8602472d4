"""README's example in Python runs as it stands."""

import re
from pathlib import Path

from tests.helpers import tiny_llama, tiny_tokenizer

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_example_prunes_a_model_in_memory(monkeypatch):
    monkeypatch.chdir(README.parent)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    tokenizer = tiny_tokenizer()
    words = list(tokenizer.get_vocab())
    names = {"model": tiny_llama(layers=8, mlp=96), "tokenizer": tokenizer, "texts": [" ".join(words * 400)]}
    before = sum(weight.numel() for weight in names["model"].parameters())
    exec(code.replace("count=64, length=256", "count=2, length=16"), names)
    after = sum(weight.numel() for weight in names["pruned"].parameters())
    assert after < before
    assert names["metrics"]["parameters_kept"] == after / before
