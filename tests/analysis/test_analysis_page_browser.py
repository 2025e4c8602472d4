"""A study's page in a real browser: sorting, filtering, axes, hovering, keeping, comparing, and what is not there."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import row_helpers as made
from browser import choose, click, open_page, settle, texts

from analysis.page.study_data import Origin, study_data
from analysis.page.write import write_page
from analysis.params import ReportParams
from studies.compare import write_report

pytestmark = pytest.mark.slow

PARAMS = ReportParams(bootstrap_samples=200, seed=1, confidence=0.95)
ALERT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def study():
    """The study's base and rows; one method's name is markup."""
    base, rows = made.study()
    return base, [replace(row, method=ALERT) if row.method == "random" else row for row in rows]


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    """The folder of the study's report."""
    base, rows = study
    origins = {}
    for row in rows:
        for run in row.runs:
            params = {"prune": {"method": row.method, "ratio": row.ratio, "seed": 1}}
            samples = {row.model: [{"prompt": "Say", "continuation": f" {ALERT} {row.label}"}]}
            origins[run.run] = Origin(run.run, params, {"Apply": f"dvc exp apply {run.run}"}, samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("study"))
        patch.setattr("studies.compare.draw_all", lambda *arguments: [])
        report = replace(made.report(base, rows, PARAMS), missing=["l2-0.9", "l2-0.8"])
        write_report(report, origins)
        folder = Path("reports/made").resolve()
        data = study_data(report, origins, {"l2-0.9": "evaluate@pruned"}, {"l2-0.8": f"no {ALERT}"})
        write_page(folder / "live.html", data)
    return folder


def names(driver) -> list[str]:
    return texts(driver, "tr.variant th.name")


def column(driver, key: str) -> list[float]:
    found = texts(driver, f"tr.variant td[data-key='{key}']")
    return [float(re.match(r"[-\d.,]+", text)[0].replace(",", "")) for text in found]


def test_the_table_has_the_numbers_of_the_report_and_sorts_and_filters(page, chromium, study):
    text = (page / "index.html").read_text()
    assert ALERT not in text and len(text) < 5_000_000
    open_page(chromium, page / "index.html")
    quality = pd.read_csv(page / "quality.csv")
    for key in ("prose_ppl", "gap", "average"):
        assert column(chromium, key) == pytest.approx(quality[key].iloc[1:14].tolist(), abs=0.00501)
    costs = pd.read_csv(page / "cost.csv")
    click(chromium, "#variants .group button:nth-child(2)")
    assert column(chromium, "parameters") == costs["parameters"].iloc[1:].tolist()
    click(chromium, "#variants .group button:nth-child(1)")
    starred = [
        name
        for name, cell in zip(names(chromium), texts(chromium, "tr.variant td[data-key='gap']"), strict=True)
        if "*" in cell
    ]
    markdown = (page / "quality.md").read_text()
    lines = [line.split("|")[5] for line in markdown.splitlines()[3:-2]]
    assert len(starred) == sum("*" in line.replace("**", "") for line in lines) > 0

    click(chromium, "[data-sort='prose_ppl']")
    assert column(chromium, "prose_ppl") == sorted(column(chromium, "prose_ppl"))
    assert texts(chromium, "[aria-sort='ascending']") == ["prose perplexity"]
    click(chromium, "[data-sort='prose_ppl']")
    assert column(chromium, "prose_ppl") == sorted(column(chromium, "prose_ppl"), reverse=True)
    rows = texts(chromium, "table.variants tbody th.name")
    assert rows[0] == "base" and rows[-2:] == ["guessing", "majority answer"]  # wherever the others go

    choose(chromium, "ratio", "40 %", "#variants")
    assert {name.split()[-1] for name in names(chromium)} == {"0.4"}
    chromium.find_element("css selector", "#variants input[type=search]").send_keys("script")
    assert names(chromium) == [f"{ALERT} 0.4"]
    assert texts(chromium, "#variants [role=status]") == ["1 of 13 variants"]
    assert chromium.execute_script("return document.querySelectorAll('main script').length") == 0


def test_the_front_shows_what_is_pointed_at_keeps_what_is_clicked_and_changes_its_axes(page, chromium, study):
    _, rows = study
    open_page(chromium, page / "index.html")
    number, row = next((number, row) for number, row in enumerate(rows, 1) if row.label == "taylor 0.7")
    from selenium.webdriver import ActionChains

    points = chromium.find_elements("css selector", f"#front path[data-variant='{number}']")
    chromium.execute_script(
        "document.documentElement.style.scrollBehavior = 'auto'; arguments[0].scrollIntoView({block: 'center'})",
        points[0],
    )
    ActionChains(chromium).move_to_element(points[0]).perform()
    assert texts(chromium, "#front .card h3") == ["taylor 0.7"]
    card = texts(chromium, "#front .card [data-key='prose_ppl']")[0]
    assert card.startswith(f"{row.runs[0].evaluate['prose_ppl']:.2f} *")
    assert re.search(r"\d to \d", card)
    ActionChains(chromium).click().perform()
    other = chromium.find_element("css selector", "#front path[data-variant='0']")
    ActionChains(chromium).move_to_element(other).perform()
    assert texts(chromium, "#front .card h3") == ["taylor 0.7"]  # kept
    chromium.execute_script("arguments[0].focus()", other)  # the keyboard's way
    points[0].send_keys("\n")  # lets go
    chromium.execute_script("arguments[0].focus()", other)
    assert texts(chromium, "#front .card h3") == ["base"]

    for quality, cost in itertools.product(["prose perplexity", "average accuracy (%)"], ["GMac", "decode (tokens/s)"]):
        choose(chromium, "vertical axis", quality, "#front")
        choose(chromium, "horizontal axis", cost, "#front")
        drawn = texts(chromium, "#front svg .role-axis-title text")
        assert sorted(drawn) == sorted([quality, cost])


