"""The stage as it is run: what it writes, what it says is missing, and that it repeats itself to the byte."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from report_pages import edit, read, section, table_rows

from analysis.results import MODELS, PAIRS, read_by_model, read_chances
from analysis.run_plots import draw_all
from analysis.samples import inline_code
from stages.common.errors import UserError
from stages.report.__main__ import main
from stages.report.show import compare

ROOT = Path(__file__).resolve().parents[2]
PLOTS = ("accuracy", "layers", "loss", "perplexity")


@pytest.mark.slow
def test_tables_hold_the_numbers_of_the_metrics(run_folder):
    main()
    page = (run_folder / "reports/run.md").read_text()
    comparison = read(run_folder, "metrics/details/report.json")
    rows = {row[0]: row for row in table_rows(section(page, "Quality").split("acc_norm")[0])}
    costs = {row[0]: row for row in table_rows(section(page, "Cost"))}
    evaluates, profiles = (read_by_model(Path("metrics"), stage) for stage in ("evaluate", "profile"))
    parameters = profiles["base"]["parameters"]
    for model in MODELS:
        evaluate, profile = evaluates[model], profiles[model]
        assert rows[model][3] == f"{evaluate['pydocs_ppl']:.2f}"
        for task, cell in zip(("continuation", "gap", "object"), rows[model][4:7], strict=True):
            assert cell.startswith(f"{100 * evaluate[f'{task}_acc']:.2f} ± {100 * evaluate[f'{task}_acc_stderr']:.2f}")
        average = sum(evaluate[f"{task}_acc"] for task in ("continuation", "gap", "object")) / 3
        assert rows[model][7] == f"{100 * average:.2f}"
        assert rows[model][8] == f"{100 * comparison[f'{model}_average_acc_chance_corrected']:.2f}"
        assert costs[model][1:3] == [f"{profile['parameters']:,}", f"{100 * profile['parameters'] / parameters:.2f}"]
        assert costs[model][3] == f"{profile['gmacs']:.4f}"
    assert rows["pruned"][1:3] == ["50 %", "taylor"]
    assert rows["guessing"][4:] == ["25.00", "50.00", "25.00", "33.33", "0.00"]
    assert rows["majority answer"][4:] == ["-", "65.00", "-", "-", "-"] and "Majority answer: always" in page
    assert "None differs from its source" in section(page, "Checks")
    assert "Not measured" not in page
    assert comparison["table_contradictions"] == 0


def test_marks_follow_the_adjusted_tests(run_folder):
    main()
    page = (run_folder / "reports/run.md").read_text()
    comparison = read(run_folder, "metrics/details/report.json")
    quality = {row[0]: row for row in table_rows(section(page, "Quality").split("acc_norm")[0])}
    tests = {(row[0], row[1]): row for row in table_rows(section(page, "Differences"))}
    for reference, model in PAIRS[:3]:
        name = model if reference == "base" else f"{model}_vs_{reference}"
        for column, task in enumerate(("continuation", "gap", "object"), start=4):
            apart = comparison[f"{name}_{task}_mcnemar_p_holm"] < 0.05
            mark = "†" if name == "tuned_vs_pruned" else "*"
            assert (mark in quality[model][column]) == apart
            row = tests[f"{model} against {reference}", task]
            assert row[2] == f"{100 * comparison[f'{name}_{task}_acc_difference']:+.2f}"
            assert row[-1] == ("yes" if apart else "no")
    assert {row[-1] for row in tests.values()} >= {"yes", "no"}


@pytest.mark.slow
def test_everything_is_written_and_repeats_to_the_byte(run_folder, figures):
    def written() -> dict[str, bytes]:
        files = [*run_folder.glob("reports/**/*"), *run_folder.glob("metrics/plots/*")]
        files += [run_folder / "metrics/comparison.json", run_folder / "metrics/details/report.json"]
        return {str(path.relative_to(run_folder)): path.read_bytes() for path in files if path.is_file()}

    main()
    first = written()
    assert set(first) == {
        "metrics/comparison.json",
        "metrics/details/report.json",
        "metrics/plots/accuracy.csv",
        "metrics/plots/perplexity.csv",
        "reports/index.html",
        "reports/run.md",
        *(f"reports/plots/{name}.png" for name in PLOTS),
    }
    for name in PLOTS:
        image = first[f"reports/plots/{name}.png"]
        assert image.startswith(b"\x89PNG") and b"tEXt" not in image and b"tIME" not in image
        assert f"plots/{name}.png".encode() in first["reports/run.md"]
    main()
    assert written() == first


@pytest.mark.slow
def test_a_base_that_was_not_trained_here_has_no_curve(run_folder, figures):
    """base.source: hub, path and shape write a table without rows."""
    (run_folder / "metrics/base_loss.csv").write_text("step,split,loss\n")
    main()
    assert (run_folder / "reports/plots/loss.png").is_file()
    page = (run_folder / "reports/run.md").read_text()
    assert "loss curve" not in page.split("Not measured")[-1]


@pytest.mark.slow
def test_a_training_too_short_for_a_mean_has_the_validations_curve(run_folder, figures):
    (run_folder / "metrics/base_loss.csv").write_text("step,split,loss\n0,validation,5.5\n8,validation,5.1\n")
    main()
    assert (run_folder / "reports/plots/loss.png").is_file()


def test_plots_of_models_that_do_not_differ(tmp_path):
    """What pruning with ratio 0 gives."""
    evaluate = {model: {"text_ppl": 7.5, "a_acc": 1.0, "a_acc_stderr": 0.0} for model in MODELS}
    assert draw_all(tmp_path, evaluate, {}, None, {"base": None, "tune": None}) == ["perplexity", "accuracy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.png", "perplexity.png"]


def test_plot_tables_are_long(run_folder):
    main()
    accuracy = pd.read_csv(run_folder / "metrics/plots/accuracy.csv")
    assert list(accuracy) == ["model", "task", "label", "accuracy"] and len(accuracy) == 9
    perplexity = pd.read_csv(run_folder / "metrics/plots/perplexity.csv")
    assert list(perplexity) == ["model", "set", "label", "perplexity"]
    assert list(perplexity["model"]) == list(MODELS)


def test_what_is_missing_is_said_and_never_zero(run_folder):
    edit(run_folder / "metrics/evaluate/tuned.json", gap_acc=None)
    edit(run_folder / "metrics/profile/pruned.json", peak_memory_mib=None)
    (run_folder / "metrics/details/profile/tuned.json").unlink()
    (run_folder / "data/tasks/object.yaml").write_text("task: object\n")
    (run_folder / "metrics/outcomes/base/samples.json").unlink()
    main()
    page = (run_folder / "reports/run.md").read_text()
    absent = section(page, "Not measured")
    for line in (
        "tuned: gap_acc (stage evaluate@tuned)",
        "pruned: peak_memory_mib (stage profile@pruned)",
        "tuned: all of stage profile@tuned",
        "what guessing scores in object",
        "base: metrics/outcomes/base/samples.json",
    ):
        assert f"- {line}\n" in absent + "\n"
    rows = {row[0]: row for row in table_rows(section(page, "Quality").split("acc_norm")[0])}
    assert rows["tuned"][5].startswith("-") and rows["tuned"][7:] == ["-", "-"]
    assert rows["guessing"][6:] == ["-", "-", "-"]
    costs = {row[0]: row for row in table_rows(section(page, "Cost"))}
    assert set(costs["tuned"][1:]) == {"-"} and costs["pruned"][7:9] == ["-", "-"]
    assert "nan" not in page
    comparison = read(run_folder, "metrics/details/report.json")
    assert "tuned_average_acc" not in comparison and "base_average_acc" in comparison
    assert "base_average_acc_chance_corrected" not in comparison


def test_nothing_measured_is_a_report_that_says_so(tmp_path, run_folder, figures, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "params.yaml").write_text((run_folder / "params.yaml").read_text())
    monkeypatch.chdir(empty)
    main()
    page = (empty / "reports/run.md").read_text()
    for model in MODELS:
        assert f"- {model}: all of stage evaluate@{model}\n" in page
    assert "- loss curve: metrics/base_loss.csv" in page and "nan" not in page and ".png" not in page
    assert read(empty, "metrics/details/report.json")["table_contradictions"] == 0
    assert read(empty, "metrics/comparison.json") == {}


def test_broken_input_keeps_the_earlier_report(run_folder):
    main()
    page = (run_folder / "reports/run.md").read_bytes()
    (run_folder / "metrics/evaluate/base.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics/evaluate/base.json is not valid JSON"):
        main()
    assert (run_folder / "reports/run.md").read_bytes() == page


def test_params_are_checked(run_folder):
    params = run_folder / "params.yaml"
    params.write_text(params.read_text().replace("confidence: 0.95", "confidence: 1.5"))
    with pytest.raises(UserError, match=r"report.confidence = 1.5 is not allowed"):
        main()


@pytest.mark.slow
def test_show_prints_the_comparison(run_folder):
    main()
    evaluate, profile = (read_by_model(Path("metrics"), stage) for stage in ("evaluate", "profile"))
    text = subprocess.run(
        [sys.executable, "-m", "stages.report.show"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert compare(evaluate, profile) in text
    cells = [f"{100 * evaluate[model]['gap_acc']:.1f}" for model in MODELS]
    assert next(line.split()[-3:] for line in text.splitlines() if line.startswith("gap")) == cells
    assert f"{evaluate['tuned']['pydocs_ppl']:.2f}" in text and "767,104" in text
    assert "prune" in text and "2.5" in text and "reports/run.md" in text


def test_show_says_what_is_missing():
    assert "-" in compare({"base": {"text_ppl": 3.0}, "pruned": {}, "tuned": {}}, {}).splitlines()[-1].split()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("__main__", {"torch", "transformers"}), ("show", {"torch", "pandas", "matplotlib", "scipy"})],
)
@pytest.mark.slow
def test_start_up_is_light(module, unwanted):
    code = f"import sys, stages.report.{module}; print(sorted({unwanted!r} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_chances_survive_code_tags(run_folder):
    assert read_chances(run_folder / "data/tasks") == {"continuation": 0.25, "gap": 0.5, "object": 0.25}


def test_samples_cannot_break_the_page(run_folder):
    assert inline_code("a ``b``\n\nc") == "``` a ``b`` ↵2 c ```"
    main()
    page = (run_folder / "reports/run.md").read_text()
    assert "\n- tuned: ```` items, ↵ says tuned ↵ ~~~ ↵ ``` ````\n" in section(page, "Samples") + "\n"
