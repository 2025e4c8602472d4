"""Stage prune: models/base -> models/pruned, metrics/[details/]prune.json, metrics/prune_layers.csv."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pyarrow.parquet import ParquetFile
from transformers import PreTrainedModel

from stages.common import processes
from stages.common.launch import run_parallel_stage
from stages.common.outputs import staged, write_details, write_metrics
from stages.common.params import RunParams, load_section
from stages.common.torch_setup import precision, setup_torch
from stages.common.windows import random_windows, token_stream
from stages.models.checkpoint import load_model, load_tokenizer
from stages.models.config import check_context, read_config
from stages.models.paging import bring_in, load_paged, save_model
from stages.models.parts import Parts
from stages.prune.families import check_family
from stages.prune.memory import return_freed_memory
from stages.prune.params import PruneParams
from stages.prune.pruning import prune
from stages.prune.sharing import check_shared
from stages.prune.sizes import nonzero_parameters


def main() -> None:
    """Prune the base model as params.yaml says."""
    params = load_section("prune", PruneParams)
    device = setup_torch(load_section("run", RunParams), params.seed)
    tokenizer, calibration = load_tokenizer("models/base"), params.calibration
    config = read_config(Path("models/base"))
    check_family(params, config.model_type)
    check_shared(params, processes.size())
    check_context("prune.calibration.length", calibration.length, config)
    if params.budget is not None:
        check_context("prune.budget_length", params.budget_length, config)
    # Before the model is loaded: the tokens of a long text take as much memory as its gradients.
    texts = ParquetFile("data/calibration.parquet").read(["text"])["text"].to_pylist()
    windows = random_windows(
        token_stream(texts, tokenizer), calibration.windows, calibration.length, params.seed, "prune.calibration"
    )
    windows = windows.tensor_split(processes.size())[processes.rank()]
    del texts
    return_freed_memory()
    with staged("models/pruned") if processes.is_first() else temporary_folder() as folder:
        model = load_paged("models/base", folder, device) if params.streaming else load_model("models/base", device)
        params = params.with_ranges(len(Parts(model).layers))
        before = layer_sizes(model)
        pruned, details = prune(model, windows, params)
        after = dict(enumerate(layer_sizes(pruned)))
        if not processes.is_first():
            return
        save_model(pruned, tokenizer, folder)
    if len(after) < len(before):
        after = dict(zip(pruned.config.base_layers, after.values(), strict=True))
    layers = [
        {"layer": i} | after.get(i, dict.fromkeys(sizes, 0)) | {f"{key}_before": value for key, value in sizes.items()}
        for i, sizes in enumerate(before)
    ]
    with staged("metrics/prune_layers.csv") as file, file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, layers[0], lineterminator="\n")
        table.writeheader()
        table.writerows(layers)
    write_metrics("metrics/prune.json", {"ratio": details["ratio_actual"]})
    ranges = {"attention_layers": params.attention_layers, "mlp_layers": params.mlp_layers}
    write_details("metrics/details/prune.json", details | ranges | {"precision": precision()})


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder for what another process than the first would write, which is what that one writes."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def layer_sizes(model: PreTrainedModel) -> list[dict[str, int]]:
    """Return the widths and the parameters that are not zero of every layer."""
    sizes, parts = [], Parts(model)
    for widths, layer in zip(parts.widths, parts.layers, strict=True):
        bring_in(layer)
        sizes.append(
            {
                "query_heads": widths["num_attention_heads"],
                "kv_heads": widths["num_key_value_heads"],
                **({"experts": parts.mixture(layer).experts} if parts.has_experts else {}),
                "mlp_width": parts.mlp_width(layer),  # of an expert, where there are experts
                "parameters_nonzero": nonzero_parameters(layer),
            }
        )
    return sizes


if __name__ == "__main__":
    run_parallel_stage("prune", main)
