"""Rows made from a formula, for tests of tables, knees and figures without an experiment."""

import numpy as np
import pandas as pd

from analysis.arithmetic import exact_macs, parameters, shape_of
from analysis.params import ReportParams
from analysis.rows import Result, Row
from analysis.study_report import StudyReport

LAYERS, QUESTIONS, WINDOWS, TOKENS = 6, 200, 100, 64
NOS = 130  # of the answers in task gap, whose questions all have the same choices
CHANCES = {"gap": 0.5, "object": 0.25}
HARM = {"random": 3.0, "l1": 2.0, "l2": 1.5, "taylor": 1.0}


NO_QUESTIONS = pd.DataFrame(columns=["task", "question", "acc", "acc_norm", "answer"])
NO_WINDOWS = pd.DataFrame(columns=["set", "window", "loss", "tokens"])
NO_VALUES = pd.DataFrame(columns=["task", "question", "metric", "filter", "value"])


def answered(model: str, questions=NO_QUESTIONS, windows=NO_WINDOWS, values=NO_VALUES) -> list[Result]:
    """Return a row of one model of the run in this folder, of which only outcomes were measured."""
    return [Result("", model, {}, {}, questions, windows, values, layers=None, config={})]


def config(ratio: float) -> dict:
    """Return a config.json of a model whose blocks, half of its parameters, were pruned at `ratio`."""
    heads = int(8 * (1 - ratio))
    return {
        "model_type": "llama", "vocab_size": 7728, "hidden_size": 64, "head_dim": 8, "num_hidden_layers": LAYERS,
        "num_attention_heads": heads, "num_key_value_heads": heads, "intermediate_size": int(344 * (1 - ratio)),
        "tie_word_embeddings": True, "dtype": "float32",
    }  # fmt: skip


def measured(method: str = "l2", ratio: float = 0.0, model: str = "base", seed: int = 0) -> Result:
    """Return a model that pruning made worse by HARM * ratio ** 2 nats; the same windows and questions for all."""
    generator = np.random.default_rng(1)
    luck = np.random.default_rng(seed).normal(scale=0.02) if seed else 0.0
    worse = (HARM[method] * ratio**2 * (1 + luck)) * (0.5 if model.startswith("tuned") else 1)
    worse += 0.01 * ("-" in model)  # an export in a quantised format
    losses = 3 + worse * generator.uniform(0.8, 1.2, WINDOWS) + generator.normal(scale=0.3, size=WINDOWS)
    answers = [
        pd.DataFrame({"task": task, "question": range(QUESTIONS),
                      "acc": (generator.uniform(size=QUESTIONS) < 0.9 - 0.3 * min(1, worse)).astype(int),
                      "answer": ["no"] * NOS + ["yes"] * (QUESTIONS - NOS) if task == "gap" else None})
        for task in CHANCES
    ]  # fmt: skip
    questions = pd.concat(answers, ignore_index=True)
    accuracies = questions.groupby("task")["acc"].mean()
    shape, weights = shape_of(config(ratio)), parameters(shape_of(config(ratio)))
    return Result(
        f"{method}-{ratio:g}-{model}-{seed}",
        model,
        evaluate={"prose_ppl": float(np.exp(losses.mean()))} | {f"{task}_acc": acc for task, acc in accuracies.items()},
        profile={
            "parameters": weights, "gmacs": exact_macs(shape, TOKENS) / 1e9,
            "memory_on_cuda": 0, "weights_mib": weights / (2**20 if "-" in model else 2**18),
            "peak_memory_mib": weights / 2**17, "decode_tokens_per_second": 4e8 / weights,
        },
        questions=questions,
        windows=pd.DataFrame({"set": "prose", "window": range(WINDOWS), "loss": losses, "tokens": 10}),
        values=NO_VALUES,
        layers=pd.DataFrame({"layer": range(LAYERS), "query_heads": shape.layers[0].heads, "query_heads_before": 8,
                             "mlp_width": shape.layers[0].mlp, "mlp_width_before": 344}),
        config=config(ratio),
    )  # fmt: skip


def study(ratios=(0.3, 0.4, 0.7), seeds=(0,), methods=tuple(HARM)) -> tuple[Result, list[Row]]:
    """Return the base and a cell for every method and ratio, and taylor at the first ratio tuned."""
    base = measured()
    cells = [
        Row(method, ratio, "pruned", [measured(method, ratio, "pruned", seed) for seed in seeds], base)
        for ratio in ratios
        for method in methods
    ]
    cells.append(Row("taylor", ratios[0], "tuned", [measured("taylor", ratios[0], "tuned")], base))
    return base, sorted(cells, key=lambda row: (row.ratio, row.model))


def report(base: Result, cells: list[Row], params: ReportParams, name: str = "made", chances=CHANCES) -> StudyReport:
    """Return the study of these rows."""
    return StudyReport(name, params, base, cells, [], chances, TOKENS)
