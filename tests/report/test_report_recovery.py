"""What recovery won back: on other domains first, and net of adaptation where the base was tuned alike."""

import shutil
import subprocess
import sys
from math import exp
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_pages import edit, read, section, table_rows

from analysis.recovery import other_domains_first, read_recovery, recovered_metric, recovered_sentence
from analysis.results import read_measured
from stages.report.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
EXAMS = {"base": 2.0, "pruned": 2.5, "tuned": 2.4}  # mean losses: a fifth is recovered


def add_exams(folder: Path, losses: dict[str, float]) -> None:
    """Measure the models on a second set, `exams`, of another domain than `pydocs`."""
    difficulty = np.random.default_rng(3).normal(0, 0.3, 200)
    for model, loss in losses.items():
        path = folder / f"metrics/outcomes/{model}/windows.parquet"
        rows = {"set": "exams", "window": range(200), "loss": loss + difficulty - difficulty.mean(), "tokens": 127}
        pd.concat([pd.read_parquet(path), pd.DataFrame(rows)]).to_parquet(path)
        edit(folder / f"metrics/evaluate/{model}.json", exams_ppl=exp(loss))


def add_control(folder: Path, gain: float) -> None:
    """Make the model `control`: the base, by `gain` nats better on every window of every set."""
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("models: {}", "models: {control: models/control}"))
    shutil.copytree(folder / "models/base", folder / "models/control")
    shutil.copytree(folder / "metrics/outcomes/base", folder / "metrics/outcomes/control")
    path = folder / "metrics/outcomes/control/windows.parquet"
    pd.read_parquet(path).assign(loss=lambda table: table["loss"] - gain).to_parquet(path)
    for kind in ("evaluate", "details/evaluate", "profile", "details/profile"):
        shutil.copy(folder / f"metrics/{kind}/base.json", folder / f"metrics/{kind}/control.json")
    measured = read(folder, "metrics/evaluate/base.json")
    better = {key: value / exp(gain) for key, value in measured.items() if key.endswith("_ppl")}
    edit(folder / "metrics/evaluate/control.json", **better)


@pytest.fixture
def page(run_folder):
    """A function that runs the stage and returns the page."""

    def run() -> str:
        main()
        return (run_folder / "reports/run.md").read_text()

    return run


def test_another_domain_comes_first_and_the_own_one_is_adaptation_too(run_folder, page):
    add_exams(run_folder, EXAMS)
    text = page()
    rows = [row for row in table_rows(section(text, "Differences")) if "recovery" in row[1]]
    assert [row[:2] for row in rows] == [["exams", "recovery"], ["pydocs", "recovery and adaptation to the text"]]
    assert rows[0][2:] == ["20.00", "20.00 to 20.00"]
    assert "net of adaptation" not in text
    first = (
        "Pruning changed the perplexity on exams from 7.39 to 12.18; recovery changed it to 11.02, winning back 20.0 %"
    )
    assert 0 < text.index(first) < text.index("Pruning changed the perplexity on pydocs from")
    assert read(run_folder, "metrics/comparison.json") == {"exams_recovered": pytest.approx(0.2)}


@pytest.mark.slow
def test_a_control_stands_in_every_table_and_recovery_is_net_of_its_gain(run_folder, page):
    add_exams(run_folder, EXAMS)
    add_control(run_folder, gain=0.05)
    text = page()
    for title in ("Quality", "Cost"):
        assert next(row for row in table_rows(section(text, title)) if row[0] == "control"), title
    quality = next(row for row in table_rows(section(text, "Quality")) if row[0] == "control")
    assert quality[1:4] == ["0 % (tuned)", "-", f"{exp(1.95):.2f}"]
    ratios = [row for row in table_rows(section(text, "Differences")) if row[0] == "control against base"]
    assert {row[1]: row[2] for row in ratios if row[1] in ("exams", "pydocs")} == {
        "exams": "0.9512",
        "pydocs": "0.9512",
    }
    rows = {row[0]: row for row in table_rows(section(text, "Differences")) if "recovery" in row[1]}
    # 1 - (2.4 - 1.95) / (2.5 - 2.0)
    assert rows["exams"][2:] == ["20.00", "20.00 to 20.00", "10.00", "10.00 to 10.00"]
    assert "- control: `" in section(text, "Samples") and "Further models" not in text
    assert "None differs from its source" in text
    shown = subprocess.run(
        [sys.executable, "-m", "stages.report.show"],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.splitlines()[0].split() == ["base", "pruned", "tuned", "control"]
    sentence = (
        "recovery won back 20.0 % (95 % interval 20.0 to 20.0) of the log-perplexity that pruning lost on exams\n"
    )
    assert sentence in shown


def test_where_there_is_no_other_domain_the_sentence_says_adaptation(run_folder, page):
    text = page()
    measured = [read_measured(run_folder / "metrics", "evaluate", model)["pydocs_ppl"] for model in EXAMS]
    lost, left = (np.log(ppl / measured[0]) for ppl in measured[1:])
    report = read(run_folder, "metrics/details/report.json")
    share = f"{100 * (1 - left / lost):.1f} % (95 % interval "
    assert recovered_sentence(report, ["pydocs"]).startswith(f"recovery and adaptation to the text won back {share}")
    assert f"recovery and adaptation to the text changed it to {measured[2]:,.2f}, winning back {share}" in text


def test_nothing_lost_has_no_share_in_metric_or_words():
    assert other_domains_first(["b", "a", "c"], "a") == ["b", "c", "a"]
    assert other_domains_first(["b", "a"], None) == ["a", "b"]
    lost_on_own = {"tuned_a_log_ppl_recovered": 0.5, "confidence": 0.95, "own_domain": "a"}
    recoveries = [read_recovery(lost_on_own, "a")]
    assert recovered_metric(recoveries, ["a", "b"], "a") == {} and read_recovery(lost_on_own, "b") is None
    assert recovered_sentence(lost_on_own, ["a", "b"]) == ""
    assert recovered_metric(recoveries, ["a"], "a") == {"a_recovered": 0.5}
    assert recovered_metric([], [], None) == {}


def test_a_dequantised_base_is_named_first(run_folder, page):
    first = "- The base's weights were dequantised from Q4_1: not the original model.\n"
    assert first not in page()
    (run_folder / "metrics/details/base.json").write_text('{"dequantised_from": "Q4_1"}')
    assert f"\n\n{first}" in page()
