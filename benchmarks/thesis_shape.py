"""Tables 3 and 7 of the thesis without its weights: python benchmarks/thesis_shape.py (make thesis-shape).

TinyLlama's shape with random weights, pruned by the real stages, each in a process of its own, at the thesis's ratios,
by l2 and by taylor (10 windows of 64 tokens), in float32 and bfloat16. Prints parameters, computation under both
conventions, memory of the weights, and the time and memory of each pruning; fails if a count differs from the expected
one. Needs 15 GB of disk in the temporary folder. --dtype, --method and --ratio select a part.
"""

import argparse
import json
import math
import os
import pydoc_data.topics
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from tabulate import tabulate
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from analysis.arithmetic import exact_macs, parameters, shape_of  # noqa: E402
from stages.common.params import read_params_file  # noqa: E402
from stages.models.checkpoint import load_model  # noqa: E402 - the path has to be there first
from stages.profile.macs import count_macs  # noqa: E402
from thesis.arithmetic import PRINTED_BASE_MACS, thesis_macs  # noqa: E402

RATIOS, METHODS, DTYPES = (0.3, 0.4, 0.7), ("l2", "taylor"), ("float32", "bfloat16")
LAYERS, TOKENS = [4, 18], 64
EXPECTED = {  # ratio: parameters, MACs as the thesis counts them; 0 is the base, like for like
    0: (1_100_048_384, 66_218_754_048),
    0.3: (921_651_200, 54_798_305_792),
    0.4: (873_224_192, 51_697_968_384),
    0.7: (694_827_008, 40_277_520_128),
}
LIMITS_GIB = {
    ("float32", "l2"): 5.5,
    ("float32", "taylor"): 6.0,
    ("bfloat16", "l2"): 2.75,
    ("bfloat16", "taylor"): 3.0,
}
MIB = 2**20


def main(dtypes: list[str], methods: list[str], ratios: list[float]) -> int:
    """Measure, print, and return the exit code: 1 if a number is not as expected or a limit is exceeded."""
    costs: dict[float, dict[str, float]] = {}
    runs, wrong = [], []
    bar = tqdm(total=len(dtypes) * (1 + len(methods) * len(ratios)), mininterval=1)
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as name:
            project = make_project(Path(name))
            run_stage(project, "base", bar, dtype=dtype)
            wrong += record(costs, 0, project / "models/base", dtype)
            for method in methods:
                for ratio in ratios:
                    taken = run_stage(project, "prune", bar, dtype=dtype, method=method, ratio=ratio)
                    wrong += record(costs, ratio, project / "models/pruned", dtype)
                    peak, limit = taken["peak_resident_mib"] / 1024, LIMITS_GIB[dtype, method]
                    runs.append([dtype, method, ratio, f"{peak:.2f}", f"{limit:.2f}", f"{taken['wall_seconds']:.0f}"])
                    if peak > limit:
                        wrong.append(f"{dtype} {method} {ratio}: {peak:.2f} GiB resident, more than {limit}")
    bar.close()
    print(tables(costs, runs))
    print(*wrong, sep="\n")
    return 1 if wrong else 0


def make_project(folder: Path) -> Path:
    """Return `folder` with what the stages read: text to train a tokenizer on and to calibrate with."""
    texts = pd.DataFrame({"text": list(pydoc_data.topics.topics.values())})
    (folder / "data" / "text").mkdir(parents=True)
    texts.to_parquet(folder / "data/text/train.parquet")
    texts.to_parquet(folder / "data/calibration.parquet")
    return folder


def run_stage(project: Path, stage: str, bar: tqdm, dtype: str, method="l2", ratio=0.0) -> dict[str, float]:
    """Run a stage in `project` on the thesis's settings and return its wall time and peak resident memory."""
    params = read_params_file(ROOT / "params.yaml")
    params["base"] |= {"source": "shape", "path": str(ROOT / "stages/base/shapes/tinyllama"), "dtype": dtype}
    params["prune"] |= {
        "method": method, "structure": None, "criterion": None, "allocation": None, "update": None, "pattern": None,
        "ratio": ratio, "ratio_of": "groups", "budget": None, "attention_layers": LAYERS, "mlp_layers": LAYERS,
        "taylor": "param_first",
        "iterative_steps": 1, "round_to": 1, "layout": "free",
        "calibration": params["prune"]["calibration"] | {"windows": 10, "length": TOKENS},
    }  # fmt: skip
    (project / "params.yaml").write_text(json.dumps(params), encoding="utf-8")  # JSON is YAML
    bar.set_description(f"{dtype} {stage} {method} {ratio:g}" if stage == "prune" else f"{dtype} {stage}")
    subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=project, check=True, env=environment())
    bar.update()
    return json.loads((project / f"metrics/runtime/{stage}.json").read_text(encoding="utf-8"))


