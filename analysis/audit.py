"""Check printed tables: does a value contradict its own row, or what arithmetic says it must be?

Every check takes a table as a DataFrame, indexed by what names its rows, with the values as they are printed. A value
printed with `decimals` digits stands for anything within half a unit of its last digit; so do the values it is computed
from. Only what no rounding can explain is called a contradiction.
"""

import math
from dataclasses import dataclass

import pandas as pd

from analysis.averages import chance_corrected

CONTRADICTION = "contradiction"
ROUNDING = "last digit"  # recomputed from the printed values it differs, yet their rounding may explain it
FLOAT_SLACK = 1e-9


@dataclass(frozen=True)
class Finding:
    """One printed value that is not what it should be."""

    row: str
    column: str
    printed: float | str
    expected: float | str
    kind: str
    reason: str


def compare(
    row: object, column: str, printed: float, expected: float, slack: float, decimals: int, reason: str
) -> list[Finding]:
    """Return a finding if `printed` is not `expected`, which is itself only known within `slack`."""
    if math.isnan(printed):
        return []
    if math.isnan(expected):
        return [Finding(str(row), column, printed, "none", CONTRADICTION, f"{reason}, which the row does not have")]
    half = 0.5 * 10**-decimals
    difference = abs(printed - expected)
    if difference <= half + FLOAT_SLACK:
        return []
    kind = ROUNDING if difference <= half + slack + FLOAT_SLACK else CONTRADICTION
    return [Finding(str(row), column, printed, expected, kind, reason)]


def check_average(table: pd.DataFrame, column: str, of: list[str], decimals: int = 2) -> list[Finding]:
    """Return the rows whose `column` is not the mean of their columns `of`."""
    half = 0.5 * 10**-decimals
    findings = []
    for row, values in table.iterrows():
        expected = values[of].astype(float).mean(skipna=False)
        findings += compare(row, column, values[column], expected, half, decimals, f"mean of the row's {len(of)} tasks")
    return findings


def check_chance_corrected(table: pd.DataFrame, column: str, chances: pd.Series, decimals: int = 2) -> list[Finding]:
    """Return the rows whose `column` is not the mean of their scores in the tasks of `chances`, corrected for these.

    Scores and chances are in percent.
    """
    slack = float((100 / (100 - chances)).mean()) * 0.5 * 10**-decimals
    reason = f"mean of the row's {len(chances)} tasks, corrected for chance"
    findings = []
    for row, values in table.iterrows():
        expected = chance_corrected(values[chances.index].astype(float), chances)
        findings += compare(row, column, values[column], expected, slack, decimals, reason)
    return findings


def check_share(
    table: pd.DataFrame, column: str, part: str, whole: str, decimals: int = 2, part_decimals: int = 2
) -> list[Finding]:
    """Return the rows whose `column` is not 100 * `part` / `whole`, two columns printed with `part_decimals` digits."""
    half = 0.5 * 10**-part_decimals
    findings = []
    for row, values in table.iterrows():
        numerator, denominator = values[part], values[whole]
        expected = 100 * numerator / denominator if denominator else math.nan
        slack = 100 * (half / denominator + numerator * half / denominator**2) if denominator else 0.0
        reason = f"{part} / {whole}, as printed"
        findings += compare(row, column, values[column], expected, slack, decimals, reason)
    return findings


def check_known(
    table: pd.DataFrame, column: str, known: pd.Series, reason: str, decimals: int = 2, tolerance: float = 0.0
) -> list[Finding]:
    """Return the rows whose `column` is not its `known` value, within `tolerance` times that value.

    `known` is indexed like the table; a row without a known value (NaN) is not checked.
    """
    findings = []
    for row, printed in table[column].items():
        expected = known[row]
        if math.isnan(expected) or abs(printed - expected) <= tolerance * abs(expected):
            continue
        findings += compare(row, column, printed, expected, 0.0, decimals, reason)
    return findings
