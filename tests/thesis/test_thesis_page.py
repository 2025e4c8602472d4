"""The page that puts the thesis's values, the same recomputed, and ours side by side."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT

from thesis.__main__ import main
from thesis.page import Ours, against_majority, by_arithmetic, thesis_report
from thesis.printed import TASKS, read_quality, read_tasks


def rows(page: str, title: str) -> list[list[str]]:
    """Return the cells of the table in section `title`, the first column filled where it repeats."""
    section = page.split(f"## {title}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for above, row in itertools.pairwise(table):
        row[0] = row[0] or above[0]
    return table


def line(page: str, title: str, name: str, source: str) -> list[str]:
    (cells,) = [row[2:] for row in rows(page, title) if row[:2] == [name, source]]
    return cells


def measured(**scores: float) -> pd.DataFrame:
    return pd.DataFrame([dict.fromkeys(TASKS, 40.0) | scores], index=["taylor 0.3"])


def test_printed_stands_beside_recomputed():
    page = thesis_report()
    assert line(page, "Tables 2, 4, 5, 6", "base", "printed")[-3:] == ["39.58", "44.42", "15.44"]
    assert line(page, "Tables 2, 4, 5, 6", "majority answer", "")[2] == "62.17"
    assert line(page, "Tables 2, 4, 5, 6", "guessing", "")[-2:] == ["35.00", "0.00"]
    assert line(page, "Table 3", "30 %", "printed") == ["1,261.53 M", "921.65 M", "73.06"]
    assert line(page, "Table 3", "30 %", "recomputed") == ["1,100.05 M", "921.65 M", "83.78"]
    assert line(page, "Table 7", "0 %", "printed")[:2] == ["77.32 G", "100.00"]
    assert line(page, "Table 7", "0 %", "recomputed")[:2] == ["66.22 G", "100.00"]
    assert "77,320,814,592" in page and "nan" not in page and "not yet" not in page


@pytest.mark.parametrize(
    ("ratio", "count", "kept", "thesis", "exact", "mib"),
    [
        ("0 %", "1,100,048,384", "100.00", "66,218,754,048", "66,571,993,088", "2,098.18"),
        ("30 %", "921,651,200", "83.78", "54,798,305,792", "55,095,853,056", "1,757.91"),
        ("40 %", "873,224,192", "79.38", "51,697,968,384", "51,996,524,544", "1,665.54"),
        ("70 %", "694,827,008", "63.16", "40,277,520,128", "40,520,384,512", "1,325.28"),
    ],
)
def test_without_weights_ours_are_the_costs_by_both_conventions(ratio, count, kept, thesis, exact, mib):
    page = thesis_report()
    assert line(page, "Table 3", ratio, "ours") == ["1,100,048,384", count, kept]
    cells = line(page, "Table 7", ratio, "ours")
    assert (cells[0], cells[2], cells[4], cells[5]) == (thesis, exact, mib, kept)
    assert not [row for row in rows(page, "Tables 2, 4, 5, 6") if row[1] == "ours"]


def test_measured_scores_stand_below_the_printed_ones_and_what_lacks_is_named():
    page = thesis_report(Ours("Here.", measured(wikitext2_ppl=15.0, boolq=62.5), by_arithmetic().costs))
    cells = ["15.00", "-", "62.50", "40.00", "40.00", "40.00", "40.00", "44.50", "44.50", "13.00"]
    assert line(page, "Tables 2, 4, 5, 6", "taylor 0.3", "ours") == cells
    assert [row[0] for row in rows(page, "Tables 2, 4, 5, 6") if row[1] == "ours"] == ["taylor 0.3"]
    assert "Not measured here yet: base, l1 0.3," in page and "random 0.7.\nOn boolq" in page
    assert "scores 62.17; only taylor 0.3 (ours) scored higher." in page


def test_the_majority_answer_is_told_from_the_scores():
    printed, tasks = read_quality(), read_tasks()
    told = "On boolq, always giving the more frequent answer scores 62.17; "
    assert against_majority(printed, tasks) == f"{told}no model here scored higher."
    printed.loc["base", "boolq"] = 62.18
    assert against_majority(printed, tasks) == f"{told}only base scored higher."


def test_the_page_in_git_is_what_the_command_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main()
    assert Path("reports/thesis.md").read_bytes() == (ROOT / "reports/thesis.md").read_bytes()
