"""The data of a run's page."""

from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import norm

from analysis.page.contrasts import contrasts
from analysis.page.questions import flipped
from analysis.page.run_answer import run_answer
from analysis.page.variants import baselines, measures, variant
from analysis.results import CONTROL, perplexity_sets, read_json, task_names
from analysis.rows import Row
from analysis.run_report import RunReport

POINTS = 600  # of a training curve on the page
RUNTIME, SOURCES = Path("metrics/runtime"), Path("data/sources.json")
STAGES = ("check", "data", "base", "prune", "tune", "control", "export", "evaluate", "profile")


def run_data(report: RunReport, folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return all that the page of a run shows: the base, and every other model as a variant of it.

    `folder` holds the tasks, `values` is the whole params.yaml.
    """
    results, chances, pruning, params = report.results, report.chances, report.pruning, report.params
    base = results["base"]
    ratios = {model: 0.0 if model in ("base", CONTROL) else pruning.ratio for model in results}
    rows = [Row(model, ratios[model], model, [result], base) for model, result in results.items()]
    evaluate = report.evaluate
    sets, tasks, shown = perplexity_sets(evaluate), task_names(evaluate), measures(base, rows)
    variants = [
        variant(number, row, chances, tasks, shown) | {"label": row.model, "line": row.model}
        for number, row in enumerate(rows)
    ]
    for each, model in zip(variants, results, strict=True):
        each["samples"] = report.samples.get(model, [])
    questions = {model: result.questions for model, result in results.items() if len(result.questions)}
    return {
        "kind": "run",
        "title": f"{pruning.method}, {pruning.goal}",
        "answer": run_answer(report),
        "confidence": params.confidence,
        "z": float(norm.ppf((1 + params.confidence) / 2)),
        "measures": shown,
        "sets": sets,
        "tasks": tasks,
        "variants": variants,
        "baselines": baselines(base, tasks, chances),
        "contrasts": contrasts(rows, list(results), report.comparison.accuracies, params),
        "flips": flipped(questions, folder),
        "curves": {stage: curve(table) for stage, table in report.losses.items() if table is not None and len(table)},
        "stages": stage_costs(),
        "sources": read_json(SOURCES, list) or [],
        "params": flat(values),
    }


def curve(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a loss curve, the training loss as means of so many steps that a page can draw it."""
    train = table[table["split"] == "train"]
    every = -(-len(train) // POINTS) or 1
    groups = [train.iloc[start : start + every] for start in range(0, len(train), every)]
    rows = [
        {"step": int(each["step"].iloc[-1]), "split": "train", "loss": float(each["loss"].mean())} for each in groups
    ]
    others = table[table["split"] != "train"]
    return rows + [
        {"step": int(row["step"]), "split": str(row["split"]), "loss": float(row["loss"])}
        for row in others.to_dict("records")
    ]


def stage_costs() -> list[dict[str, Any]]:
    """Return wall time and peak memory of the stages that have run on this machine, in the pipeline's order."""
    costs = {path.stem: read_json(path) for path in RUNTIME.glob("*.json") if path.stem.split("-")[0] in STAGES}
    order = sorted(costs, key=lambda name: (STAGES.index(name.split("-")[0]), name))
    return [{"stage": name.replace("-", "@", 1), **costs[name]} for name in order]


def flat(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested params by their dotted keys."""
    result: dict[str, Any] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        result |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return result
