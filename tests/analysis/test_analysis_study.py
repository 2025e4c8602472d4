"""What a study's page says, from cells that a formula made."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import row_helpers as made
from matplotlib import image
from matplotlib import pyplot as plt
from scipy.stats import binomtest

from analysis.contrasts import PERPLEXITY, Contrast, average_contrast, pooled
from analysis.estimates import Estimate
from analysis.figures import COLOURS
from analysis.knee import Knee, find_knee, sentence
from analysis.losses import draw_runs
from analysis.params import ReportParams
from analysis.quality import measures
from analysis.rows import Row
from analysis.study_page import knee_list, knees, lower_than, winners
from analysis.study_plots import draw_all, draw_pareto, legend, pareto_front, styles
from analysis.study_tables import cost_numbers, cost_text, latex_of, quality_numbers, quality_text, runs_of
from analysis.tables import MISSING, text_markdown

PARAMS = ReportParams(bootstrap_samples=400, seed=1, confidence=0.95)


def knee_of(losses, removed=(0.0, 0.1, 0.2, 0.3, 0.4)) -> Knee:
    noise = np.random.default_rng(0).normal(scale=0.001, size=(200, len(removed)))
    return find_knee(np.array(removed), np.array(losses), np.array(losses) + noise, 0.95)


def test_the_knee_is_where_the_slope_exceeds_one():
    removed = np.linspace(0, 0.8, 33)
    knee = find_knee(removed, removed**2, np.tile(removed**2, (5, 1)), 0.95)  # slope 2 x
    assert knee.at == pytest.approx(0.5, abs=0.002)
    assert knee.costs == pytest.approx((0.0, 0.05, 1.6), abs=0.03)


def test_a_curve_that_is_dear_at_once_has_its_knee_at_zero_and_a_cheap_one_has_none():
    assert knee_of([3.0, 3.2, 3.4, 3.6, 3.8]).at == 0
    cheap = knee_of([3.0, 3.02, 3.04, 3.06, 3.08])
    assert cheap.at == cheap.high == np.inf
    dear = knee_of([3.0, 3.2, 3.4, 3.6, 3.8])
    assert "already the first percent removed costs more" in sentence("l2", dear, [0, 1], [0, 0.7], 0.95)
    assert "less than it saves, up to the last ratio studied" in sentence("l2", cheap, [0, 1], [0, 0.7], 0.95)


def test_the_knees_interval_holds_it_and_widens_with_the_noise():
    removed, losses = np.linspace(0, 0.6, 7), np.linspace(0, 0.6, 7) ** 2 * 1.5
    generator = np.random.default_rng(0)
    small, large = (
        find_knee(removed, losses, losses + generator.normal(scale=scale, size=(500, 7)), 0.95)
        for scale in (0.001, 0.01)
    )
    for knee in (small, large):
        assert knee.low <= knee.at <= knee.high
    assert large.high - large.low > small.high - small.low > 0


def test_variants_of_one_size_count_as_one_point_and_two_sizes_are_too_few():
    assert find_knee(np.array([0, 0.2, 0.2]), np.array([3, 3.2, 3.3]), np.zeros((2, 3)), 0.95) is None
    doubled = knee_of([3.0, 3.01, 3.03, 3.05, 3.5], (0.0, 0.1, 0.2, 0.2, 0.4))
    single = knee_of([3.0, 3.01, 3.04, 3.5], (0.0, 0.1, 0.2, 0.4))
    assert doubled.at == single.at


def test_every_line_has_a_sentence_with_its_knee_and_interval():
    base, cells = made.study()
    found = knees(base, cells, "prose", PARAMS)
    assert found["random"][0].at < found["l2"][0].at < found["taylor"][0].at
    assert f"{100 * found['taylor'][0].at:.1f} % of the parameters removed (95 % interval" in found["taylor"][1]
    assert found["taylor, tuned"] == (None, "")
    items = knee_list(found).splitlines()
    assert len(items) == 1 + sum(knee is not None for knee, _ in found.values())
    assert items[-1].startswith("- No knee, which takes at least two ratios of different sizes: **taylor, tuned**")


def test_the_winner_of_a_ratio_is_named_with_what_it_wins_by():
    base, cells = made.study()
    low, middle, high = winners(base, cells, PARAMS)
    assert "At ratio 0.3 (84.2 % of the parameters kept) **taylor, tuned** has the lowest perplexity" in low
    assert "significantly lower than l2's" in middle and "**taylor**" in high


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([1e-4, 2e-4], "(ratio 0.9999, 0.9998 to 0.9999)"), ([-0.0015, 0.0033], "(ratio 0.9991, 0.9986 to 0.9995)")],
)
def test_a_ratio_close_to_one_is_told_with_digits_enough_to_see_its_interval(differences, expected):
    _, (cell, other) = made.study(ratios=(0.3,), methods=("l2",))
    run = cell.runs[0]
    worse = run.windows.assign(loss=run.windows["loss"] + np.tile(differences, made.WINDOWS // 2))
    close = replace(run, model="tuned", windows=worse)
    text = lower_than(cell, replace(other, runs=[close]), "prose", PARAMS)
    assert text.startswith("significantly lower than taylor, tuned's (ratio 0.9")
    assert text.endswith(expected)


def test_nonzero_parameters_are_told_where_a_model_is_sparse():
    base, cells = made.study(ratios=(0.5,), methods=("l2",))
    for run in (base, cells[0].runs[0]):
        run.profile["parameters_nonzero"] = run.profile["parameters"] - 10  # some weights are zero by chance
    assert "parameters_nonzero" not in cost_numbers(base, cells)
    cells[0].runs[0].profile["parameters_nonzero"] = cells[0].runs[0].profile["parameters"] // 2
    numbers = cost_numbers(base, cells)
    assert numbers["parameters_nonzero_percent"].iloc[1] == pytest.approx(
        numbers["parameters_percent"].iloc[1] / 2, rel=1e-4
    )


def test_an_average_is_compared_question_by_question():
    _, cells = made.study(ratios=(0.7,), methods=("random", "taylor"))
    random, taylor = cells[0].runs[0], cells[1].runs[0]
    found = average_contrast({"random": [random], "taylor": [taylor]}, "random", "taylor", 0.95)
    value, low, high = (100 * each for each in (found.estimate.value, found.estimate.low, found.estimate.high))
    assert value == pytest.approx(taylor.average - random.average)
    assert low < value < high and found.significant == (low > 0 or high < 0)
    gap, object_ = (answers_of(taylor, task) - answers_of(random, task) for task in made.CHANCES)
    error = 100 * np.sqrt(gap.var(ddof=1) / len(gap) + object_.var(ddof=1) / len(object_)) / 2
    assert high - value == pytest.approx(1.959964 * error)


def contrasts_of(base, cells) -> dict[tuple[str, str], Contrast]:
    """Return the cells' contrasts with the base, by row and column of the quality table."""
    return {(each.model, each.column): each for each in made.report(base, cells, PARAMS).contrasts}


