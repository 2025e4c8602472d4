"""Stage report: metrics -> metrics/comparison.json, metrics/details/report.json, metrics/plots/*.csv, reports/."""

from pathlib import Path

import pandas as pd

from analysis.checks import contradictions
from analysis.comparison import average_accuracies, compare
from analysis.further import further_section
from analysis.outcomes import accuracy_rows, perplexity_rows, read_table
from analysis.params import Pruning, ReportParams, Window
from analysis.quality import norm_numbers, quality_numbers
from analysis.recovery import recovered_metric
from analysis.results import model_folders, perplexity_sets, read_chances, read_json
from analysis.rows import read_result
from analysis.run_page import RunReport, run_page
from analysis.run_plots import draw_all
from analysis.tables import cost_numbers, size_table
from stages.common.outputs import staged, write_details, write_metrics
from stages.common.params import ModelsParams, load_section
from stages.common.stage import run_stage

METRICS, OUTCOMES, TASKS, REPORTS = Path("metrics"), Path("metrics/outcomes"), Path("data/tasks"), Path("reports")


def read_file(path: str) -> bytes | None:
    """Return a file's content, None where it is missing."""
    return Path(path).read_bytes() if Path(path).is_file() else None


def main() -> None:
    """Compare the models and write numbers, tables, figures and the page."""
    params, pruning = load_section("report", ReportParams), load_section("prune", Pruning)
    windows_of = {stage: load_section(stage, Window).sequence_length for stage in ("evaluate", "profile")}
    further = load_section("models", ModelsParams).folders
    folders = model_folders(further)
    results = {model: read_result(read_file, "", model, str(folder)) for model, folder in folders.items()}
    evaluate = {model: result.evaluate for model, result in results.items()}
    own_domain = read_json(METRICS / "details/data.json").get("own_domain")
    chances = read_chances(TASKS)
    layers = read_table(METRICS / "prune_layers.csv")
    losses = {stage: read_table(METRICS / f"{stage}_loss.csv") for stage in ("base", "tune")}

    runs = {model: [result] for model, result in results.items()}
    comparison = compare(runs, chances, own_domain, params)
    quality, norms, costs = quality_numbers(runs, chances), norm_numbers(runs), cost_numbers(runs)
    sizes = size_table(read_json(METRICS / "details/prune.json"))
    findings = contradictions(runs, quality, costs, chances, windows_of["profile"], norms, sizes)

    with staged(REPORTS / "plots") as folder:
        plots = draw_all(folder, evaluate, chances, layers, losses)
        beside = further_section(further, METRICS, folder)
    report = RunReport(
        pruning=pruning,
        level=params.level,
        evaluated_tokens=windows_of["evaluate"],
        profiled_tokens=windows_of["profile"],
        own_domain=own_domain,
        dequantised_from=read_json(METRICS / "details/base.json").get("dequantised_from"),
        results=results,
        comparison=comparison,
        chances=chances,
        losses=losses,
        layers=layers,
        samples={model: read_json(OUTCOMES / model / "samples.json", list) or [] for model in folders},
        quality=quality,
        norms=norms,
        costs=costs,
        sizes=sizes,
        findings=findings,
        further=beside,
        plots=plots,
    )
    with staged(REPORTS / "study.md") as file:
        file.write_text(run_page(report), encoding="utf-8")
    for name, rows in (("perplexity", perplexity_rows(evaluate)), ("accuracy", accuracy_rows(evaluate))):
        with staged(METRICS / "plots" / f"{name}.csv") as file:
            pd.DataFrame(rows).to_csv(file, index=False)
    write_metrics(
        METRICS / "comparison.json", recovered_metric(comparison.recoveries, perplexity_sets(evaluate), own_domain)
    )
    context = {"models": list(folders), "own_domain": own_domain, "confidence": params.confidence}
    found = average_accuracies(evaluate, chances) | comparison.metrics() | {"table_contradictions": len(findings)}
    write_details(METRICS / "details/report.json", context | found)


if __name__ == "__main__":
    run_stage("report", main)
