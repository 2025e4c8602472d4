import math
import random
import re
from collections import Counter

import pytest

from stages.common.errors import UserError
from stages.data.python_docs import Document, Entry
from stages.data.task_files import multiple_choice
from stages.data.tasks import NEIGHBOURS, form, make_tasks, nearest

NOUNS = re.findall(r"\w+", "apple river engine garden letter mirror packet signal thread window copper bridge")
VERBS = re.findall(r"\w+", "opens closes follows carries changes returns removes replaces measures protects")
NAMES = ["pydocs_continuation", "pydocs_gap", "pydocs_object"]


def library(seed: int, entries: int) -> list[Document]:
    """Return documents of random sentences, one a docstring, no two alike."""
    generator = random.Random(seed)

    def sentence() -> str:
        nouns = generator.sample(NOUNS, 4)
        return f"The {nouns[0]} of every {nouns[1]} {generator.choice(VERBS)} the {nouns[2]} or its own {nouns[3]}."

    texts = list(dict.fromkeys(sentence() for _ in range(entries)))
    each = [Entry("function", f"f{seed}_{number}(x)", text) for number, text in enumerate(texts)]
    return [Document(f"module m{start}", tuple(each[start : start + 10])) for start in range(0, len(each), 10)]


def texts(documents: list[Document]) -> list[str]:
    return [entry.text for document in documents for entry in document.entries]


HELD_OUT, SEEN = library(1, 520), library(2, 300)
TASKS = make_tasks(NAMES, HELD_OUT, SEEN, 250, seed=7)


@pytest.mark.parametrize("name", NAMES)
def test_the_labelled_choice_is_the_true_one_and_the_others_are_not(name):
    true = set(texts(HELD_OUT)) - set(texts(SEEN))
    signatures = {f"{entry.signature}\n{entry.text}" for document in HELD_OUT for entry in document.entries}
    for row in TASKS[name]:
        if name == "pydocs_continuation":
            wholes = [row["context"] + choice for choice in row["choices"]]
        else:
            wholes = [context + row["continuation"] for context in row["contexts"]]
        allowed = signatures if name == "pydocs_object" else true
        assert wholes[row["label"]] in allowed
        assert len(set(wholes)) == len(wholes) == (2 if name == "pydocs_gap" else 4)


@pytest.mark.parametrize("name", NAMES)
def test_no_place_among_the_choices_is_preferred(name):
    labels = Counter(row["label"] for row in TASKS[name])
    expected = len(TASKS[name]) / (2 if name == "pydocs_gap" else 4)
    assert all(abs(count - expected) < 4 * math.sqrt(expected) for count in labels.values())


@pytest.mark.parametrize("name", NAMES)
def test_no_question_is_asked_twice(name):
    asked = {str({key: row[key] for key in row if key != "label"}) for row in TASKS[name]}
    assert len(asked) == len(TASKS[name])


def test_a_gap_is_one_word_filled_by_words_that_are_missing_elsewhere():
    rows = make_tasks(NAMES, HELD_OUT, SEEN, 500, seed=7)["pydocs_gap"]
    missing = {row["contexts"][row["label"]].rsplit(" ", 1)[1] for row in rows}
    for row in rows:
        (first, one), (second, other) = (context.rsplit(" ", 1) for context in row["contexts"])
        assert first == second and one != other
        assert {one, other} <= missing


def test_sentences_and_descriptions_that_were_seen_are_not_asked_for():
    known = [Document("module seen", HELD_OUT[0].entries), *SEEN]
    for name, rows in make_tasks(NAMES, HELD_OUT, known, 250, seed=7).items():
        for entry in HELD_OUT[0].entries:
            assert not any(
                entry.text in context + ending
                for row in rows
                for context in row.get("contexts", [row.get("context")])
                for ending in [row.get("continuation"), *row.get("choices", [])]
                if ending
            ), name


def test_the_endings_offered_are_those_most_like_the_true_one():
    """Against a naive double loop: length in characters / 3 plus information of the words, both in nats."""
    counts = Counter(re.findall(r"\w+|[^\w\s]", " ".join(texts(SEEN))))
    endings = sorted({" " + " ".join(text.split()[-4:]) for text in texts(HELD_OUT)})
    forms = {ending: form(ending, counts, counts.total()) for ending in endings}

    def information(ending: str) -> float:
        return -sum(math.log((counts[word] + 1) / counts.total()) for word in re.findall(r"\w+|[^\w\s]", ending))

    for ending in endings[:20]:
        distances = {
            other: abs(len(other) - len(ending)) / 3 + abs(information(other) - information(ending))
            for other in endings
            if other != ending
        }
        found = nearest(ending, forms)
        assert len(found) == NEIGHBOURS and ending not in found
        assert sorted(distances[other] for other in found) == pytest.approx(sorted(distances.values())[:NEIGHBOURS])


def test_the_seed_alone_decides_the_questions():
    assert make_tasks(NAMES, HELD_OUT, SEEN, 250, seed=7) == TASKS
    assert make_tasks(NAMES, HELD_OUT, SEEN, 250, seed=8) != TASKS


def test_more_questions_than_the_text_gives_is_one_line():
    with pytest.raises(UserError, match=r"^data.questions = 9999 is more .* pydocs_continuation; expected 1 to \d+, "):
        make_tasks(NAMES, HELD_OUT, SEEN, 9999, seed=7)


def test_a_text_with_too_few_questions_for_any_value_says_so():
    for name in NAMES:
        for documents in ([], [Document("module one", HELD_OUT[0].entries[:1])]):
            with pytest.raises(UserError, match=r"^data.questions = 1 is more .*; expected a larger data.test_share$"):
                make_tasks([name], documents, SEEN, 1, seed=7)


def test_tasks_are_made_one_by_one_as_together():
    assert make_tasks(["pydocs_gap"], HELD_OUT, SEEN, 250, seed=7) == {"pydocs_gap": TASKS["pydocs_gap"]}


def test_the_config_is_what_lm_eval_reads():
    gap = multiple_choice("gap", TASKS["pydocs_gap"])
    assert gap.config["metadata"]["chance"] == 0.5
    assert (gap.config["doc_to_text"], gap.config["doc_to_target"]) == ("label", "continuation")
    assert [metric["metric"] for metric in gap.config["metric_list"]] == ["acc"]
    ending = multiple_choice("ending", TASKS["pydocs_continuation"])
    assert ending.config["metadata"]["chance"] == 0.25
    assert (ending.config["doc_to_text"], ending.config["doc_to_choice"]) == ("context", "choices")
    assert [metric["metric"] for metric in ending.config["metric_list"]] == ["acc", "acc_norm"]
