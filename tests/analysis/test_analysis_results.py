"""Results as they are read, whole or in part, and losses with and without a spread."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import row_helpers as made

from analysis.losses import mean_losses
from analysis.params import ReportParams
from analysis.rows import read_result
from stages.common.errors import UserError

PARAMS = ReportParams(bootstrap_samples=50, seed=1, confidence=0.95)


def test_a_result_is_read_from_its_files_and_what_is_missing_stays_missing():
    files = {
        "metrics/evaluate/tuned.json": json.dumps({"prose_ppl": 3.0, "gap_acc": 0.5}).encode(),
        "metrics/details/evaluate/tuned.json": b'{"gap_acc_stderr": 0.1}',
        "metrics/prune_layers.csv": b"layer,mlp_width\n0,24\n",
        "models/merged/config.json": b'{"vocab_size": 7}',
    }
    result = read_result(files.get, "one", "tuned", "models/merged")
    assert result.evaluate == {"prose_ppl": 3.0, "gap_acc": 0.5, "gap_acc_stderr": 0.1} and result.average == 50
    assert result.profile == {} and result.questions.empty and result.windows.empty and result.values.empty
    assert result.config == {"vocab_size": 7} and result.layers["mlp_width"].tolist() == [24]
    assert read_result(files.get, "one", "base", "models/base").layers is None
    with pytest.raises(UserError, match=r"metrics/evaluate/tuned\.json is not valid JSON"):
        read_result((files | {"metrics/evaluate/tuned.json": b"{"}).get, "one", "tuned", "models/merged")


def test_one_window_gives_a_ratio_without_an_interval():
    runs = [made.measured(), made.measured("l2", 0.5, "pruned")]
    whole, single = (
        mean_losses({run.model: [replace(run, windows=run.windows[:count])] for run in runs}, "prose", PARAMS)
        for count in (made.WINDOWS, 1)
    )
    assert whole.ratio("base", "pruned", 0.95).excludes(1)
    ratio = single.ratio("base", "pruned", 0.95)
    losses = [run.windows["loss"].iloc[0] for run in runs]
    assert ratio.value == pytest.approx(np.exp(losses[1] - losses[0]))
    assert math.isnan(ratio.low) and not ratio.excludes(1)
