"""Whatever params.yaml holds, check accepts it or refuses it in one line."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from campaign import EXAMPLES, attempt, refusal
from helpers import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st
from project import ran
from ruamel.yaml import YAML

from stages.check.sections import check_params
from stages.common.params import read_params_file

TEXT = (ROOT / "params.yaml").read_text()
PARAMS = YAML(typ="safe").load(TEXT)
LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))

BAD_FILES = [
    ("", "must be a mapping of sections, found NoneType"),
    ("- 1\n", "must be a mapping of sections, found list"),
    ("run: [", "is not valid YAML"),
    ("run: {device: cpu}\nrun: {device: cpu}\n", "is not valid YAML"),
    ("run: !!python/object/apply:os.system ['touch PWNED']\n", "is not valid YAML"),
    ("? [run]\n: 1\n", None),
    ("when: 2026-13-45\n", "is not valid YAML"),
    ("run: {device: cpu, threads: 0x" + "f" * 6000 + ", precision: auto}\n", "run.threads = 24000 bits is not allowed"),
    ("run: {device: cpu, threads: " + "9" * 5000 + "}\n", "is not valid YAML"),
    ("run: " + "[" * 3000 + "]" * 3000 + "\n", "is nested too deeply"),
    ("run: " + "{a: " * 3000 + "1" + "}" * 3000 + "\n", "is nested too deeply"),
    ("run: &a [*a]\n", "*a refers to a value that contains it"),
    ("a0: &a0 [x, x]\n" + LAUGHS, "holds more than 100,000 values"),
    ("a: &a {b: 1}\nrun: {<<: *a}\n", "`a` is not a known section"),
    ('"a\\nb": 1\n', "`a b` is not a known section"),
    (f"{'k' * 300}: 1\n", "is not a known section"),
    (f"run: {'v' * 2_000_000}\n", "run = 'vvv"),
    ('run: "\\ud83d"\n', "is not valid YAML"),
    ("\ufeff" + TEXT, None),
    (TEXT.replace("\n", "\r\n"), ""),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_a_bad_file_is_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes(text.encode())
    with attempt("params files, known bad"):
        refused = refusal(lambda: check_params(read_params_file()))
        assert message is None or (message in refused if message else refused is None)
        assert not Path("PWNED").exists()


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "latin-1", "utf-16", "zeros", "large", "unreadable"])
def test_what_is_no_text_file_is_one_line(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = Path("params.yaml")
    contents = {"latin-1": b"run: \xe9\n", "utf-16": TEXT.encode("utf-16"), "zeros": bytes(100)}
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_text(TEXT)
    if kind == "large":
        os.truncate(path, 1 << 40)  # a hole, no terabyte
    if kind == "unreadable":
        path.unlink()
        path.symlink_to("params.yaml")
    with attempt("params files, known bad"):
        assert "params.yaml" in refusal(lambda: read_params_file())


def keys(content: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path to every value."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys(value, (*path, key))


NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 1, 2**31, 2**63, 10**23, 1e308, 1e-320])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | st.text("${}'\"\\\n;./", max_size=9)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=6
)


@given(st.lists(st.tuples(st.sampled_from(list(keys(PARAMS))), VALUES), min_size=1, max_size=3))
@settings(max_examples=EXAMPLES)
@example([(("run", "threads"), 10**23)])
@example([((10**5000,), 10**5000)])
@example([(("run", "threads"), 10**9)])
@example([(("prune", "ratio"), float("nan"))])
@example([(("models",), {"a;touch PWNED": "models/base"})])
@example([(("models",), {"x": "../other"})])
@example([(("models",), {"x": "/"})])
@example([(("models",), {"x": "models/missing"})])
@example([(("evaluate", "prompts"), ["${oc.env:HOME}", "\0"])])
def test_any_value_under_any_key_is_accepted_or_one_line(changes):
    content = copy.deepcopy(PARAMS)
    for path, value in changes:
        place = content
        for key in path[:-1]:
            place = place[key] if isinstance(place, dict) and isinstance(place.get(key), dict) else {}
        place[path[-1]] = value
    with attempt("params, values changed"):
        refusal(lambda: check_params(content))


@given(
    st.integers(0, len(TEXT) - 1),
    st.integers(0, 30),
    st.text(max_size=10) | st.text("[]{}:&*!|>'\"\n\t -", max_size=10),
)
@settings(max_examples=EXAMPLES)
def test_any_damage_to_the_text_is_accepted_or_one_line(tmp_path_factory, start, length, text):
    path = tmp_path_factory.getbasetemp() / "params.yaml"
    path.write_bytes((TEXT[:start] + text + TEXT[start + length :]).encode())
    with attempt("params, text damaged"):
        refusal(lambda: check_params(read_params_file(path)))


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("my model", None),
        ("-dash", None),
        ("a'b\"c;touch PWNED;`x`$(y)", None),
        ("models/../my model", None),
        ("../outside", "is outside the project"),
        ("/", "is outside the project"),
        ("link", "is outside the project"),
        ("missing", "is not a folder"),
        ("models/made", None),
        ("file", "is not a folder"),
        ("models/export/pruned-padded", None),
        (
            "models/export/tuned-padded",
            "is not a folder that stage export makes; expected one of models/export/pruned-padded",
        ),
    ],
)
def test_a_further_model_is_a_folder_of_the_project(tmp_path, monkeypatch, folder, message):
    project = tmp_path / "project"
    for name in ("my model", "-dash", "a'b\"c;touch PWNED;`x`$(y)", "models", "../outside"):
        (project / name).mkdir(parents=True)
    (project / "link").symlink_to("../outside")
    (project / "file").touch()
    (project / "dvc.yaml").write_text("stages: {tune: {outs: [models/made, metrics/tune.csv: {cache: false}]}}")
    monkeypatch.chdir(project)
    content = copy.deepcopy(PARAMS) | {"models": {"x": folder}, "export": {"models": ["pruned"], "formats": ["padded"]}}
    with attempt("params, folders"):
        refused = refusal(lambda: check_params(content))
        assert (message is None and refused is None) or message in refused


@pytest.mark.slow
def test_a_bad_param_stops_dvc_before_any_output_is_replaced(project):
    before = project.hashes()
    for change, message in (
        (
            {"prune__ratio": 1},
            "espalier: check: params.yaml: prune.ratio = 1 is not allowed; expected a value less than 1",
        ),
        ({"tune__learning_rat": 0.1}, "espalier: check: params.yaml: tune.learning_rat is not a known key"),
        ({"prune__mlp_layers": [2, 9]}, "espalier: check: prune.mlp_layers = [2, 9] is not allowed"),
        ({"evaluate__tasks": ["boolk"]}, "boolk"),
    ):
        with attempt("params, by dvc repro"):
            project.set(**change)
            done = project.run("dvc", "repro", check=False)
            assert done.returncode != 0 and "Traceback" not in done.stdout
            (line,) = [line for line in done.stdout.splitlines() if line.startswith("espalier: ")]
            assert message in line
            assert project.hashes() == before
            project.run("git", "checkout", "-q", "params.yaml")
    assert ran(project.run("dvc", "repro").stdout) == []
    assert project.hashes() == before
