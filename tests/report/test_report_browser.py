"""A run's page in a real browser: its numbers are the metrics files', and what comes from data stays text."""

import json

import pandas as pd
import pytest
import yaml
from browser import choose, click, open_page, texts
from report_pages import edit, read

from stages.report.__main__ import main

pytestmark = pytest.mark.slow

ALERT = "<script>alert(1)</script>"


@pytest.fixture
def page(run_folder):
    """The page of the made run, whose prompts, continuations and questions hold markup."""
    for model in ("base", "pruned", "tuned"):
        samples = [{"prompt": f"Say {ALERT}", "continuation": f"{ALERT} by {model} <b>bold</b> &amp;"}]
        (run_folder / f"metrics/outcomes/{model}/samples.json").write_text(json.dumps(samples))
    documents = [
        {"context": f"{ALERT} {i}", "choices": [f"a {ALERT}", "</script><h1>b", "c"], "label": 1} for i in range(600)
    ]
    pd.DataFrame(documents).to_parquet(run_folder / "data/tasks/gap.parquet")
    task = yaml.safe_load((run_folder / "data/tasks/gap.yaml").read_text().replace("!function code.text", "context"))
    task |= {"doc_to_choice": "choices", "doc_to_target": "label", "test_split": "test"}
    task["dataset_kwargs"] = {"data_files": {"test": "data/tasks/gap.parquet"}}
    (run_folder / "data/tasks/gap.yaml").write_text(yaml.safe_dump(task))
    edit(run_folder / "metrics/details/data.json", own_domain="pydocs")
    (run_folder / "data/sources.json").write_text(json.dumps([{"name": ALERT, "revision": "1", "sha256": "0"}]))
    main()
    return run_folder / "reports/index.html"


def test_the_page_shows_the_metrics_and_runs_nothing_from_data(page, chromium, run_folder):
    first = page.read_bytes()
    main()
    assert page.read_bytes() == first
    assert ALERT.encode() not in first and len(first) < 5_000_000

    open_page(chromium, page)
    assert chromium.execute_script("return document.querySelectorAll('main script, main h1').length") == 1
    shown = dict(zip(texts(chromium, "tr.variant th.name, tr.base th.name"), range(3), strict=True))
    assert list(shown) == ["base", "pruned", "tuned"]
    for model, row in shown.items():
        metrics = read(run_folder, f"metrics/evaluate/{model}.json")
        cells = {
            key: texts(chromium, f"tr[data-variant='{row}'] td[data-key='{key}']")[0] for key in ("pydocs_ppl", "gap")
        }
        assert cells["pydocs_ppl"].split()[0] == f"{metrics['pydocs_ppl']:,.2f}"
        assert cells["gap"].split()[0] == f"{100 * metrics['gap_acc']:.2f}"
        assert ("*" in cells["pydocs_ppl"]) == (model != "base")
    assert texts(chromium, "tr.guess th.name") == ["guessing", "majority answer"]
    assert texts(chromium, "#stages tbody tr")[0].startswith("prune2.5700")
    assert any(ALERT in text for text in texts(chromium, "#samples .written"))


def test_flipped_questions_are_those_that_the_outcomes_say(page, chromium, run_folder):
    outcomes = {
        model: pd.read_parquet(run_folder / f"metrics/outcomes/{model}/questions.parquet").query("task == 'gap'")
        for model in ("base", "tuned")
    }
    right = {model: table.set_index("question")["acc"] for model, table in outcomes.items()}
    expected = [number for number in right["base"].index if right["base"][number] == 1 and right["tuned"][number] == 0]
    open_page(chromium, page)
    choose(chromium, "models", "base to tuned", "#flips")
    choose(chromium, "task", "gap", "#flips")
    assert texts(chromium, "#flips [role=status]") == [f"{len(expected)} questions"]
    assert texts(chromium, "#flips .prompt") == [f"{ALERT} {number}" for number in expected[:15]]
    assert texts(chromium, "#flips li.right")[:1] == ["</script><h1>b"]
    choose(chromium, "answers", "wrong before, right after", "#flips")
    won = [number for number in right["base"].index if right["base"][number] == 0 and right["tuned"][number] == 1]
    assert texts(chromium, "#flips [role=status]") == [f"{len(won)} questions"]


def test_two_models_side_by_side_show_the_tests_of_the_report(page, chromium, run_folder):
    found = read(run_folder, "metrics/details/report.json")
    open_page(chromium, page)
    choose(chromium, "A, the reference", "pruned", "#compare")
    choose(chromium, "B", "tuned", "#compare")
    rows = {row[0]: row[1:] for row in cells(chromium, "#comparison table")}
    key = "tuned_vs_pruned_gap"
    assert rows["gap (%)"][2] == f"{100 * found[f'{key}_acc_difference']:+.2f} points"
    assert rows["gap (%)"][3] == f"{found[f'{key}_lost']} lost, {found[f'{key}_won']} won"
    assert rows["gap (%)"][5] == ("yes" if found[f"{key}_mcnemar_p_holm"] < 0.05 else "no")
    ratio = "tuned_vs_pruned_pydocs_ppl_ratio"
    assert rows["pydocs perplexity"][2:4] == [
        f"\N{MULTIPLICATION SIGN} {found[ratio]:.4f}",
        f"{found[f'{ratio}_low']:.4f} to {found[f'{ratio}_high']:.4f}",
    ]
    # Turned round, the same test has the other sign.
    click(chromium, "#compare .bar button")
    turned = {row[0]: row[1:] for row in cells(chromium, "#comparison table")}
    assert turned["gap (%)"][2] == f"{-100 * found[f'{key}_acc_difference']:+.2f} points"
    assert turned["pydocs perplexity"][2] == f"\N{MULTIPLICATION SIGN} {1 / found[ratio]:.4f}"


def cells(driver, selector: str) -> list[list[str]]:
    """Return the texts of a table's body."""
    script = """return [...document.querySelector(arguments[0]).tBodies[0].rows]
        .map((row) => [...row.cells].map((cell) => cell.textContent))"""
    return driver.execute_script(script, selector)
