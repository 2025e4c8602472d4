"""Made-up rows in the columns of the datasets of lm-eval's tasks, a few for each split."""

import random
from typing import Any

from evaluate_helpers import text

Row = dict[str, Any]


def words(rng: random.Random, most: int = 6) -> str:
    """Return a few random words."""
    return text(rng, rng.randint(2, most))


def row(family: str, rng: random.Random) -> Row:
    """Return one row of the dataset of `family`."""
    some = lambda: words(rng)  # noqa: E731
    four = [some() for _ in range(4)]
    number = rng.randrange(100)
    rows: dict[str, Row] = {
        "arc": {
            "question": some(), "choices": {"text": four[: rng.choice([3, 4])], "label": ["A", "B", "C", "D"]},
            "answerKey": rng.choice("ABC"),
        },
        "hellaswag": {
            "ctx_a": f"{some()}. [title]", "ctx_b": some(), "activity_label": some(), "endings": four,
            "label": str(rng.randrange(4)),
        },
        "mmlu": {"question": some(), "subject": "one", "choices": four, "answer": rng.randrange(4)},
        "gsm8k": {"question": some(), "answer": f"{some()} <<1+1=2>> {some()}\n#### {number}"},
        "truthfulqa": {
            "question": some(),
            "mc1_targets": {"choices": four, "labels": [1, 0, 0, 0]},
            "mc2_targets": {"choices": [*four, some()], "labels": [1, 1, 0, 0, 0]},
        },
        "lambada": {"text": text(rng, 12), "domain": "books"},
        "wikitext": {"page": "\n".join(text(rng, rng.randint(30, 200)) for _ in range(4))},
        "winogrande": {
            "sentence": f"{some()} _ {some()}", "option1": some(), "option2": some(), "answer": rng.choice("12"),
        },
        "boolq": {"question": some(), "passage": text(rng, 30), "idx": number, "label": rng.randrange(2)},
        "piqa": {"goal": some(), "sol1": some(), "sol2": some(), "label": rng.randrange(2)},
        "sciq": {
            "support": text(rng, 20), "question": some(), "distractor1": four[0], "distractor2": four[1],
            "distractor3": four[2], "correct_answer": four[3],
        },
        "openbookqa": {
            "question_stem": some(), "choices": {"text": four, "label": ["A", "B", "C", "D"]},
            "answerKey": rng.choice("ABCD"),
        },
        "triviaqa": {"question": some(), "answer": {"aliases": [some(), "tree"], "value": some()}},
        "nq_open": {"question": some(), "answer": [some()]},
        "mrpc": {"sentence1": some(), "sentence2": some(), "label": rng.randrange(2), "idx": number},
        "cola": {"sentence": some(), "label": rng.randrange(2), "idx": number},
        "cb": {"premise": some(), "hypothesis": some(), "label": rng.randrange(3), "idx": number},
        "copa": {
            "premise": f"{some()}.", "choice1": some(), "choice2": some(), "question": rng.choice(["cause", "effect"]),
            "label": rng.randrange(2), "idx": number,
        },
        "blimp": {"sentence_good": some(), "sentence_bad": some()},
        "anli": {"premise": text(rng, 15), "hypothesis": some(), "label": rng.randrange(3)},
        "mathqa": {
            "Problem": some(), "correct": rng.choice("abcde"),
            "options": " , ".join(f"{letter} ) {rng.randrange(99)}" for letter in "abcde"),
        },
        "commonsense_qa": {
            "question": some(), "choices": {"label": list("ABCDE"), "text": [*four, some()]},
            "answerKey": rng.choice("ABCDE"),
        },
        "drop": {
            "query_id": str(number), "passage": text(rng, 20), "question": some(),
            "answer": {"number": str(number), "date": {"day": "", "month": "", "year": ""}, "spans": []},
            "validated_answers": {
                "number": [str(number), ""], "date": [{"day": "", "month": "", "year": ""}] * 2,
                "spans": [["tree"], ["wall"]],
            },
        },
        "ifeval": {
            "key": number, "prompt": some(),
            "instruction_id_list": ["punctuation:no_comma", "keywords:existence", "length_constraints:number_words"],
            "kwargs": [
                {"keywords": None, "num_words": None, "relation": None},
                {"keywords": [rng.choice("aeo")], "num_words": None, "relation": None},
                {"keywords": None, "num_words": 2, "relation": rng.choice(["at least", "less than"])},
            ],
        },
        "bbh": {"input": some(), "target": rng.choice(["True", "False"])},
    }  # fmt: skip
    return rows[family]


# task, group or tag: family of its rows. Between them: every request type, accuracies of all kinds, F1, MCC, exact
# match with filters, a function of the task's own, several right answers, and groups by size.
FAMILIES = {
    "arc_challenge": "arc",
    "hellaswag": "hellaswag",
    "mmlu_social_sciences": "mmlu",
    "gsm8k": "gsm8k",
    "truthfulqa_mc1": "truthfulqa",
    "truthfulqa_mc2": "truthfulqa",
    "lambada_openai": "lambada",
    "wikitext": "wikitext",
    "winogrande": "winogrande",
    "boolq": "boolq",
    "piqa": "piqa",
    "sciq": "sciq",
    "openbookqa": "openbookqa",
    "triviaqa": "triviaqa",
    "nq_open": "nq_open",
    "mrpc": "mrpc",
    "cola": "cola",
    "cb": "cb",
    "copa": "copa",
    "blimp_anaphor_gender_agreement": "blimp",
    "anli_r1": "anli",
    "mathqa": "mathqa",
    "commonsense_qa": "commonsense_qa",
    "drop": "drop",
    "bbh_zeroshot_boolean_expressions": "bbh",
    "ifeval": "ifeval",
}


def rows(family: str, split: str, config: str | None = None, count: int = 6) -> list[Row]:
    """Return the rows of a split of a dataset; groups' configs have different numbers of them."""
    rng = random.Random(f"{family} {split} {config}")
    return [row(family, rng) for _ in range(count + len(config or "") % 3)]
