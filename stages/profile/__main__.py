"""python -m stages.profile NAME: measure what a model costs into metrics/profile/NAME.json and metrics/details."""

import argparse
from pathlib import Path

import torch

from stages.common.outputs import write_details, write_metrics
from stages.common.params import RunParams, folder_of, load_section, name_of
from stages.common.stage import run_stage
from stages.common.torch_setup import setup_torch
from stages.models.checkpoint import load_model
from stages.models.config import check_context, read_config
from stages.profile.llama_cpp import engine_metrics
from stages.profile.macs import count_macs
from stages.profile.memory import memory_metrics, parameter_counts
from stages.profile.params import ProfileParams
from stages.profile.speed import speed_metrics

METRICS, DETAILS = Path("metrics/profile"), Path("metrics/details/profile")
COMPARED = (
    "parameters", "gmacs", "weights_mib", "peak_memory_mib", "decode_tokens_per_second",
    "active_parameters",  # of a mixture of experts
)  # fmt: skip
# Recovery changes no shape, so these models cost as much as before, and DVC shows no metric of them.
RECOVERED = ("tuned", "control")


def main(name: str, folder: str | Path) -> None:
    """Count parameters and MACs, measure memory and speed: in llama.cpp for a GGUF, else in torch."""
    params, run = load_section("profile", ProfileParams), load_section("run", RunParams)
    device = setup_torch(run)
    config, length = read_config(Path(folder)), params.sequence_length
    check_context("profile.sequence_length", length, config)
    check_context("profile.sequence_length + profile.decode_tokens", length + params.decode_tokens, config)
    gguf = next(iter(Path(folder).glob("*.gguf")), None)
    # Before the model is loaded into torch too, whose freed memory would be reused.
    engine = engine_metrics(gguf, params, run.threads) if gguf else {}
    model = load_model(folder, device)
    tokens = torch.randint(model.config.vocab_size, (1, params.sequence_length)).to(device)
    # Memory before speed: later passes reuse what earlier ones left allocated.
    costs = engine or memory_metrics(model, tokens) | speed_metrics(
        model, tokens, params.decode_tokens, params.repetitions
    )
    macs = count_macs(model, params.sequence_length)
    measured = parameter_counts(model) | {"macs": macs, "gmacs": macs / 1e9} | costs
    compared = {key: measured[key] for key in COMPARED if key in measured and name not in RECOVERED}
    write_metrics(METRICS / f"{name}.json", compared)
    write_details(DETAILS / f"{name}.json", {key: measured[key] for key in measured if key not in compared})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.profile", description=__doc__)
    parser.add_argument("name", help="base, pruned, tuned, or a name of section `models`; or the DVC stage's name")
    name = name_of(parser.parse_args().name)
    run_stage(f"profile-{name}", lambda: main(name, folder_of(name)))
