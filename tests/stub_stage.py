"""A stage without a model: writes what the real one writes, from the params alone, in no time.

`python -m stages.<name>` runs it in the projects of these tests, so that they can afford many real DVC experiments.
"""

import json
import os
import random
import sys
from pathlib import Path

from analysis.arithmetic import exact_macs, parameters, shape_of
from stages.common.errors import UserError
from stages.common.live import LiveCurves
from stages.common.outputs import staged, write_details, write_metrics
from stages.common.params import name_of, read_params_file
from stages.common.stage import run_stage

LAYERS, QUESTIONS, WINDOWS = 3, 60, 40
HARM = {"random": 3.0, "l1": 2.0, "l2": 1.5, "taylor": 1.0}
FAILING_RATIO = 0.9


def write(path: str, content: str = "") -> None:
    """Write an output as the real stages do: whole, and as a new file."""
    with staged(path) as file:
        file.write_text(content, encoding="utf-8")


def config(ratio: float) -> dict:
    """Return the config.json of a model pruned at `ratio`."""
    heads = int(4 * (1 - ratio))
    return {
        "model_type": "llama", "vocab_size": 500, "hidden_size": 32, "head_dim": 8, "num_hidden_layers": LAYERS,
        "num_attention_heads": heads, "num_key_value_heads": heads, "intermediate_size": int(48 * (1 - ratio)),
    }  # fmt: skip


def write_model(folder: str, content: str, ratio: float = 0.0) -> None:
    """Write what stands for a model: 64 KiB that only its params determine, and the config of one pruned at `ratio`."""
    with staged(folder) as new:
        new.mkdir()
        (new / "config.json").write_text(json.dumps(config(ratio)))
        (new / "model.safetensors").write_bytes(random.Random(content).randbytes(1 << 16))


def data(params: dict) -> None:
    """Write what stage data writes."""
    for path in ("data/sources.json", "data/text/train.txt", "data/perplexity/prose.txt", "metrics/details/data.json"):
        write(path, "{}")
    for path in ("data/calibration.parquet", "data/instructions.parquet", "data/text/validation.parquet"):
        write(path)
    write("data/tasks/gap.yaml", "task: gap\nmetadata: {chance: 0.5}\n")
    write_details("metrics/details/data.json", {"documents": 1})


def base(params: dict) -> None:
    """Write what stage base writes."""
    write_model("models/base", json.dumps(params["base"]))
    write("metrics/base_loss.csv", "step,split,loss\n")
    LiveCurves("base")
    write_details("metrics/details/base.json", {"steps": params["base"]["steps"]})


def prune(params: dict) -> None:
    """Write what stage prune writes; fail where the test wants it."""
    ratio = params["prune"]["ratio"]
    if ratio == FAILING_RATIO:
        raise UserError(f"prune.ratio = {ratio} is not allowed; expected less, in this test")
    write_model("models/pruned", json.dumps(params["prune"]), ratio)
    widths = {"query_heads": 4, "kv_heads": 2, "mlp_width": 48}
    columns = {name: int(width * (1 - ratio)) for name, width in widths.items()}
    columns |= {f"{name}_before": width for name, width in widths.items()}
    rows = [",".join(map(str, [layer, *columns.values()])) for layer in range(LAYERS)]
    write("metrics/prune_layers.csv", "\n".join([",".join(["layer", *columns]), *rows]) + "\n")
    write_metrics("metrics/prune.json", {"ratio": ratio})
    write_details("metrics/details/prune.json", {"ratio_actual": ratio})


def tune(params: dict) -> None:
    """Write what stage tune writes."""
    write_model("models/adapter", json.dumps(params["tune"]))
    write_model("models/merged", json.dumps([params["prune"], params["tune"]]), params["prune"]["ratio"])
    write("metrics/tune_loss.csv", "step,split,loss\n")
    LiveCurves("tune")
    write_details("metrics/details/tune.json", {"steps": params["tune"]["steps"]})


def export(params: dict) -> None:
    """Write what stage export writes."""
    models, formats = params["export"]["models"], params["export"]["formats"]
    with staged("models/export") as folder:
        folder.mkdir()
        for name in models if formats else []:
            for kind in formats:
                content = json.dumps([name, kind, params["prune"], params["tune"]])
                write_model(f"{folder}/{name}-{kind}", content, params["prune"]["ratio"])
    write_details("metrics/details/export.json", {"exports": len(models) * len(formats)})


def harm(model: str, params: dict) -> float:
    """Return how much worse than the base a model is, in nats."""
    full = HARM[params["prune"]["method"]] * params["prune"]["ratio"] ** 2
    name, _, kind = model.partition("-")
    return {"base": 0.0, "pruned": full, "tuned": full / 2}[name] + (0.01 if kind else 0.0)


def evaluate(params: dict, model: str) -> None:
    """Write what stage evaluate writes."""
    import numpy as np
    import pandas as pd

    generator, worse = np.random.default_rng(1), harm(model, params)
    losses = 3 + worse + generator.normal(scale=0.1, size=WINDOWS)
    right = (generator.uniform(size=QUESTIONS) < 0.9 - 0.2 * worse).astype(int)
    with staged(f"metrics/outcomes/{model}") as folder:
        folder.mkdir()
        questions = pd.DataFrame({"task": "gap", "question": range(QUESTIONS), "acc": right, "answer": None})
        questions.to_parquet(folder / "questions.parquet", index=False)
        windows = pd.DataFrame({"set": "prose", "window": range(WINDOWS), "loss": losses, "tokens": 10})
        windows.to_parquet(folder / "windows.parquet", index=False)
        values = pd.DataFrame(columns=["task", "question", "metric", "filter", "value"])
        values.to_parquet(folder / "values.parquet", index=False)
    metrics = {"prose_ppl": float(np.exp(losses.mean())), "gap_acc": float(right.mean())}
    write_metrics(f"metrics/evaluate/{model}.json", metrics)
    write_details(f"metrics/details/evaluate/{model}.json", {"gap_acc_stderr": 0.05})


def profile(params: dict, model: str) -> None:
    """Write what stage profile writes."""
    shape = shape_of(config(0.0 if model == "base" else params["prune"]["ratio"]))
    gmacs = exact_macs(shape, params["profile"]["sequence_length"]) / 1e9
    metrics = {"parameters": parameters(shape), "gmacs": gmacs, "peak_memory_mib": 1000 * gmacs}
    compared = metrics | {"decode_tokens_per_second": 1 / gmacs}
    write_metrics(f"metrics/profile/{model}.json", compared if model != "tuned" else {})
    write_details(f"metrics/details/profile/{model}.json", {} if model != "tuned" else compared)


if __name__ == "__main__":
    print("GPU", os.environ.get("CUDA_VISIBLE_DEVICES"))
    stage = Path(__file__).parent.name
    arguments = [name_of(argument) for argument in sys.argv[1:2]]
    run_stage("-".join([stage, *arguments]), lambda: globals()[stage](read_params_file(), *arguments))