@pytest.mark.parametrize("seeds", [(0,), (1, 2, 3)])
def test_contrasts_with_the_base_agree_with_a_naive_reference(seeds):
    base, cells = made.study(ratios=(0.4, 0.7), methods=("random", "taylor"), seeds=seeds)
    found, tests = contrasts_of(base, cells), []
    for cell in cells:
        ratio = found[cell.label, "prose_ppl"]
        logs = [np.log(run.evaluate["prose_ppl"] / base.evaluate["prose_ppl"]) for run in cell.runs]
        assert ratio.estimate.value == pytest.approx(np.exp(np.mean(logs))) and ratio.metric == PERPLEXITY
        assert ratio.estimate.low < ratio.estimate.value < ratio.estimate.high
        assert ratio.significant == (ratio.estimate.low > 1 or ratio.estimate.high < 1)
        for task in made.CHANCES:
            sides = [
                [int((order * (answers_of(run, task) - answers_of(base, task)) > 0).sum()) for order in (1, -1)]
                for run in cell.runs
            ]
            differences = [(won - lost) / made.QUESTIONS for won, lost in sides]
            assert found[cell.label, task].estimate.value == pytest.approx(np.mean(differences))
            if len(sides) == 1:
                assert [found[cell.label, task].won, found[cell.label, task].lost] == sides[0]
            tests += [
                (binomtest(won, won + lost).pvalue if won + lost else 1.0, cell.label, task) for won, lost in sides
            ]
    # Holm: the k-th smallest times how many are not smaller, and never less than the one before.
    adjusted, largest = {}, 0.0
    for rank, (p, *key) in enumerate(sorted(tests)):
        largest = max(largest, min(1.0, (len(tests) - rank) * p))
        adjusted.setdefault(tuple(key), []).append(largest)
    for key, p_values in adjusted.items():
        assert found[key].p_holm == pytest.approx(max(p_values))
        assert found[key].significant == all(p < 0.05 for p in p_values)
    assert {each.significant for each in found.values()} == {True, False}


