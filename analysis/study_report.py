"""A study as its report shows it: what its experiments measured, and the tables and tests made of that."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.audit import Finding
from analysis.checks import contradictions
from analysis.contrasts import Contrast, accuracy_contrasts, perplexity_contrasts
from analysis.losses import losses_by_text
from analysis.params import ReportParams
from analysis.quality import measures
from analysis.results import Metrics
from analysis.rows import Result, Row, Runs
from analysis.study_tables import cost_numbers, cost_text, difference_text, quality_numbers, quality_text, runs_of


@dataclass(frozen=True)
class StudyReport:
    """Everything on the page of one study."""

    name: str
    params: ReportParams
    base: Result
    rows: list[Row]  # by ratio and model
    missing: list[str]  # variants that have not been run
    chances: Metrics  # accuracy of guessing, by task
    profiled_tokens: int  # in the forward pass that was profiled

    @cached_property
    def runs(self) -> Runs:
        """The runs by row of the tables, the base first."""
        return runs_of(self.base, self.rows)

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """Every row compared with the base: perplexities, then accuracies."""
        pairs = [("base", row.label) for row in self.rows]
        losses = losses_by_text(self.runs, self.params)
        ratios = perplexity_contrasts(losses, pairs, self.params.confidence)
        return ratios + accuracy_contrasts(self.runs, pairs, self.params.level)

    @cached_property
    def quality(self) -> pd.DataFrame:
        """Perplexities, accuracies and averages by row, then what takes no model."""
        return quality_numbers(self.base, self.rows, self.chances)

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Parameters, computation, memory and speed by row."""
        return cost_numbers(self.base, self.rows)

    @cached_property
    def texts(self) -> dict[str, pd.DataFrame]:
        """The tables as they are printed."""
        return {
            "quality": quality_text(self.quality, measures(self.runs), self.contrasts),
            "differences": difference_text(self.rows, self.contrasts),
            "cost": cost_text(self.costs),
        }

    @cached_property
    def findings(self) -> list[Finding]:
        """What in the tables contradicts itself or its source."""
        return contradictions(self.runs, self.quality, self.costs, self.chances, self.profiled_tokens)
