"""A run as its report shows it: what was measured of its models, and the tables and tests made of that."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.audit import Finding
from analysis.checks import contradictions
from analysis.comparison import Comparison, average_accuracies, compare
from analysis.params import Pruning, ReportParams
from analysis.quality import Measure, measures, norm_numbers, quality_numbers
from analysis.results import Metrics
from analysis.rows import Result, Runs
from analysis.tables import cost_numbers, size_table


@dataclass(frozen=True)
class RunReport:
    """Everything on the page of one run: its models, and the params that name it."""

    params: ReportParams
    pruning: Pruning
    evaluated_tokens: int  # in a perplexity window
    profiled_tokens: int  # in the forward pass that was profiled
    own_domain: str | None  # the perplexity set of the domain that the model was tuned on
    dequantised_from: str | None  # the tensor type of a GGUF base
    results: dict[str, Result]  # by model
    chances: Metrics  # accuracy of guessing, by task
    counts: Metrics  # metrics/details/prune.json
    layers: pd.DataFrame | None  # what pruning left of each layer
    losses: dict[str, pd.DataFrame | None]  # by stage that trains
    samples: dict[str, list[dict[str, str]]]  # by model

    @property
    def runs(self) -> Runs:
        """The models as rows of the tables."""
        return {model: [result] for model, result in self.results.items()}

    @property
    def evaluate(self) -> dict[str, Metrics]:
        """What evaluate measured, by model."""
        return {model: result.evaluate for model, result in self.results.items()}

    @cached_property
    def comparison(self) -> Comparison:
        """The models compared with one another."""
        return compare(self.runs, self.chances, self.own_domain, self.params)

    @cached_property
    def measures(self) -> list[Measure]:
        """The columns of the quality table."""
        return measures(self.runs)

    @cached_property
    def quality(self) -> pd.DataFrame:
        """Perplexities, accuracies and averages by model, then what takes no model."""
        return quality_numbers(self.runs, self.chances)

    @cached_property
    def norms(self) -> pd.DataFrame:
        """Accuracies by log-likelihood per character (acc_norm)."""
        return norm_numbers(self.runs)

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Parameters, computation, memory and speed by model."""
        return cost_numbers(self.runs)

    @cached_property
    def sizes(self) -> pd.DataFrame:
        """Parameters before and after pruning."""
        return size_table(self.counts)

    @cached_property
    def findings(self) -> list[Finding]:
        """What in the tables contradicts itself or its source."""
        tables = (self.quality, self.costs, self.chances, self.profiled_tokens, self.norms, self.sizes)
        return contradictions(self.runs, *tables)

    def metrics(self) -> Metrics:
        """Return every number of the comparison by the names of metrics/details/report.json."""
        found = average_accuracies(self.evaluate, self.chances) | self.comparison.metrics()
        return found | {"table_contradictions": len(self.findings)}
