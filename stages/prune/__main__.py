"""Stage prune: models/base -> models/pruned, metrics/prune.json, metrics/prune_layers.csv."""

import pandas as pd
from transformers import PreTrainedModel

from stages.common.checkpoint import load_model, load_tokenizer, save_checkpoint
from stages.common.outputs import staged, write_metrics
from stages.common.params import RunParams, load_section
from stages.common.stage import run_stage
from stages.common.torch_setup import setup_torch
from stages.common.windows import random_windows, token_stream
from stages.prune import structures
from stages.prune.memory import return_freed_memory
from stages.prune.params import PruneParams
from stages.prune.sizes import nonzero_parameters
from stages.prune.surgery import layer_widths


def main() -> None:
    """Prune the base model as params.yaml says."""
    return_freed_memory()
    params = load_section("prune", PruneParams)
    device = setup_torch(load_section("run", RunParams), params.seed)
    model, tokenizer = load_model("models/base", device), load_tokenizer("models/base")
    texts = pd.read_parquet("data/calibration.parquet")["text"].tolist()
    calibration = params.calibration
    windows = random_windows(
        token_stream(texts, tokenizer), calibration.windows, calibration.length, params.seed, "prune.calibration"
    )
    before = layer_sizes(model)
    pruned, metrics = structures.load(params.chosen.structure).prune(model, windows, params)
    after = layer_sizes(pruned)
    if len(after) < len(before):
        after = after.set_axis(pruned.config.base_layers).reindex(before.index, fill_value=0)
    layers = after.join(before.add_suffix("_before")).rename_axis("layer")
    with staged("models/pruned") as folder:
        save_checkpoint(pruned, tokenizer, folder)
    with staged("metrics/prune_layers.csv") as file:
        layers.to_csv(file)
    write_metrics("metrics/prune.json", metrics)


def layer_sizes(model: PreTrainedModel) -> pd.DataFrame:
    """Return the widths and the parameters that are not zero of every layer, one row each."""
    names = {"num_attention_heads": "query_heads", "num_key_value_heads": "kv_heads", "intermediate_size": "mlp_width"}
    sizes = pd.DataFrame(layer_widths(model)).rename(columns=names)
    return sizes.assign(parameters_nonzero=[nonzero_parameters(layer) for layer in model.model.layers])


if __name__ == "__main__":
    run_stage("prune", main)
