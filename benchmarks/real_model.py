"""The goals for a real model: python benchmarks/real_model.py [--mirror DIR] [--methods taylor best] [--table]

The first table: a fifth of the parameters of the package's model (base.source: package), or of the one in --base,
removed from layers [2, 28) by every method. stages.prune does it, in a process of its own whose CPU seconds and peak of
resident memory are shown, imports and files included; it looks at 64 windows of 128 tokens of WikiText2's validation
text. stages.evaluate then takes the perplexity on the first 16 windows of 1,024 tokens of WikiText2's test and PTB's
validation text. The texts come from DIR, laid out as for data.mirror, rows joined by blank lines. Each measurement is a
line of --results, and a later run resumes; lines of another base, other texts or other code of stages/prune are
ignored. --table prints the stored results.

The second table compares the first one with the goals, and also the last run of the project in the working directory,
from its metrics/.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# No torch here: Linux counts the memory of the process that starts a stage into the stage's peak.
from bars import MOST_PPL, bars_table, pruning_bars, run_bars  # noqa: E402 - the path has to be there first
from pandas import DataFrame  # noqa: E402
from tabulate import tabulate  # noqa: E402

from analysis.results import read_json  # noqa: E402
from stages.common.errors import UserError  # noqa: E402
from stages.common.stage import run  # noqa: E402
from stages.common.yaml_file import read_yaml  # noqa: E402
from stages.data.datasets import DATASETS  # noqa: E402
from stages.data.library import texts_of  # noqa: E402
from stages.data.readers import LoadedSplit, mirror_reader  # noqa: E402

MIRROR = ROOT.parent / "shared" / "data" / "mirror"
METHODS = {
    "taylor": {"method": "taylor", "allocation": None},
    "obs_realign": {"method": "obs_realign", "allocation": None},
    "best": {"method": "best", "allocation": None},
    "best, fisher": {"method": "best", "allocation": "fisher"},
    "channel_taylor": {"method": "channel_taylor", "allocation": None},
    "channel_pca": {"method": "channel_pca", "allocation": None},
    "channel_realign": {"method": "channel_realign", "allocation": None},
}
HEAD = ["method", "parameters kept", "WikiText2", "PTB", "CPU seconds", "to taylor's", "peak MiB"]


def main() -> None:
    """Measure what is missing and print the tables."""
    options = arguments()
    texts = read_texts(options.mirror)
    key = state(options, texts)
    if not options.table:
        measure(options, key, texts)
    found = {row["method"]: row for row in read_rows(options.results) if row["state"] == key}
    if found:
        print(pruning_table(found), end="\n\n")
    else:
        print("nothing is measured of this base, these texts and this code yet\n")
    print(bars_table([*pruning_bars(found), *run_bars(Path("metrics"))]))


def measure(options: argparse.Namespace, key: str, texts: dict[str, LoadedSplit]) -> None:
    """Append to the results what they lack of the base and the methods."""
    there = {row["method"] for row in read_rows(options.results) if row["state"] == key}
    wanted = [name for name in (*options.methods, "base") if name not in there]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder, options, texts)
        for method in wanted:
            row = {"state": key, "method": method} | measured(folder, method, options.threads)
            options.results.parent.mkdir(parents=True, exist_ok=True)
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{method} done", file=sys.stderr)


def lay_out(folder: Path, options: argparse.Namespace, texts: dict[str, LoadedSplit]) -> None:
    """Make `folder` a project: its texts, its params for the base, and the base."""
    for name in ("data/perplexity", "data/tasks", "data/text", "models"):
        (folder / name).mkdir(parents=True)
    for file, read in texts.items():
        DataFrame({"text": texts_of(file, read.table)}).to_parquet(folder / file)
    if options.base:
        (folder / "models/base").symlink_to(options.base.resolve())
    else:
        write_params(folder, METHODS["taylor"], options.threads)
        run_stage(folder, "base")


def read_texts(mirror: Path) -> dict[str, LoadedSplit]:
    """Return every text by its file in a project, the calibration text first; UserError for one the mirror lacks."""
    held_out = {f"data/perplexity/{name}.parquet": (name, str(DATASETS[name].held_out)) for name in MOST_PPL}
    texts, read = {}, mirror_reader(str(mirror))
    for file, (name, split) in ({"data/calibration.parquet": ("wikitext2_tokenised", "validation")} | held_out).items():
        found = read(DATASETS[name], split)
        if found is None:
            raise UserError(f"{mirror / DATASETS[name].places(split)[0]} is missing; expected: the text of {name}")
        texts[file] = found
    return texts


def measured(folder: Path, method: str, threads: int) -> dict[str, float]:
    """Return what pruning by `method` costs and leaves; of the base its perplexities alone."""
    write_params(folder, METHODS.get(method, METHODS["taylor"]), threads)
    found: dict[str, float] = {"parameters_kept": 1.0}
    if method != "base":
        used = run_stage(folder, "prune")
        found = {
            "parameters_kept": read_json(folder / "metrics/details/prune.json")["parameters_kept"],
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "peak_mib": round(used.ru_maxrss / 1024),
        }
    model = "base" if method == "base" else "pruned"
    run_stage(folder, "evaluate", model)
    return found | {name: read_json(folder / f"metrics/evaluate/{model}.json")[f"{name}_ppl"] for name in MOST_PPL}


def write_params(folder: Path, choices: dict[str, str | None], threads: int) -> None:
    """Write the params.yaml of `folder`: this project's, and the conditions of the measurement."""
    params = read_yaml(ROOT / "params.yaml")
    params["run"] = {"device": "cpu", "threads": threads, "precision": "auto", "processes": 1, "sharded": False}
    params["base"] |= {"source": "package", "dtype": "float32"}
    params["prune"] |= dict.fromkeys(("structure", "criterion", "update", "pattern", "budget"))
    params["prune"] |= {"ratio": 0.2, "ratio_of": "parameters", "attention_layers": [2, 28], "mlp_layers": [2, 28]}
    params["prune"] |= {"iterative_steps": 1, "round_to": 1, "layout": "free", "streaming": False, "seed": 42}
    params["prune"] |= {"grouping": "sum", "taylor": "param_first", "calibration": {"windows": 64, "length": 128}}
    params["prune"] |= choices
    params["evaluate"] |= {"sequence_length": 1024, "tokens": 16 * 1024, "tasks": [], "prompts": []}
    (folder / "params.yaml").write_text(json.dumps(params))  # JSON is YAML


