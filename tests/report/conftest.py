"""A study's files, as the other stages write them, with plausible numbers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.arithmetic import Layer, Shape, exact_macs, parameters
from analysis.run_plots import draw_all

TASKS = {"continuation": 0.25, "gap": 0.5, "object": 0.25}
RIGHT = {"base": [0.34, 0.81, 0.52], "pruned": [0.30, 0.66, 0.38], "tuned": [0.32, 0.76, 0.47]}
LOSS = {"base": 2.93, "pruned": 3.35, "tuned": 3.09}
DRAW = "stages.report.__main__.draw_all"
QUESTIONS, WINDOWS, WINDOW = 600, 400, 127
NOS = 390  # of the answers in task gap, whose questions all have the same choices
PARAMS = """
prune: {method: taylor, ratio: 0.5, ratio_of: groups, budget: null, seed: 1}
evaluate: {sequence_length: 128, seed: 1}
models: {}
profile: {sequence_length: 64, repetitions: 1}
report: {bootstrap_samples: 500, seed: 42, confidence: 0.95}
"""


def config(layers: tuple[Layer, ...]) -> dict:
    """Return a config.json as the base and prune stages write it."""
    own = {
        str(i): {"num_attention_heads": each.heads, "num_key_value_heads": each.kv_heads, "intermediate_size": each.mlp}
        for i, each in enumerate(layers)
    }
    return {
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": 1024,
        "hidden_size": 128,
        "head_dim": 16,
        "num_hidden_layers": len(layers),
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 344,
        "tie_word_embeddings": True,
        "per_layer_config": own,
    }


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_study(root: Path) -> None:
    """Write every file that the report stage reads under `root`."""
    random = np.random.default_rng(7)
    (root / "params.yaml").write_text(PARAMS)
    (root / "data/tasks").mkdir(parents=True)
    for task, chance in TASKS.items():
        text = f"task: {task}\ndoc_to_text: !function code.text\nmetadata:\n  chance: {chance}\n"
        (root / f"data/tasks/{task}.yaml").write_text(text)

    before = (Layer(8, 4, 344),) * 6
    after = (before[0], *(Layer(4, 2, 172),) * 5)
    shapes = {model: Shape(1024, 128, 16, before if model == "base" else after, tied=True) for model in RIGHT}
    difficulty = random.normal(0, 0.4, WINDOWS)
    luck = random.uniform(size=(len(TASKS), QUESTIONS))
    for model, folder in (("base", "base"), ("pruned", "pruned"), ("tuned", "merged")):
        losses = LOSS[model] + difficulty + random.normal(0, 0.05, WINDOWS)
        acc = (luck + random.normal(0, 0.1, luck.shape) < np.array(RIGHT[model])[:, None]).astype(int)
        means = dict(zip(TASKS, acc.mean(axis=1), strict=True))
        metrics = {"pydocs_ppl": float(np.exp(losses.mean()))}
        metrics |= {f"{task}_acc": mean for task, mean in means.items()} | {"average_acc": acc.mean()}
        write_json(root / f"metrics/evaluate/{model}.json", metrics)
        norms = {"continuation": 1 - acc[0]}
        details = {f"{task}_acc_stderr": (mean * (1 - mean) / (QUESTIONS - 1)) ** 0.5 for task, mean in means.items()}
        details |= {"continuation_acc_norm": norms["continuation"].mean(), "continuation_acc_norm_stderr": 0.02}
        write_json(root / f"metrics/details/evaluate/{model}.json", details | {"precision": "bfloat16"})
        outcomes = root / f"metrics/outcomes/{model}"
        samples = [{"prompt": "Return the number of", "continuation": f" items,\nsays {model}\n~~~\n```"}]
        write_json(outcomes / "samples.json", samples)
        rows = [
            {"task": task, "question": i, "acc": right, "acc_norm": norms[task][i] if task in norms else None}
            for task, answers in zip(TASKS, acc.tolist(), strict=True)
            for i, right in enumerate(answers)
        ]
        questions = pd.DataFrame(rows).astype({"acc": "Int8", "acc_norm": "Int8"})
        said = questions["question"].map(lambda i: "no" if i < NOS else "yes")
        questions.assign(answer=said.where(questions["task"] == "gap")).to_parquet(outcomes / "questions.parquet")
        windows = {"set": "pydocs", "window": range(WINDOWS), "loss": losses, "tokens": WINDOW}
        pd.DataFrame(windows).to_parquet(outcomes / "windows.parquet")
        profile = {
            "parameters": parameters(shapes[model]),
            "gmacs": exact_macs(shapes[model], 64) / 1e9,
            "weights_mib": 4 * parameters(shapes[model]) / 2**20,
            "peak_memory_mib": 300.5,
            "decode_tokens_per_second": 271.8,
        }
        compared = profile if model != "tuned" else {}
        write_json(root / f"metrics/profile/{model}.json", compared)
        rest = {"memory_on_cuda": 0, "prefill_tokens_per_second": 31415.9}
        write_json(root / f"metrics/details/profile/{model}.json", rest | (profile if not compared else {}))
        write_json(root / f"models/{folder}/config.json", config(shapes[model].layers))

    counts = {"parameters_before": parameters(shapes["base"]), "parameters": parameters(shapes["pruned"])}
    write_json(root / "metrics/details/prune.json", counts)
    write_json(root / "metrics/details/data.json", {"own_domain": "pydocs"})
    names = {"query_heads": "heads", "kv_heads": "kv_heads", "mlp_width": "mlp"}
    widths = {name: [getattr(layer, key) for layer in after] for name, key in names.items()}
    widths |= {f"{name}_before": [getattr(layer, key) for layer in before] for name, key in names.items()}
    widths |= {"parameters_nonzero": [170_000, *[90_000] * 5], "parameters_nonzero_before": 170_000}
    pd.DataFrame({"layer": range(6), **widths}).to_csv(root / "metrics/prune_layers.csv", index=False)
    for name, steps, start, end in (("base", 1500, 6.9, 2.9), ("tune", 300, 3.4, 3.05)):
        step = np.arange(1, steps + 1)
        loss = end + (start - end) * np.exp(-6 * step / steps) + random.normal(0, 0.08, steps)
        rows = pd.DataFrame({"step": step, "split": "train", "loss": loss})
        checked = rows[rows["step"] % 50 == 0].assign(split="validation", loss=lambda table: table["loss"] + 0.1)
        pd.concat([rows, checked]).to_csv(root / f"metrics/{name}_loss.csv", index=False)
    write_json(root / "metrics/runtime/prune.json", {"wall_seconds": 2.5, "peak_resident_mib": 700.0})


@pytest.fixture
def run_folder(tmp_path, monkeypatch) -> Path:
    """A folder that holds a whole study's files, made the current one; its report is written without figures."""
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DRAW, lambda folder, *_: draw_all(folder, {}, {}, None, {"base": None, "tune": None}))
    return tmp_path


@pytest.fixture
def figures(run_folder, monkeypatch) -> None:
    """Let the report draw its figures, which takes two seconds."""
    monkeypatch.setattr(DRAW, draw_all)