def environment() -> dict[str, str]:
    """Return this process's environment with the project on Python's path."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def record(costs: dict[float, dict[str, float]], ratio: float, folder: Path, dtype: str) -> list[str]:
    """Add the costs of the checkpoint in `folder` to its row, and return what is not as expected or as before."""
    shape = shape_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    counted, numbers = count_macs(model, TOKENS), saved_numbers(folder)
    row = {"parameters": numbers, "thesis": thesis_macs(shape, TOKENS), "exact": counted}
    costs.setdefault(ratio, row)[f"{dtype} MiB"] = weights_bytes(folder, numbers, dtype) / MIB
    problems = [f"ratio {ratio}: {key} differs between runs" for key in row if costs[ratio][key] != row[key]]
    if (numbers, row["thesis"]) != EXPECTED[ratio]:
        problems.append(f"ratio {ratio}: {numbers:,} parameters, {row['thesis']:,} MACs; expected {EXPECTED[ratio]}")
    if counted != exact_macs(shape, TOKENS) or numbers != parameters(shape):
        problems.append(f"ratio {ratio}: ptflops and the closed formula differ")
    return problems


def saved_numbers(folder: Path) -> int:
    """Return how many numbers the safetensors files of `folder` hold."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as content:
            total += sum(math.prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
    return total


def weights_bytes(folder: Path, numbers: int, dtype: str) -> int:
    """Return the bytes that the weights take on the CUDA device, or by arithmetic where there is none."""
    if not torch.cuda.is_available():
        return numbers * getattr(torch, dtype).itemsize
    model = load_model(folder, "cuda")
    taken = torch.cuda.memory_allocated()
    del model
    return taken


def tables(costs: dict[float, dict[str, float]], runs: list[list]) -> str:
    """Return the three tables as Markdown."""
    base = costs[0]
    dtypes = [dtype for dtype in DTYPES if f"{dtype} MiB" in base]
    names = {ratio: f"{ratio:.0%}" if ratio else "base" for ratio in costs}
    share = {ratio: {key: f"{100 * row[key] / base[key]:.2f}" for key in base} for ratio, row in costs.items()}
    before = base["parameters"]
    table3 = [
        [names[ratio], f"{before:,}", f"{row['parameters']:,}", share[ratio]["parameters"]]
        for ratio, row in costs.items()
        if ratio
    ]
    table7 = [
        [names[ratio], f"{row['thesis']:,}", share[ratio]["thesis"], f"{row['exact']:,}", share[ratio]["exact"]]
        + [f"{row[f'{dtype} MiB']:.1f}" for dtype in dtypes]
        + [share[ratio][f"{dtypes[0]} MiB"]]
        for ratio, row in costs.items()
    ]
    where = f"measured on {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "by arithmetic"
    parts = [
        ("Table 3: parameters", ["ratio", "before", "after", "kept %"], table3),
        (
            f"Table 7: MACs of {TOKENS} tokens under both conventions; memory of the weights, {where}",
            ["ratio", "thesis", "%", "exact", "%", *(f"{dtype} MiB" for dtype in dtypes), "%"],
            table7,
        ),
        (
            f"Pruning: peak resident memory of the whole stage, {torch.get_num_threads()} threads seen",
            ["dtype", "method", "ratio", "peak GiB", "limit GiB", "seconds"],
            runs,
        ),
    ]
    note = f"The thesis printed {PRINTED_BASE_MACS:,} MACs for its base, by another convention than for the rest.\n"
    return (
        "\n".join(f"{title}\n\n{tabulate(rows, head, 'pipe', disable_numparse=True)}\n" for title, head, rows in parts)
        + note
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--ratio", nargs="+", type=float, choices=RATIOS, default=RATIOS)
    arguments = parser.parse_args()
    sys.exit(main(arguments.dtype, arguments.method, arguments.ratio))