def run_stage(folder: Path, stage: str, *arguments: str) -> Any:
    """Run a stage in the project `folder` and return its resource usage; exit with its code where it fails."""
    command = [sys.executable, "-m", f"stages.{stage}", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)})
    _, status, used = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(code)
    return used


def state(options: argparse.Namespace, texts: dict[str, LoadedSplit]) -> str:
    """Return a digest of all that the measurements depend on."""
    parts = [str(options.threads), *(str(read.record["sha256"]) for read in texts.values())]
    files = sorted((ROOT / "stages/prune").rglob("*.py"))
    files += sorted(options.base.glob("*.safetensors")) if options.base else []
    parts += [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    if not options.base:
        parts.append(str(read_yaml(ROOT / "params.yaml")["base"]["sha256"]))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the results, none where there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def pruning_table(found: dict[str, dict[str, Any]]) -> str:
    """Return the first table, a row for the base and for every method that is measured."""
    taylor = found.get("taylor", {}).get("cpu_seconds")
    rows = []
    for name in ("base", *METHODS):
        if row := found.get(name):
            cpu = row.get("cpu_seconds")
            times = f"{cpu / taylor:.2f}" if cpu and taylor else ""
            quality = [f"{row[key]:.2f}" for key in MOST_PPL]
            rows.append([name, f"{row['parameters_kept']:.4f}", *quality, cpu, times, row.get("peak_mib")])
    return tabulate(rows, HEAD, "pipe", disable_numparse=True)


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=MIRROR, help="folder of the texts; default: %(default)s")
    parser.add_argument("--base", type=Path, help="checkpoint to prune; default: the package's model, made anew")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/real_model.jsonl", help="see above")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    run("real_model", main)
