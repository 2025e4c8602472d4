"""Two models' answers to the same questions."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from analysis.outcomes import side_by_side
from analysis.significance import mcnemar


@dataclass(frozen=True)
class PairedTest:
    """How a model's accuracy differs from its reference's on one task, by McNemar's exact test."""

    task: str
    difference: float  # of the accuracies
    lost: int  # questions that only the reference answers right
    won: int  # questions that only the model answers right
    p: float  # not adjusted


def paired_tests(first: str, reference: pd.DataFrame, second: str, model: pd.DataFrame) -> Iterator[PairedTest]:
    """Yield a test per task of the answers in questions.parquet; `first` and `second` name the models in an error.

    Raises UserError where the models were not asked the same questions.
    """
    answers = side_by_side({first: reference, second: model}, ["task", "question"], "acc")
    for task, paired in answers.groupby(level="task"):
        test = mcnemar(paired[first].to_numpy(), paired[second].to_numpy())
        yield PairedTest(str(task), (test.won - test.lost) / len(paired), test.lost, test.won, test.p)
