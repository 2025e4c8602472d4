"""The exam questions: what lm-eval's files hold, as clean text."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from stages.common.errors import UserError
from stages.data import exams

TEXTS = exams.documents()


def write(folder: Path, subject: str, samples: object) -> Path:
    """Write a subject's task file as lm-eval has it."""
    file = folder / f"mmlu_{subject}.yaml"
    file.write_text(yaml.safe_dump({"dataset_name": subject, "fewshot_config": {"samples": samples}}))
    return file


def test_the_set_is_large_and_of_prose():
    assert sum(map(len, TEXTS)) > 100_000
    assert len(set(TEXTS)) == len(TEXTS) > 150
    whole = "\n".join(TEXTS)
    assert sum(character.isalpha() or character.isspace() for character in whole) > 0.93 * len(whole)
    assert not any(mark in whole for mark in ("\\", "\u200b", "We refer to", "think step by step", "\n\n", "  "))
    assert all(text.count("\n") >= 2 and "(A) " in text and "(D) " in text for text in TEXTS)


def test_any_beginning_holds_all_subjects_alike():
    subjects = [exams.examples(file) for file in exams.files()]
    assert len(subjects) == 57 - len(exams.LEFT_OUT)
    first = {texts[0] for texts in subjects}
    assert set(TEXTS[: len(subjects) - 2]) <= first  # two of them may be left out for their formulas


def test_what_is_left_out_exists():
    present = {file.stem.removeprefix("mmlu_") for file in exams.files()[0].parent.glob("mmlu_*.yaml")}
    assert present >= exams.LEFT_OUT


def test_the_text_does_not_depend_on_the_order_of_the_folder(monkeypatch):
    found = Path.glob
    shuffled = lambda each: random.Random(1).sample(each, len(each))  # noqa: E731
    monkeypatch.setattr(Path, "glob", lambda *arguments: shuffled(list(found(*arguments))))
    assert exams.documents() == TEXTS


def test_an_example_loses_its_openings_alone():
    text = exams.document(
        "Who was  it?\n\n(A) She (B) He",
        "Let's think step by step. We refer to Wikipedia articles on us history for help. Let\u2019s solve this "
        "problem step by step. \nWe know it.\u200b The answer is (A).",
    )
    assert text == "Who was it?\n(A) She (B) He\nWe know it. The answer is (A)."


@pytest.mark.parametrize("samples", [None, "text", [{"question": "a"}], [{"question": 1, "target": 2}], 3])
def test_files_of_another_shape_are_one_line(samples, tmp_path):
    file = write(tmp_path, "x", samples)
    with pytest.raises(UserError, match=r"mmlu_x\.yaml: not the examples of the pinned lm-eval \(.*\); run `make set"):
        exams.examples(file)


def test_no_function_of_a_file_is_run(tmp_path):
    file = tmp_path / "mmlu_x.yaml"
    file.write_text("fewshot_config:\n  samples: !function os.getcwd\n")
    with pytest.raises(UserError, match="could not determine a constructor for the tag '!function'"):
        exams.examples(file)


def test_without_lm_eval_it_is_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"exams: lm_eval/tasks/\S+ is not installed; run `make setup`"):
        exams.documents()


def test_lm_eval_is_not_imported():
    """It takes seconds."""
    code = "import sys; from stages.data import exams; exams.documents(); print('lm_eval' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
