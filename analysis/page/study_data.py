"""The data of a study's page."""

from dataclasses import dataclass
from typing import Any

from scipy.stats import norm

from analysis.page.contrasts import contrasts
from analysis.page.run_data import flat
from analysis.page.study_answer import study_answer
from analysis.page.variants import baselines, measures, variant
from analysis.results import perplexity_sets, task_names
from analysis.study_report import StudyReport
from analysis.study_tables import base_row


@dataclass(frozen=True)
class Origin:
    """Where a variant comes from."""

    experiment: str
    params: dict[str, Any]  # the whole params.yaml that it ran with
    commands: dict[str, str]  # what reproduces, applies and exports it, by what each does
    samples: dict[str, list[dict[str, str]]]  # by model


def study_data(
    report: StudyReport,
    origins: dict[str, Origin],
    running: dict[str, str] | None = None,
    failed: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return all that the page of a study shows.

    `origins` are by experiment; `running` variants have the stage that runs, `failed` ones the reason, by label.
    """
    base, rows, chances = report.base, report.rows, report.chances
    everything = [base_row(base), *rows]
    evaluate = {"base": base.evaluate}
    sets, tasks, shown = perplexity_sets(evaluate), task_names(evaluate), measures(base, everything)
    common, own = split_params([origins[row.runs[0].run].params for row in everything if row.runs[0].run in origins])
    variants = []
    for number, row in enumerate(everything):
        each = variant(number, row, chances, tasks, shown)
        origin = origins.get(row.runs[0].run)
        if origin:
            each |= {"experiment": origin.experiment, "commands": origin.commands, "params": own.pop(0)}
            if number == 0:
                each["params"] = {}  # what its experiment says of pruning, it did not do
            each["samples"] = origin.samples.get(row.model, [])
        variants.append(each)
    return {
        "kind": "study",
        "title": report.name,
        "answer": study_answer(base, rows, report.params),
        "confidence": report.params.confidence,
        "z": float(norm.ppf((1 + report.params.confidence) / 2)),
        "measures": shown,
        "sets": sets,
        "tasks": tasks,
        "variants": variants,
        "baselines": baselines(base, tasks, chances),
        "contrasts": contrasts(everything, [row.label for row in everything], report.contrasts, report.params),
        "params": common,
        "status": {"missing": report.missing, "running": running or {}, "failed": failed or {}},
    }


def split_params(params: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what all have in common, by dotted key, and what each has of its own."""
    flattened = [flat(each) for each in params]
    first = flattened[0] if flattened else {}
    common = {
        key: value for key, value in first.items() if all(key in each and each[key] == value for each in flattened)
    }
    return common, [{key: value for key, value in each.items() if key not in common} for each in flattened]
