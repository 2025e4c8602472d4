"""python -m stages.report.show: print base, pruned and tuned side by side, the stages' costs, where the report is."""

from pathlib import Path

from tabulate import tabulate

from analysis.recovery import recovered_sentence
from analysis.results import MODELS, Metrics, is_sparse, perplexity_sets, read_by_model, read_json, task_names
from stages.common.stage import run

METRICS, REPORT = Path("metrics"), Path("reports/run.md")
MISSING = "-"


def compare(evaluate: dict[str, Metrics], profile: dict[str, Metrics]) -> str:
    """Return the table: a line per quantity, a column per model."""
    lines, models = [], list(dict.fromkeys([*MODELS, *evaluate]))

    def line(title: str, metrics: dict[str, Metrics], key: str, form: str, scale: float = 1) -> None:
        values = [metrics.get(model, {}).get(key) for model in models]
        if any(value is not None for value in values):
            lines.append([title, *(MISSING if value is None else format(scale * value, form) for value in values)])

    for name in perplexity_sets(evaluate):
        line(f"{name}, perplexity", evaluate, f"{name}_ppl", ",.2f")
    for task in task_names(evaluate):
        line(f"{task}, accuracy (%)", evaluate, f"{task}_acc", ".1f", 100)
    line("average accuracy (%)", evaluate, "average_acc", ".1f", 100)
    line("parameters", profile, "parameters", ",")
    if any(map(is_sparse, profile.values())):
        line("nonzero parameters", profile, "parameters_nonzero", ",")
    line("GMac", profile, "gmacs", ".4f")
    line("weights (MiB)", profile, "weights_mib", ".2f")
    line("prefill (tokens/s)", profile, "prefill_tokens_per_second", ",.0f")
    line("decode (tokens/s)", profile, "decode_tokens_per_second", ",.0f")
    return tabulate(lines, ["", *models], colalign=["left", *["right"] * len(models)], disable_numparse=True)


def stage_costs(folder: Path) -> str:
    """Return wall time and peak memory of every stage that has run here, nothing if none has."""
    paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)  # in the order they ran
    costs = {path.stem: read_json(path) for path in paths}
    lines = [[name, f"{cost['wall_seconds']:.1f}", f"{cost['peak_resident_mib']:.0f}"] for name, cost in costs.items()]
    headings = ["stage", "seconds", "peak memory (MiB)"]
    return tabulate(lines, headings, colalign=["left", "right", "right"], disable_numparse=True) if lines else ""


def main() -> None:
    """Print the comparison."""
    report = read_json(METRICS / "details/report.json")
    models = report.get("models", MODELS)
    evaluate, profile = (read_by_model(METRICS, stage, models) for stage in ("evaluate", "profile"))
    sentence, costs = recovered_sentence(report, perplexity_sets(evaluate)), stage_costs(METRICS / "runtime")
    print("\n\n".join(part for part in (compare(evaluate, profile), sentence, costs, f"report: {REPORT}") if part))


if __name__ == "__main__":
    run("show", main)
