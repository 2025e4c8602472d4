"""A number with its interval."""

import math
from dataclasses import dataclass

import numpy as np

from analysis.results import Metrics


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, whose bounds are NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def bounded(self) -> bool:
        """Return whether there is an interval."""
        return not math.isnan(self.low)

    def excludes(self, null: float) -> bool:
        """Return whether the interval leaves out `null`."""
        return self.low > null or self.high < null

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate times `factor`, which is positive."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high)

    def metrics(self, key: str) -> Metrics:
        """Return the estimate as metrics: `key`, and `key`_low and `key`_high where there is an interval."""
        return {key: self.value} | ({f"{key}_low": self.low, f"{key}_high": self.high} if self.bounded else {})


def estimate(value: float, drawn: np.ndarray, confidence: float) -> Estimate:
    """Return `value` with the interval of what was `drawn`; without a draw there is none."""
    return Estimate(value, *interval(drawn, confidence)) if len(drawn) else Estimate(value)


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the percentile interval that holds the middle `confidence` of `values` (Efron 1979)."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
