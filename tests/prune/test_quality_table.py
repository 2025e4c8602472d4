"""benchmarks/quality.py: what is kept between runs, and the table made of it."""

import argparse
import importlib.util
import math

import pytest
from helpers import ROOT

specification = importlib.util.spec_from_file_location("quality", ROOT / "benchmarks/quality.py")
assert specification is not None and specification.loader is not None
quality = importlib.util.module_from_spec(specification)
specification.loader.exec_module(quality)


def found(perplexity, goal=100, parameters=100):
    return {"goal": goal, "parameters": parameters, "log_perplexity": math.log(perplexity)}


def test_a_later_run_measures_what_is_missing_and_nothing_twice(tmp_path):
    file = tmp_path / "results" / "quality.jsonl"
    quality.Results(file, "a").add("taylor", 0.3, 0, lambda: found(20.0))
    again = quality.Results(file, "a")
    again.add("taylor", 0.3, 0, lambda: pytest.fail("it is there"))
    again.add("taylor", 0.3, 1, lambda: found(22.0))
    other = quality.Results(file, "b")
    assert other.frame().empty
    other.add("taylor", 0.3, 0, lambda: found(30.0))
    assert quality.Results(file, "a").frame()["log_perplexity"].tolist() == [math.log(20.0), math.log(22.0)]
    assert quality.Results(file, "b").frame()["log_perplexity"].tolist() == [math.log(30.0)]


def test_other_weights_texts_or_options_are_another_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/perplexity").mkdir(parents=True)
    files = [tmp_path / name for name in ("model.safetensors", "data/calibration.parquet", "data/perplexity/a.parquet")]
    for file in files:
        file.write_bytes(b"before")

    def state(windows=64):
        return quality.state(argparse.Namespace(base=".", windows=windows, length=128, evaluate_windows=None))

    states = [state(), state(windows=32)]
    for file in files:
        file.write_bytes(b"after")
        states.append(state())
    assert len(set(states)) == len(states) and states[-1] == state()


def test_the_table_has_the_share_that_is_won_back_and_only_whole_rows(tmp_path, capsys):
    results = quality.Results(tmp_path / "quality.jsonl", "a")
    results.add("base", 0.0, 0, lambda: found(16.0, 200, 200))
    for ratio in (0.3, 0.5):
        results.add("taylor", ratio, 0, lambda: found(32.0))
        results.add("taylor", ratio, 1, lambda: found(128.0))
        results.add("l2", ratio, 0, lambda: found(32.0, parameters=97))
    results.add("obs", 0.3, 0, lambda: found(16.0))
    quality.print_table(results.frame())
    assert capsys.readouterr().out.splitlines() == [
        "base: 16.00, 200 parameters",
        "| method | draws | 0.3 (100) | 0.5 (100) |",
        "| --- | ---: | ---: | ---: |",
        "| l2 | 1 | 32.00 (50%) | 32.00 (50%) |",
        "| taylor | 2 | 64.00 ± 67.88 (0%) | 64.00 ± 67.88 (0%) |",
        "block: parameters met to within 3",
    ]


def test_only_what_looks_at_no_window_and_draws_nothing_is_measured_once():
    once = {name for name, method in quality.METHODS.items() if quality.draws(method, 3) == 1}
    assert {"l1", "l2", "similarity", "channel_l2"} <= once
    assert not once & {"random", "random_free", "channel_random", "taylor", "best"}
