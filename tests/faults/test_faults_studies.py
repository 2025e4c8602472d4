"""Whatever a study holds, and wherever a command is run, the answer is a study or one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import EXAMPLES, answer, attempt, refusal
from helpers import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.common.stage import explain
from stages.report import show
from studies import compare, gc, sweep
from studies.study import load_study, slug

GOOD = "grid: {prune.ratio: [0.3, 0.4]}\n"
SET = "points: [{{set: {{{}}}}}]\n"
BAD_STUDIES = [
    ("[" * 3000 + "]" * 3000, "is nested too deeply"),
    ("grid: {prune.ratio: &a [*a]}", "refers to a value that contains it"),
    (SET.format("base.revision: " + "v" * 2_000_000), "points.0.set.base.revision has 2,000,000 characters"),
    (SET.format("base.revision: " + "v" * 300), None),
    (SET.format('"prune.\\nratio": 0.3'), "prune. ratio is not a key of params.yaml"),
    (SET.format('"": 0.3'), "is not a key of params.yaml"),
    (SET.format('"prune.ratio.x": 0.3'), "is not a key of params.yaml"),
    (SET.format("1: 0.3"), "points.0.set.1"),
    (SET.format("prune.ratio: 2026-01-01"), "prune.ratio = datetime.date(2026, 1, 1) is not allowed"),
    (SET.format("run.threads: 100000000000000000000000"), "points.0.set.run.threads is a number of 77 bits"),
    (SET.format("models.x: /"), "models.x = '/' is outside the project"),
    (SET.format('models.x: "a;touch PWNED"'), "models.x = 'a;touch PWNED' is not a folder"),
    (SET.format('"models.x;touch PWNED": models/base'), "models: x;touch PWNED is not allowed"),
    (SET.format('evaluate.prompts: ["${oc.env:HOME}", "a\\nb"]'), None),
    (f"grid: {{prune.seed: {[*range(200)]}, tune.seed: {[*range(200)]}}}", "make 40,000 variants; expected at most"),
    (f"grid: {{prune.seed: {[*range(200)]}}}\nseeds: {{tune.seed: {[*range(200)]}}}", "make 40,000 variants"),
    ("grid: {prune.seed: !!python/name:os.system [1]}", "is not valid YAML"),
]  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A git repository with params.yaml and a study, and that as the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    Path("studies").mkdir()
    Path("studies/small.yaml").write_text(GOOD)
    return tmp_path


@pytest.mark.parametrize(("text", "message"), BAD_STUDIES, ids=range(len(BAD_STUDIES)))
def test_a_bad_study_is_one_line(project, text, message):
    Path("small.yaml").write_text(text)
    with attempt("studies, known bad"):
        refused = refusal(lambda: load_study(Path("small.yaml")))
        assert (message is None and refused is None) or message in refused
        assert not Path("PWNED").exists()


@given(st.integers(0, len(GOOD)), st.integers(0, 12), st.text("[]{}:&*!|>'\",\n\t -.0123eaprunetioset", max_size=12))
@settings(max_examples=EXAMPLES)
def test_any_damage_to_a_study_is_accepted_or_one_line(tmp_path_factory, start, length, text):
    path = tmp_path_factory.getbasetemp() / "small.yaml"
    path.write_text(GOOD[:start] + text + GOOD[start + length :])
    with attempt("studies, text damaged"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        refusal(lambda: load_study(path))


@given(st.text(max_size=300) | st.lists(st.text(max_size=20), max_size=3) | st.floats() | st.none())
@settings(max_examples=EXAMPLES)
@example("a..b")
@example("..")
@example("x" * 300)
@example("HEAD.lock")
def test_a_name_is_one_that_git_and_the_disk_take(value):
    with attempt("names of experiments"):
        name = f"small-{slug(value) or 'x'}-0123456"
        assert len(name.encode()) < 420 and "/" not in name
        assert not subprocess.run(["git", "check-ref-format", f"refs/exps/00/11/{name}"]).returncode


@pytest.mark.parametrize("name", ["folder", "300", "missing", "unreadable"])
@pytest.mark.parametrize("command", [sweep, compare])
def test_a_study_that_cannot_be_read_is_one_line(project, capsys, monkeypatch, command, name):
    path = "s" * 300 + ".yaml" if name == "300" else f"studies/{name}"
    if name == "folder":
        Path(path).mkdir()
    if name == "unreadable":
        monkeypatch.setattr(
            Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
        )
        path = "studies/small.yaml"
    monkeypatch.setattr(sys, "argv", ["command", path])
    with attempt("commands, bad surroundings"):
        code, line = answer(capsys, "sweep", command.main)
        assert code == 2 and (path in line or "params.yaml" in line)


@pytest.mark.slow
@pytest.mark.parametrize("command", [sweep, compare, gc])
def test_a_machine_without_git_is_one_line(project, capsys, monkeypatch, command):
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["dvc", "init", "-q"], check=True)
    monkeypatch.setattr(sys, "argv", ["command", *(["studies/small.yaml"] if command is not gc else [])])
    monkeypatch.setattr("studies.gc.COMMAND", ["version"])
    monkeypatch.setenv("PATH", "")
    with attempt("commands, bad surroundings"):
        assert answer(capsys, "any", command.main) == (
            2,
            "git is not on PATH, and experiments are its commits; install it",
        )


@pytest.mark.parametrize("known", [(), ("user.name",), ("user.email",)])
def test_a_git_that_has_nobody_to_commit_as_is_one_line(project, capsys, monkeypatch, known):
    for variable in [name for name in os.environ if name.startswith("GIT_") or name == "EMAIL"]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    identity = ["-c", "user.name=tester", "-c", "user.email=tester"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "A study"]):
        subprocess.run(["git", *command], check=True)
    for key in known:
        subprocess.run(["git", "config", key, "tester"], check=True)
    monkeypatch.setattr(sys, "argv", ["command", "studies/small.yaml"])
    missing = [key for key in ("user.name", "user.email") if key not in known]
    with attempt("commands, bad surroundings"):
        assert answer(capsys, "sweep", sweep.main) == (
            2,
            f"git has no {' and no '.join(missing)}, and experiments are commits; run "
            + " and ".join(f"`git config --global {key} ...`" for key in missing)
            + " first",
        )
    assert not Path(".dvc").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "b"}', "\0", ""])
def test_damaged_metrics_are_one_line_of_show(project, capsys, text):
    file = Path("metrics/details/report.json")
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with attempt("commands, damaged files"):
        if text == '{"a": "b"}':
            show.main()
        else:
            code, line = answer(capsys, "show", show.main)
            assert code == 2 and str(file) in line


def test_what_goes_wrong_in_any_command_is_one_line(capsys, monkeypatch):
    monkeypatch.delenv("ESPALIER_TRACEBACK", raising=False)

    def failing(error: BaseException):
        def work() -> None:
            raise error

        return work

    expected = {
        UserError("a\nb\x1b[31m"): (2, r"a b\x1b[31m"),
        KeyboardInterrupt(): (130, "interrupted; the same command starts again"),
        ValueError("one\ntwo"): (1, "ValueError: one two (ESPALIER_TRACEBACK=1 shows where)"),
        PermissionError(13, "Permission denied", "models"): (
            1,
            "models: Permission denied; get write permission there (chmod, chown), then run `dvc repro` again",
        ),
    }
    for error, line in expected.items():
        with attempt("commands, errors of any kind"):
            assert answer(capsys, "any", failing(error)) == line
    assert "no space left on the disk of models" in explain(OSError(28, "No space left on device", "models"))
    assert answer(capsys, "counted", failing(RuntimeError("x")))[0] == 1


def test_every_command_goes_through_the_runner():
    for file in sorted(
        [
            path
            for folder in ("stages", "studies", "chat", "thesis", "analysis")
            for path in ROOT.glob(f"{folder}/**/*.py")
        ]
    ):
        text = file.read_text()
        if file.name == "lm_eval.py":  # lm-eval's own command
            continue
        if 'if __name__ == "__main__":' in text:
            assert any(f"    {name}(" in text for name in ("run_stage", "run_parallel_stage", "run")), file
