"""Stage report: metrics -> metrics/comparison.json, metrics/details/report.json, metrics/plots/*.csv, reports/."""

from pathlib import Path

import pandas as pd

from analysis.contrasts import ACCURACY, PERPLEXITY
from analysis.further import further_section
from analysis.outcomes import read_table
from analysis.page.run_data import run_data
from analysis.page.write import write_page
from analysis.params import Pruning, ReportParams, Window
from analysis.quality import plot_rows
from analysis.recovery import recovered_metric
from analysis.results import model_folders, read_chances, read_json
from analysis.rows import read_result
from analysis.run_page import run_page
from analysis.run_plots import draw_all
from analysis.run_report import RunReport
from stages.common.outputs import staged, write_details, write_metrics
from stages.common.params import ModelsParams, load_section, read_params_file
from stages.common.stage import run_stage

METRICS, OUTCOMES, TASKS, REPORTS = Path("metrics"), Path("metrics/outcomes"), Path("data/tasks"), Path("reports")


def read_file(path: str) -> bytes | None:
    """Return a file's content, None where it is missing."""
    return Path(path).read_bytes() if Path(path).is_file() else None


def read_run(models: dict[str, str]) -> RunReport:
    """Return what the other stages measured of the models in these folders."""
    return RunReport(
        params=load_section("report", ReportParams),
        pruning=load_section("prune", Pruning),
        evaluated_tokens=load_section("evaluate", Window).sequence_length,
        profiled_tokens=load_section("profile", Window).sequence_length,
        own_domain=read_json(METRICS / "details/data.json").get("own_domain"),
        dequantised_from=read_json(METRICS / "details/base.json").get("dequantised_from"),
        results={model: read_result(read_file, "", model, folder) for model, folder in models.items()},
        chances=read_chances(TASKS),
        counts=read_json(METRICS / "details/prune.json"),
        layers=read_table(METRICS / "prune_layers.csv"),
        losses={stage: read_table(METRICS / f"{stage}_loss.csv") for stage in ("base", "tune")},
        samples={model: read_json(OUTCOMES / model / "samples.json", list) or [] for model in models},
    )


def main() -> None:
    """Compare the models and write numbers, tables, figures and the page."""
    further = load_section("models", ModelsParams).folders
    report = read_run({model: str(folder) for model, folder in model_folders(further).items()})
    with staged(REPORTS / "plots") as folder:  # the earlier figures stay where no page can be made
        plots = draw_all(folder, report.evaluate, report.chances, report.layers, report.losses)
        page = run_page(report, plots, further_section(further, METRICS, folder))
    with staged(REPORTS / "run.md") as file:
        file.write_text(page, encoding="utf-8")
    write_page(REPORTS / "index.html", run_data(report, TASKS, read_params_file()))
    for name, metric, place in (("perplexity", PERPLEXITY, "set"), ("accuracy", ACCURACY, "task")):
        with staged(METRICS / "plots" / f"{name}.csv") as file:
            pd.DataFrame(plot_rows(report.runs, metric, place, name)).to_csv(file, index=False)
    recoveries, own_domain = report.comparison.recoveries, report.own_domain
    texts = [each.name for each in report.measures if each.metric == PERPLEXITY]
    write_metrics(METRICS / "comparison.json", recovered_metric(recoveries, texts, own_domain))
    context = {"models": list(report.results), "own_domain": own_domain, "confidence": report.params.confidence}
    write_details(METRICS / "details/report.json", context | report.metrics())


if __name__ == "__main__":
    run_stage("report", main)
