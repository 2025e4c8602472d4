"""Worked examples of exam questions, which come with lm-eval: general knowledge in addition to Python's documentation.

They are the few-shot examples of lm-eval's MMLU tasks with reasoning: a question, its options and an explanation that
ends in the answer. Documentation alone is too narrow: a model calibrated on it loses more on all other text. No
network.
"""

import itertools
import re
from pathlib import Path

import yaml

from stages.common.errors import UserError
from stages.data.package_files import installed_files

NAME = "exams"  # in data/sources.json
DISTRIBUTIONS = ("lm-eval",)
SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the former, in C, is ten times as fast
ZERO_WIDTH = "\u200b"  # a blank that is not seen
FOLDER = "tasks/mmlu/flan_cot_fewshot"  # inside lm-eval's package
PREFIX = "mmlu_"
# Formulas, code, arithmetic, blanks to fill in, or one long question asked five times: no prose of general knowledge.
LEFT_OUT = {
    "abstract_algebra", "business_ethics", "college_chemistry", "college_computer_science", "college_mathematics",
    "college_physics", "computer_security", "econometrics", "electrical_engineering", "elementary_mathematics",
    "formal_logic", "high_school_chemistry", "high_school_computer_science", "high_school_mathematics",
    "high_school_physics", "high_school_statistics", "machine_learning", "moral_scenarios", "professional_accounting",
}  # fmt: skip
# Every explanation begins with some of these: a model would learn them from the window and predict nothing but them.
OPENING = re.compile(r"Let['\u2019]s (?:think|solve this(?: problem)?) step by step\.|We refer to [^.]* for help\.")
FORMULA = re.compile(r"\\|\$[^$\d]")  # LaTeX, which these files partly garble; $5 is none


def documents() -> list[str]:
    """Return one document for each example: the first of every subject, then the second of every subject, and so on.

    So any beginning of the set holds all subjects alike. Raises UserError if lm-eval or its examples are not installed.
    """
    subjects = [examples(file) for file in files()]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*subjects))
    return list(dict.fromkeys(text for text in in_turn if text and not FORMULA.search(text)))


def files() -> list[Path]:
    """Return the task file of each subject, sorted by name."""
    found = installed_files(NAME, "lm_eval", FOLDER, f"{PREFIX}*.yaml")
    return [file for file in found if file.stem.removeprefix(PREFIX) not in LEFT_OUT]


def examples(file: Path) -> list[str]:
    """Return the documents of one subject; a tag in the YAML, such as a function, is refused and never run."""
    try:
        samples = yaml.load(file.read_text(encoding="utf-8"), SAFE)["fewshot_config"]["samples"]
        return [document(sample["question"], sample["target"]) for sample in samples]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: not the examples of the pinned lm-eval ({reason}); run `make setup`") from None


def document(question: str, explanation: str) -> str:
    """Return the text of an example: one paragraph a line, without the openings that all explanations share."""
    lines = [*question.splitlines(), *OPENING.sub("", explanation).replace(ZERO_WIDTH, "").splitlines()]
    return "\n".join(" ".join(line.split()) for line in lines if line.strip())