def test_two_variants_side_by_side(page, chromium, study):
    _, rows = study
    open_page(chromium, page / "index.html")
    chromium.execute_script("document.querySelector(\"[aria-label='compare taylor 0.3 as A']\").click()")
    choose(chromium, "B", "l2 0.7", "#compare")
    settle(chromium)
    script = """return [...document.querySelector("#comparison table").tBodies[0].rows]
        .map((row) => [...row.cells].map((cell) => cell.textContent))"""
    shown = {row[0]: row[1:] for row in chromium.execute_script(script)}
    first, second = (next(row for row in rows if row.label == label).runs[0] for label in ("taylor 0.3", "l2 0.7"))
    assert shown["prose perplexity"][:2] == [f"{each.evaluate['prose_ppl']:.2f}" for each in (first, second)]
    answers = [each.questions.query("task == 'gap'")["acc"].to_numpy() for each in (first, second)]
    lost, won = int((answers[0] > answers[1]).sum()), int((answers[0] < answers[1]).sum())
    assert shown["gap (%)"][2:4] == [f"{100 * (won - lost) / made.QUESTIONS:+.2f} points", f"{lost} lost, {won} won"]
    assert texts(chromium, "#comparison .written") == [f" {ALERT} taylor 0.3", f" {ALERT} l2 0.7"]
    assert texts(chromium, "#comparison pre") == [f"dvc exp apply {each.run}" for each in (first, second)]
    params = [text for text in texts(chromium, "#comparison tbody tr") if text.startswith("prune.")]
    assert params == ['prune.method"taylor""l2"', "prune.ratio0.30.7"]
    # The widths of both, as one picture, whose legend tells the parts by their dashes.
    assert texts(chromium, "#comparison svg .role-legend text")
    dashes = "return document.querySelectorAll('#comparison svg .role-legend path[stroke-dasharray]').length"
    assert chromium.execute_script(dashes) > 0


def test_what_is_missing_runs_or_failed_is_said(page, chromium):
    open_page(chromium, page / "index.html")
    assert texts(chromium, ".state li") == ["not there yet: l2-0.9, l2-0.8"]
    open_page(chromium, page / "live.html")
    assert texts(chromium, ".state li") == ["l2-0.9: running, evaluate@pruned", f"l2-0.8: failed: no {ALERT}"]
    saved = json.loads(chromium.execute_script("return JSON.stringify(data)"))
    assert saved["status"]["failed"] == {"l2-0.8": f"no {ALERT}"}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_page(page, chromium, width, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        open_page(chromium, page / "index.html")
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
        colours = chromium.execute_script(
            "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        )
        dark, light = (sum(map(int, re.findall(r"\d+", each)[:3])) for each in colours)
        assert (dark < light) == (scheme == "light")
        fields = "[...document.querySelectorAll('select, input')]"
        unlabelled = f"return {fields}.filter((each) => !each.labels.length && !each.ariaLabel).length"
        assert chromium.execute_script(unlabelled) == 0
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_legend_of_long_names_is_within_its_chart(page, chromium):
    """The page's own data with lines of other names, drawn again as a page of them would be."""
    text = (page / "index.html").read_text(encoding="utf-8")
    start = '<script type="application/json" id="data">'
    before, rest = text.split(start)
    content, after = rest.split("</script>", 1)
    data = json.loads(content)
    for number, variant in enumerate(data["variants"]):
        variant["line"] = f"sparsegpt, ratio_of groups, pattern {number}:4"
    renamed = json.dumps(data).replace("<", "\\u003c")
    (page / "long.html").write_text(f"{before}{start}{renamed}</script>{after}", encoding="utf-8")
    chromium.set_window_size(1280, 900)
    open_page(chromium, page / "long.html")
    beyond = """return [...document.querySelectorAll("#front .chart, #ratios .chart")].map((box) => {
        const edge = box.getBoundingClientRect().right;
        const labels = [...box.querySelectorAll(".role-legend-label text")];
        return [labels.length, Math.max(...labels.map((each) => each.getBoundingClientRect().right)) - edge];
    })"""
    found = chromium.execute_script(beyond)
    assert found and all(count == len(data["variants"]) and right <= 0 for count, right in found)


def test_a_print_is_light_has_no_controls_and_cuts_no_table(page, chromium):
    dark = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    a4 = {"width": 1032, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    open_page(chromium, page / "index.html")
    click(chromium, "#variants .group button:nth-child(3)")
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", a4)
    try:
        assert chromium.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        printed = "return [...document.querySelectorAll(arguments[0])].filter((each) => each.checkVisibility()).length"
        assert chromium.execute_script(printed, "nav, main button:not(thead *), input, .card .note") == 0
        assert chromium.execute_script(printed, "#compare select") == 2  # which variants are compared
        cut = "[...document.querySelectorAll('.wide')].filter((each) => each.scrollWidth > each.clientWidth)"
        assert chromium.execute_script(f"return {cut}.length") == 0
        folded = "return document.querySelectorAll('details:not([open])').length"
        before = chromium.execute_script(folded)
        assert before > 0
        for event, expected in (("beforeprint", 0), ("afterprint", before)):
            chromium.execute_script(f"window.dispatchEvent(new Event('{event}'))")
            assert chromium.execute_script(folded) == expected
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
