"""Stage prune: models/base -> models/pruned, metrics/prune.json, metrics/prune_layers.csv."""

import pandas as pd

from stages.common.checkpoint import load_model, load_tokenizer, save_checkpoint
from stages.common.outputs import staged, write_metrics
from stages.common.params import RunParams, load_section
from stages.common.stage import run_stage
from stages.common.torch_setup import setup_torch
from stages.common.windows import random_windows, token_stream
from stages.prune import structures
from stages.prune.params import PruneParams
from stages.prune.surgery import layer_widths


def main() -> None:
    """Prune the base model as params.yaml says."""
    params = load_section("prune", PruneParams)
    device = setup_torch(load_section("run", RunParams), params.seed)
    model, tokenizer = load_model("models/base", device), load_tokenizer("models/base")
    texts = pd.read_parquet("data/calibration.parquet")["text"].tolist()
    calibration = params.calibration
    windows = random_windows(
        token_stream(texts, tokenizer), calibration.windows, calibration.length, params.seed, "prune.calibration"
    )
    widths_before = layer_widths(model)
    pruned, metrics = structures.load(params.chosen.structure).prune(model, windows, params)
    layers = pd.DataFrame(
        {
            "layer": range(len(widths_before)),
            **columns(layer_widths(pruned), ""),
            **columns(widths_before, "_before"),
        }
    )
    with staged("models/pruned") as folder:
        save_checkpoint(pruned, tokenizer, folder)
    with staged("metrics/prune_layers.csv") as file:
        layers.to_csv(file, index=False)
    write_metrics("metrics/prune.json", metrics)


def columns(widths: list[dict[str, int]], suffix: str) -> dict[str, list[int]]:
    """Return the widths of all layers as table columns."""
    names = {"query_heads": "num_attention_heads", "kv_heads": "num_key_value_heads", "mlp_width": "intermediate_size"}
    return {f"{name}{suffix}": [each[key] for each in widths] for name, key in names.items()}


if __name__ == "__main__":
    run_stage("prune", main)