def test_a_row_with_seeds_differs_where_each_of_its_runs_does():
    one = Contrast("base", "l2 0.3", "acc", "gap", Estimate(-0.25), True, p=0.01, p_holm=0.02, lost=6, won=1)
    (found,) = pooled([one, replace(one, estimate=Estimate(0.0), significant=False, p=0.5, p_holm=1.0)])
    assert not found.significant and (found.p, found.p_holm, found.estimate.value) == (0.5, 1.0, -0.125)
    assert pooled([one, one])[0].significant and pooled([one]) == [one]


def answers_of(run, task: str) -> np.ndarray:
    return run.questions.loc[run.questions["task"] == task, "acc"].to_numpy()


def test_seeds_widen_the_interval_and_are_told_as_mean_and_spread():
    base, once = made.study(ratios=(0.7,), methods=("random",))
    _, often = made.study(ratios=(0.7,), methods=("random",), seeds=(1, 2, 3, 4, 5))
    width = [
        each.high - each.low
        for each in (contrasts_of(base, cells)["random 0.7", "prose_ppl"].estimate for cells in (once, often))
    ]
    assert width[1] > width[0]
    numbers = quality_numbers(base, often, made.CHANCES)
    values = [run.evaluate["prose_ppl"] for run in often[0].runs]
    assert numbers.loc["random 0.7", "prose_ppl"] == pytest.approx(np.mean(values))
    assert numbers.loc["random 0.7", "prose_ppl_sd"] == pytest.approx(np.std(values, ddof=1))
    text = quality_text(numbers, measures(runs_of(base, often)), [])
    assert text.loc["random 0.7", "prose PPL"] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def test_a_draw_of_runs_keeps_single_runs_and_draws_among_several():
    values = np.array([[1.0, 10.0, 20.0]] * 1000)
    drawn = draw_runs(values, [1, 2], seed=0)
    assert (drawn[:, 0] == 1).all()
    assert set(drawn[:, 1]) == {10.0, 15.0, 20.0}


def test_the_quality_table_marks_the_best_and_the_significant():
    base, cells = made.study(ratios=(0.3, 0.7), methods=("random", "taylor"))
    contrasts = made.report(base, cells, PARAMS).contrasts
    text = quality_text(quality_numbers(base, cells, made.CHANCES), measures(runs_of(base, cells)), contrasts)
    assert list(text.columns[:4]) == ["ratio", "method", "kept (%)", "prose PPL"]
    rows = text.set_index(["ratio", "method"])["prose PPL"]
    assert rows["70 %", "taylor"].startswith("**") and rows["70 %", "taylor"].endswith("** *")
    assert rows["30 %", "taylor, tuned"].startswith("**")
    assert "*" not in rows["0 %", "base"] and not rows["70 %", "random"].startswith("**")
    average = 100 * np.mean([base.evaluate[f"{task}_acc"] for task in made.CHANCES])
    assert text.loc["base", "average"] == f"{average:.2f}"
    assert text_markdown(text).count("\n") == len(text) + 1


def test_the_cost_table_has_percentages_of_the_base():
    base, cells = made.study(ratios=(0.4,), methods=("l2",))
    numbers = cost_numbers(base, cells)
    assert numbers.loc["l2 0.4", "parameters_percent"] == pytest.approx(100 * 781_888 / 990_016)
    assert cost_text(numbers).loc["l2 0.4", "parameters"] == "781,888"


