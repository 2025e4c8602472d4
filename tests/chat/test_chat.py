"""What the models write can be read: streamed line by line, and side by side."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, tiny_llama, tiny_tokenizer
from ruamel.yaml import YAML

from stages.chat import __main__ as chat
from stages.chat import samples
from stages.chat.models import write_behind
from stages.common.checkpoint import load_model, load_tokenizer, save_checkpoint


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Three different tiny models, and params with two prompts."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("base", "pruned", "merged")):
        save_checkpoint(tiny_llama(seed=seed), tiny_tokenizer(), Path("models") / name)
    content = YAML().load(ROOT / "params.yaml")
    content["evaluate"] |= {"prompts": ["abc", "hello"], "new_tokens": 6}
    content["run"]["threads"] = 1
    YAML().dump(content, Path("params.yaml"))


def answers(monkeypatch, capsys, text, name="pruned") -> str:
    """Return what the chat prints when `text` is typed."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    chat.main(name)
    return capsys.readouterr().out


def test_lines_are_answered_until_an_empty_one(workspace, monkeypatch, capsys):
    one = answers(monkeypatch, capsys, "abc\n\nabc\n")
    two = answers(monkeypatch, capsys, "abc\nabc\n")
    assert one.count("> ") == 2 and two.count("> ") == 3
    assert len(one) > 10 and two.startswith(one[: len(one) - len("> ")])
    assert answers(monkeypatch, capsys, "abc\n", "base") != one


def test_a_chat_template_is_used_and_remembers(workspace, monkeypatch, capsys):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"
    tokenizer.save_pretrained("models/pruned")
    prompts = []
    monkeypatch.setattr(chat, "write_behind", lambda loaded, prompt, *_, **__: prompts.append(prompt) or "fine")
    answers(monkeypatch, capsys, "hi\nagain\n")
    assert prompts == ["user hi ", "user hi assistant fine user again "]


def test_a_prompt_beyond_the_context_keeps_its_end(workspace):
    loaded = load_model("models/base"), load_tokenizer("models/base")
    room = loaded[0].config.max_position_embeddings - 5
    assert write_behind(loaded, "z" * 50 + "abc" * 300, 5) == write_behind(loaded, ("abc" * 300)[-room:], 5)


def test_samples_stand_side_by_side(workspace):
    samples.main()
    header, _, first, second = Path("samples.md").read_text().splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == ["prompt", "base", "pruned", "tuned"]
    loaded = load_model("models/merged"), load_tokenizer("models/merged")
    assert first.split("|")[4].strip() == write_behind(loaded, "abc", 6).strip()
    assert first.split("|")[1].strip() == "abc" and second.split("|")[1].strip() == "hello"


def test_text_stays_in_its_cell():
    assert samples.cell("a|b\n<i> & *c*") == "a&#124;b<br>&#60;i&#62; &amp; &#42;c&#42;"


@pytest.mark.slow  # a process that imports transformers
def test_a_model_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = subprocess.run(
        [sys.executable, "-m", "stages.chat", "tuned"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == "espalier: chat: models/merged is no checkpoint: config.json is missing"
