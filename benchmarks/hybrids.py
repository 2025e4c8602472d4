"""Pruned, then low rank, then quantised: python benchmarks/hybrids.py [--only NAME ...] [--results FILE] [--table]

Run it where `dvc repro base` has made models/base and torchao is installed (`make torchao`). Each model of MODELS is
the base pruned in one or two steps, calibrated on 64 windows of 128 tokens of WikiText2's validation text, and written
in every format of FORMATS that holds it. Each file is a line of --results with its size and the perplexity on 16
windows of 1,024 tokens of WikiText2 and PTB; a later run measures only what is missing. Prints a table, and marks what
is on the front: no other file is at most as large and at most as bad on both texts.
"""

import argparse
import copy
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from in_memory import MIRROR, Base
from real_model import read_rows
from tabulate import tabulate

from stages.common.errors import UserError
from stages.export.formats import weights_mib, write
from stages.models.checkpoint import load_model

UNITS = {"method": "best", "round_to": 32}  # gguf-q4_0 has blocks of 32 weights
RANK = {"method": "svd_llm", "allocation": "global", "update": "realign"}
MODELS: dict[str, list[dict[str, Any]]] = {
    "base": [],
    "best 0.9": [UNITS | {"ratio": 0.1}],
    "best 0.8": [UNITS | {"ratio": 0.2}],
    "svd_llm 0.9": [RANK | {"ratio": 0.1}],
    "best 0.9, then svd_llm 0.9": [UNITS | {"ratio": 0.1}, RANK | {"ratio": 0.1}],
    "best 0.8, then svd_llm 0.9": [UNITS | {"ratio": 0.2}, RANK | {"ratio": 0.1}],
}
FORMATS = ("safetensors-bfloat16", "torchao-int8", "gguf-q4_0")
PPL = ("wikitext2_tokenised_ppl", "ptb_ppl")


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=MIRROR, help="folder of the texts; default: %(default)s")
    parser.add_argument("--only", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="NAME")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/hybrids.jsonl"), help="see above")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if not options.table:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        there = {(row["model"], row["format"]) for row in read_rows(options.results)}
        base = Base("cpu", options.mirror)
        for name in options.only:
            if missing := [kind for kind in FORMATS if (name, kind) not in there]:
                measure(base, name, missing, options.results)
    print(table(read_rows(options.results)))


def measure(base: Base, name: str, formats: list[str], results: Path) -> None:
    """Append to `results` a row for the model in each of `formats` that holds it."""
    model = base.model
    for step in MODELS[name]:
        model = base.pruned(42, model, **step)
    for kind in formats:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / kind
            try:
                write(copy.deepcopy(model), base.tokenizer, kind, folder)
            except UserError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            exported = load_model(folder)
            if not hasattr(exported.config, "quantization_config"):
                exported = exported.float()
            row = {"model": name, "format": kind, "parameters": model.num_parameters(), "mib": weights_mib(folder)}
            row |= base.perplexities(exported)
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")


def table(rows: list[dict[str, Any]]) -> str:
    """Return a row for each file, the smallest first."""
    keys = ("mib", *PPL)
    lines = []
    for row in sorted(rows, key=lambda each: each["mib"]):
        others = [each for each in rows if each is not row]
        beaten = any(all(other[key] <= row[key] for key in keys) for other in others)
        quality = [f"{row[key]:.2f}" for key in PPL]
        lines.append([row["model"], row["format"], f"{row['mib']:.0f}", *quality, "" if beaten else "front"])
    return tabulate(lines, ["model", "format", "MiB", "WikiText2", "PTB", ""], "pipe", disable_numparse=True)


if __name__ == "__main__":
    main()
