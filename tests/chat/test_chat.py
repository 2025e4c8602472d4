"""What the models write can be read: streamed line by line, and side by side."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from export_helpers import byte_level
from forks import forking_python
from helpers import ROOT, chat_tokenizer, tiny_llama, tiny_tokenizer
from ruamel.yaml import YAML

from chat import __main__ as chat
from chat import samples
from stages.common.errors import UserError
from stages.common.generation import greedy
from stages.common.text import to_continue
from stages.models.checkpoint import load_model, load_tokenizer, save_checkpoint


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


def spy(monkeypatch) -> list[tuple[list[int], dict]]:
    """Return what the model is asked from now on: tokens and settings."""
    asked: list[tuple[list[int], dict]] = []
    monkeypatch.setattr(
        chat, "write", lambda model, tokenizer, tokens, *_, **settings: asked.append((tokens, settings)) or "fine"
    )
    return asked


def test_a_chat_template_is_used_and_remembers(workspace, monkeypatch, capsys):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"
    tokenizer.save_pretrained("models/pruned")
    asked = spy(monkeypatch)
    answers(monkeypatch, capsys, "hi\nagain\n")
    prompts = ["user hi ", "user hi assistant fine user again "]
    assert [tokens for tokens, _ in asked] == [tokenizer(prompt)["input_ids"] for prompt in prompts]


def test_a_chat_has_one_beginning(workspace, monkeypatch, capsys):
    """The template begins with a BOS, and the tokenizer adds one to what it encodes."""
    tokenizer = chat_tokenizer()
    tokenizer.save_pretrained("models/pruned")
    asked = spy(monkeypatch)
    answers(monkeypatch, capsys, "hi\n")
    tokens = asked[0][0]
    assert tokens.count(tokenizer.bos_token_id) == 1 and tokens[0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokens).endswith("hi<|im_end|>\n<|im_start|>assistant\n")


def test_the_models_own_sampling_comes_first(workspace, monkeypatch, capsys):
    asked = spy(monkeypatch)
    answers(monkeypatch, capsys, "abc\n", "base")
    model = load_model("models/base")
    model.generation_config.temperature, model.generation_config.do_sample = 0.3, True
    model.generation_config.save_pretrained("models/base")
    answers(monkeypatch, capsys, "abc\n", "base")
    assert [settings["stream"] for _, settings in asked] == [True, True]
    assert {key: asked[0][1].get(key) for key in chat.SAMPLING} == chat.SAMPLING
    assert {key for key in chat.SAMPLING if key in asked[1][1]} == {"top_p"}


def test_a_prompt_beyond_the_context_keeps_its_end(workspace):
    model, tokenizer = load_model("models/base"), load_tokenizer("models/base")
    room = model.config.max_position_embeddings - 5
    long, short = (to_continue(tokenizer, text) for text in ("z" * 50 + "abc" * 300, ("abc" * 300)[-room:]))
    assert greedy(model, tokenizer, long, 5) == greedy(model, tokenizer, short, 5)


def test_samples_stand_side_by_side(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("base", "pruned", "tuned"):
        folder = Path("metrics/outcomes") / name
        folder.mkdir(parents=True)
        written = [{"prompt": "abc", "continuation": f"{name} | one"}, {"prompt": "hello", "continuation": name}]
        (folder / "samples.json").write_text(json.dumps(written))
    samples.main()
    header, _, first, second = Path("samples.md").read_text().splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == ["prompt", "base", "pruned", "tuned"]
    assert first.split("|")[1].strip() == "abc" and first.split("|")[4].strip() == "tuned &#124; one"
    assert [cell.strip() for cell in second.strip("|").split("|")] == ["hello", "base", "pruned", "tuned"]


def test_samples_of_a_model_not_evaluated_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"metrics/outcomes/base/samples.json is missing; run `dvc repro`"):
        samples.main()


def test_damaged_samples_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("metrics/outcomes/base").mkdir(parents=True)
    Path("metrics/outcomes/base/samples.json").write_text('[{"prompt"')
    with pytest.raises(UserError, match=r"metrics/outcomes/base/samples.json is not valid JSON \(.*\); run the stage"):
        samples.main()


def test_text_stays_in_its_cell():
    assert samples.cell("a|b\n<i> & *c*") == "a&#124;b<br>&#60;i&#62; &amp; &#42;c&#42;"


@pytest.mark.slow  # processes that import transformers
@pytest.mark.parametrize(
    "encoding",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["C", "ascii"],
)
def test_any_encoding_of_the_terminal_is_read_and_written(workspace, encoding):
    tokenizer = byte_level()  # its random tokens are no text
    save_checkpoint(tiny_llama(vocab=300), tokenizer, Path("models/pruned"))
    done = subprocess.run(
        [sys.executable, "-m", "chat", "pruned"],
        env={"PYTHONPATH": str(ROOT)} | encoding, input="é☃ ".encode() + b"\xff\n\n", capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"> ") == 2 and len(done.stdout) > 20


@pytest.mark.slow
def test_a_model_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = subprocess.run(
        [forking_python(), "-m", "chat", "tuned"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == "espalier: chat: models/merged is not a checkpoint: config.json is missing"
