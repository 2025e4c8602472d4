"""Stage report: metrics -> metrics/comparison.json, metrics/details/report.json, metrics/plots/*.csv, reports/."""

from pathlib import Path

import pandas as pd

from analysis.arithmetic import shape_of, stored_mib
from analysis.audit import CONTRADICTION
from analysis.averages import baseline_table, majority_shares
from analysis.checks import check_accuracies, check_costs, check_quality, check_sizes, check_weights
from analysis.comparison import compare
from analysis.further import further_section
from analysis.outcomes import accuracy_rows, perplexity_rows, read_outcomes, read_table
from analysis.params import Pruning, ReportParams, Window
from analysis.recovery import recovered_metric
from analysis.results import model_folders, perplexity_sets, read_by_model, read_chances, read_json, task_names
from analysis.run_page import Study, study_report
from analysis.run_plots import draw_all
from analysis.tables import cost_table, norm_table, quality_table, size_table
from stages.common.outputs import staged, write_details, write_metrics
from stages.common.params import ModelsParams, load_section
from stages.common.stage import run_stage

METRICS, OUTCOMES, TASKS, REPORTS = Path("metrics"), Path("metrics/outcomes"), Path("data/tasks"), Path("reports")


def main() -> None:
    """Compare the models and tell it: numbers, tables, figures."""
    params, pruning = load_section("report", ReportParams), load_section("prune", Pruning)
    windows_of = {stage: load_section(stage, Window).sequence_length for stage in ("evaluate", "profile")}
    further = load_section("models", ModelsParams).folders
    folders = model_folders(further)
    evaluate, profile = (read_by_model(METRICS, stage, folders) for stage in ("evaluate", "profile"))
    questions, windows = (read_outcomes(OUTCOMES, f"{name}.parquet", folders) for name in ("questions", "windows"))
    own_domain = read_json(METRICS / "details/data.json").get("own_domain")
    chances = read_chances(TASKS)
    layers = read_table(METRICS / "prune_layers.csv")
    losses = {stage: read_table(METRICS / f"{stage}_loss.csv") for stage in ("base", "tune")}
    configs = {model: read_json(folder / "config.json") for model, folder in folders.items()}

    comparison = compare(evaluate, chances, questions, windows, params)
    quality, norms, costs = quality_table(evaluate, comparison), norm_table(evaluate), cost_table(profile)
    sizes = size_table(read_json(METRICS / "details/prune.json"))
    answers, losses_of = ({model: [frame] for model, frame in each.items()} for each in (questions, windows))
    shapes = {model: [shape_of(config)] for model, config in configs.items() if config}
    stored = {model: [stored_mib(config)] for model, config in configs.items() if config}
    on_cuda = {model for model in folders if profile[model].get("memory_on_cuda")}
    findings = check_quality(quality, task_names(evaluate), chances, answers, losses_of)
    findings += check_accuracies(norms, answers, "acc_norm") + check_weights(costs, stored, on_cuda)
    findings += check_costs(costs, shapes, windows_of["profile"]) + check_sizes(sizes, shapes)
    findings = [finding for finding in findings if finding.kind == CONTRADICTION]
    comparison["table_contradictions"] = len(findings)

    with staged(REPORTS / "plots") as folder:
        plots = draw_all(folder, evaluate, chances, layers, losses)
        beside = further_section(further, METRICS, folder)
    study = Study(
        pruning=pruning,
        level=round(1 - params.confidence, 10),
        evaluated_tokens=windows_of["evaluate"],
        profiled_tokens=windows_of["profile"],
        own_domain=own_domain,
        dequantised_from=read_json(METRICS / "details/base.json").get("dequantised_from"),
        evaluate=evaluate,
        profile=profile,
        comparison=comparison,
        chances=chances,
        baselines=baseline_table(task_names(evaluate), chances, majority_shares(questions)),
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
        file.write_text(study_report(study), encoding="utf-8")
    for name, rows in (("perplexity", perplexity_rows(evaluate)), ("accuracy", accuracy_rows(evaluate))):
        with staged(METRICS / "plots" / f"{name}.csv") as file:
            pd.DataFrame(rows).to_csv(file, index=False)
    write_metrics(METRICS / "comparison.json", recovered_metric(comparison, perplexity_sets(evaluate), own_domain))
    told = {"models": list(folders), "own_domain": own_domain, "confidence": params.confidence}
    write_details(METRICS / "details/report.json", told | comparison)


if __name__ == "__main__":
    run_stage("report", main)