def test_latex_escapes_what_it_must():
    text = pd.DataFrame({"ratio": ["30 %"], "method": ["a_b"], "p_PPL": ["**1.00 ± 0.10** *"], "x": ["2.00 *"]})
    latex = latex_of(text, "quality", "Study a_b")
    assert r"30 \% & a\_b & \textbf{1.00 $\pm$ 0.10}$^{*}$ & 2.00$^{*}$ \\" in latex
    assert r"\caption{Study a\_b}" in latex and r"\toprule" in latex


@pytest.mark.slow
def test_an_export_in_a_format_is_a_row_and_a_point_of_its_own_without_a_knee(tmp_path):
    base, cells = made.study(ratios=(0.3, 0.7), methods=("taylor",))
    quantised = [
        Row("taylor", ratio, model, [made.measured("taylor", ratio, model)], base)
        for ratio in (0.3, 0.7)
        for model in ("pruned-gguf-q8_0", "tuned-gguf-q8_0")
    ]
    del quantised[0].runs[0].profile["peak_memory_mib"]  # llama.cpp is not installed
    numbers = cost_numbers(base, [*cells, *quantised])
    sizes = numbers.set_index(["ratio", "method"])["weights_mib"]
    assert sizes[0.3, "taylor, gguf-q8_0"] == sizes[0.3, "taylor"] / 4
    assert sizes[0.7, "taylor, tuned, gguf-q8_0"] == sizes[0.7, "taylor, gguf-q8_0"]
    rows = cost_text(numbers).set_index(["ratio", "method"])
    assert rows.loc[("30 %", "taylor, gguf-q8_0"), "peak memory (MiB)"] == MISSING
    assert set(knees(base, [*cells, *quantised], "prose", PARAMS)) == {"taylor", "taylor, tuned"}
    style = styles([*cells, *quantised])
    assert len({(each["color"], each["markerfacecolor"]) for each in style.values()}) == len(style) == 4
    figure = draw_pareto(base, [*cells, *quantised])
    (panel,) = [axes for axes in figure.axes if axes.get_xlabel() == "weights (MiB)"]
    drawn = {line.get_label(): sorted(line.get_xdata()) for line in panel.lines}
    assert drawn["taylor, gguf-q8_0"] == sorted(sizes[ratio, "taylor, gguf-q8_0"] for ratio in (0.3, 0.7))
    assert draw_all(tmp_path, base, [*cells, *quantised], made.CHANCES)


def test_more_methods_than_colours_are_told_apart_without_lines():
    _, cells = made.study(ratios=(0.3,), methods=("taylor",))
    rows = [replace(cells[0], method=f"method {i}") for i in range(3 * len(COLOURS))]
    assert len({(each["color"], each["marker"]) for each in styles(rows).values()}) == len(rows)


def test_the_front_holds_what_no_other_beats():
    points = [(1, 9), (2, 5), (3, 6), (4, 5), (5, 1)]
    assert pareto_front(points, more=False) == [(1, 9), (2, 5), (5, 1)]
    assert pareto_front(points, more=True) == [(5, 1)]
    assert pareto_front([(1, 1), (2, 5), (3, 6)], more=True) == [(3, 6), (2, 5), (1, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("width", [10, 18])
def test_a_long_legend_is_within_its_figure(width):
    figure, axes = plt.subplots(figsize=(width, 6), layout="constrained")
    for number in range(19):
        axes.plot([0], [0], label=f"sparsegpt, ratio_of groups, pattern {number}:32")
    legend(figure, axes)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    plt.close(figure)


@pytest.mark.slow
def test_every_figure_is_drawn_twice_alike(tmp_path):
    base, cells = made.study(seeds=(1, 2))
    names = draw_all(tmp_path / "first", base, cells, made.CHANCES)
    assert names == ["perplexity", "accuracy", "tasks", "pareto", "layers"]
    draw_all(tmp_path / "second", base, cells, made.CHANCES)
    for file in sorted((tmp_path / "first").iterdir()):
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name
    for name in names:
        assert image.imread(tmp_path / "first" / f"{name}.png").shape[1] >= 1000
        assert (tmp_path / "first" / f"{name}.svg").read_text().startswith("<?xml")
