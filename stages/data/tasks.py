"""Questions from held-out documents, in the shapes of lm-eval's multiple-choice tasks.

True and false choices are drawn from one distribution (the false ones are the true ones of other questions), so that
length, frequency or form alone reveal nothing.
"""

import heapq
import math
import random
import re
from collections import Counter
from collections.abc import Callable

from stages.common.errors import UserError
from stages.data.prose import sentences
from stages.data.python_docs import Document

Rows = list[dict]

WORD = re.compile(r"[a-z]{3,}")
WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")
ENDING_WORDS = 4
CHOICES = 4  # of a continuation and of a described object
NEIGHBOURS = 8  # most similar endings, to draw three from
CHARACTERS_PER_NAT = 3  # weight of length against frequency


def make_tasks(
    names: list[str], held_out: list[Document], seen: list[Document], questions: int, seed: int
) -> dict[str, Rows]:
    """Return `questions` rows for each task, from `held_out`, without sentences that `seen` documents hold too.

    Raises UserError if the documents do not give so many.
    """
    tasks = {}
    for name in names:
        rows = TASKS[name](held_out, seen, random.Random(f"{seed} {name}"))
        if len(rows) < questions:
            possible = f"1 to {len(rows)}, or " if rows else ""
            raise UserError(
                f"data.questions = {questions} is more than the held-out text gives for {name}; "
                f"expected {possible}a larger data.test_share"
            )
        tasks[name] = rows[:questions]
    return tasks


def continuation(held_out: list[Document], seen: list[Document], generator: random.Random) -> Rows:
    """Return questions that ask for a sentence's last words, among those of three other sentences.

    A likelihood prefers what is short and common whatever goes before it, so the choices are alike in that.
    """
    counts = Counter(WORD_OR_MARK.findall(" ".join(entry.text for document in seen for entry in document.entries)))
    halves = [sentence.rsplit(" ", ENDING_WORDS) for sentence in new_sentences(held_out, seen, generator)]
    questions = [(context, " " + " ".join(words)) for context, *words in halves]
    total = counts.total()
    forms = {ending: form(ending, counts, total) for _, ending in questions}
    if len(forms) < CHOICES:
        return []
    rows = []
    for context, ending in questions:
        choices, label = shuffled(ending, generator.sample(nearest(ending, forms), CHOICES - 1), generator)
        rows.append({"context": context, "choices": choices, "label": label})
    return rows


def form(ending: str, counts: Counter[str], total: int) -> tuple[float, float]:
    """Return the length and the information of the words by themselves, both in nats; `total`: of all counts."""
    information = sum(math.log(total / (counts[word] + 1)) for word in WORD_OR_MARK.findall(ending))
    return len(ending) / CHARACTERS_PER_NAT, information


def nearest(ending: str, forms: dict[str, tuple[float, float]]) -> list[str]:
    """Return the NEIGHBOURS other endings whose forms are most like that of `ending`."""
    length, information = forms[ending]
    distances = ((abs(x - length) + abs(y - information), other) for other, (x, y) in forms.items() if other != ending)
    return [other for _, other in heapq.nsmallest(NEIGHBOURS, distances)]


def gap(held_out: list[Document], seen: list[Document], generator: random.Random) -> Rows:
    """Return questions with one word of a sentence missing: scored by the text after the gap."""
    gaps = []
    for sentence in new_sentences(held_out, seen, generator):
        words = sentence.split()
        if places := [place for place in range(3, len(words) - 3) if WORD.fullmatch(words[place])]:
            gaps.append((words, generator.choice(places)))
    missing = [words[place] for words, place in gaps]
    if len(set(missing)) < 2:
        return []
    rows = []
    for words, place in gaps:
        other = generator.choice([word for word in missing if word != words[place]])
        candidates, label = shuffled(words[place], [other], generator)
        contexts = [" ".join([*words[:place], candidate]) for candidate in candidates]
        rows.append({"contexts": contexts, "continuation": " " + " ".join(words[place + 1 :]), "label": label})
    return rows


def described_object(held_out: list[Document], seen: list[Document], generator: random.Random) -> Rows:
    """Return questions that ask which of four signatures a description belongs to, scored by the description."""
    known = {description(entry.text) for document in seen for entry in document.entries}
    entries = [
        entry
        for document in held_out
        for entry in document.entries
        if entry.kind in ("class", "function") and len(entry.text.split()) >= 5 and description(entry.text) not in known
    ]
    generator.shuffle(entries)
    signatures: dict[str, set[str]] = {"class": set(), "function": set()}
    for entry in entries:
        signatures[entry.kind].add(entry.signature)
    rows = []
    for entry in entries:
        if len(signatures[entry.kind]) < CHOICES:
            continue
        others = generator.sample(sorted(signatures[entry.kind] - {entry.signature}), CHOICES - 1)
        objects, label = shuffled(entry.signature, others, generator)
        rows.append({"contexts": objects, "continuation": "\n" + description(entry.text), "label": label})
    return rows


def new_sentences(held_out: list[Document], seen: list[Document], generator: random.Random) -> list[str]:
    """Return the different sentences of `held_out` that `seen` does not hold, shuffled."""
    found, known = (
        dict.fromkeys(sentence for document in part for entry in document.entries for sentence in sentences(entry.text))
        for part in (held_out, seen)
    )
    return generator.sample(new := [sentence for sentence in found if sentence not in known], len(new))


def description(text: str) -> str:
    """Return the first paragraph."""
    return text.split("\n\n")[0]


def shuffled(true: str, others: list[str], generator: random.Random) -> tuple[list[str], int]:
    """Return the choices in random order and the true one's index."""
    choices = generator.sample([true, *others], 1 + len(others))
    return choices, choices.index(true)


TASKS: dict[str, Callable[[list[Document], list[Document], random.Random], Rows]] = {
    "pydocs_continuation": continuation,
    "pydocs_gap": gap,
    "pydocs_object": described_object,
}
