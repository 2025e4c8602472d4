"""Evaluation against lm-eval's own HFLM: python benchmarks/evaluation.py [--size 100M] [--documents 40]

The first documents of four real tasks (../shared/data/mirror), by lm-eval's definitions, with random Llamas of the
demo's size and of 100 M parameters, float32 on the CPU. Each measurement runs in its own process, ours and HFLM's in
turn. Times are medians of wall time and of CPU time, which other jobs disturb less. They cover everything from the task
file to the metrics: reading, prompts, encoding, scores, standard errors; imports and loading of the model are excluded
on both sides. Peak memory is that of the whole process.

HFLM is timed with its default cache of logits. That cache mixes up positions when one text is split into context and
answer at two places (lm-eval 0.4.13), so log-likelihoods are compared with those of HFLM(logits_cache=False).
"""

import argparse
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tabulate import tabulate
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stages.base.tokenizer import train_tokenizer  # noqa: E402 - the path has to be there first
from stages.common.params import RunParams, read_params_file  # noqa: E402
from stages.common.torch_setup import setup_torch  # noqa: E402
from stages.models.checkpoint import load_model, load_tokenizer, save_checkpoint  # noqa: E402
from stages.profile.memory import resident_bytes  # noqa: E402

MIRROR = ROOT.parent / "shared" / "data" / "mirror"
TASKS = {  # task: lm-eval's definition, its file in the mirror, the goal for 100 M parameters
    "boolq": ("super_glue/boolq/default.yaml", "aps/super_glue/boolq/validation.parquet", 1.3),
    "winogrande": ("winogrande/default.yaml", "allenai/winogrande/winogrande_xl/validation.parquet", 1.4),
    "arc_challenge": ("arc/arc_challenge.yaml", "allenai/ai2_arc/ARC-Challenge/test.parquet", 2.8),
    "openbookqa": ("openbookqa/openbookqa.yaml", "allenai/openbookqa/main/test.parquet", 2.4),
}
TOTAL_GOALS = {"demo": 1.7}
TEXTS = ("wikitext/wikitext-2-v1/test.parquet", "gururise/GPTeacher-Roleplay/train.parquet")  # for the tokenizer
DOCUMENTS = {"demo": 200, "100M": 40}
SHAPES = {"100M": {"vocab_size": 16000, "hidden_size": 768, "intermediate_size": 2048, "layers": 12, "heads": 12,
                   "kv_heads": 4, "tie_embeddings": False}}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One process's evaluation of all tasks."""

    seconds: dict[str, float]  # task: from its file to its metrics
    cpu_seconds: dict[str, float]  # task: the same, of all threads
    log_likelihoods: dict[str, list[float]]  # task: of every answer of every document
    metrics: dict[str, float]
    outcomes: pd.DataFrame
    peak_mib: float


def main(sizes: list[str], documents: int | None, repetitions: int, batch_size: int, threads: int) -> None:
    """Print one table per size."""
    if not MIRROR.is_dir():
        sys.exit(f"nothing to measure on: {MIRROR} is not there")
    for size in sizes:
        limit = documents or DOCUMENTS[size]
        with tempfile.TemporaryDirectory() as name:
            parameters = write_model(size, Path(name))
            settings = (name, limit, batch_size, threads)
            rounds: dict[str, list[Measured]] = {"ours": [], "hflm": []}
            for _ in tqdm(range(repetitions), desc=f"evaluation, {size}"):
                for side, done in rounds.items():
                    done.append(in_new_process(side, *settings))
            exact = in_new_process("hflm-uncached", *settings)
        print(f"\n{size}: {parameters:,} parameters, {limit} documents per task, {repetitions} repetitions, {threads} "
              f"threads, HFLM with batches of {batch_size}, torch {torch.__version__}\n")  # fmt: skip
        print(table(size, rounds["ours"], rounds["hflm"], exact), flush=True)


def write_model(size: str, folder: Path) -> int:
    """Write a random Llama of `size` and a tokenizer trained on the mirror to `folder`; return its parameters."""
    shape = SHAPES.get(size) or read_params_file(ROOT / "params.yaml")["base"]
    texts = [row for file in TEXTS for row in pd.read_parquet(MIRROR / file).iloc[:, -1].tolist()]
    tokenizer = train_tokenizer(texts, shape["vocab_size"])
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape["hidden_size"],
            intermediate_size=shape["intermediate_size"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"],
            tie_word_embeddings=shape["tie_embeddings"],
            max_position_embeddings=1024,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )
    save_checkpoint(model, tokenizer, folder)
    return model.num_parameters()


def in_new_process(*arguments) -> Measured:
    """Return `measure(*arguments)` of a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, *arguments).result()


def measure(side: str, folder: str, limit: int, batch_size: int, threads: int) -> Measured:
    """Evaluate the model in `folder` on the first `limit` documents of every task, by `side`."""
    import lm_eval.utils
    from lm_eval.models.huggingface import HFLM

    from stages.evaluate.harness import run_tasks
    from stages.evaluate.language_model import BranchingLM
    from stages.evaluate.outcomes import question_outcomes, task_metrics

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if side != "ours":
        del lm_eval.utils.env.from_string  # our harness's cache of templates
    device = setup_torch(RunParams(device="cpu", threads=threads, precision="float32", processes=1, sharded=False))
    model, tokenizer = load_model(folder, device), load_tokenizer(folder)
    seconds, cpu_seconds, log_likelihoods, metrics, outcomes = {}, {}, {}, {}, []
    for task in TASKS:
        started, cpu_started = time.perf_counter(), time.process_time()
        if side == "ours":
            batch_tokens = read_params_file(ROOT / "params.yaml")["evaluate"]["batch_tokens"]
            language_model: HFLM = BranchingLM(model, tokenizer, batch_tokens)
        else:
            language_model = HFLM(model, tokenizer=tokenizer, batch_size=batch_size, logits_cache=side == "hflm")
        with tempfile.TemporaryDirectory() as cache:
            results = run_tasks(language_model, [stock_config(task, cache)], 0, limit, seed=1)
        seconds[task], cpu_seconds[task] = time.perf_counter() - started, time.process_time() - cpu_started
        samples = results["samples"][task]
        log_likelihoods[task] = [total for sample in samples for total, _ in sample["filtered_resps"]]
        metrics |= task_metrics(results)
        outcomes.append(question_outcomes(results))
    return Measured(
        seconds, cpu_seconds, log_likelihoods, metrics, pd.concat(outcomes), resident_bytes("VmHWM") / 2**20
    )


def stock_config(task: str, cache: str) -> dict[str, Any]:
    """Return lm-eval's own definition with the mirror's file in the place of the hub's."""
    from lm_eval.tasks._yaml_loader import load_yaml

    from stages.common.task_files import STOCK

    definition, file, _ = TASKS[task]
    split = Path(file).stem
    data = {"data_files": {split: str(MIRROR / file)}, "cache_dir": cache}
    splits = {f"{key}_split": key if key == split else None for key in ("training", "validation", "test")}
    location = {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": data}
    return load_yaml(STOCK / definition) | location | splits


def table(size: str, ours: list[Measured], hflm: list[Measured], exact: Measured) -> str:
    """Return one row per task and one for all of them."""
    goals = {"total": TOTAL_GOALS[size]} if size in TOTAL_GOALS else {task: goal for task, (*_, goal) in TASKS.items()}
    rows = []
    for tasks in [[task] for task in TASKS] + [list(TASKS)]:
        name = tasks[0] if len(tasks) == 1 else "total"
        mine, stock, my_cpu, stock_cpu = (
            statistics.median(sum(getattr(each, clock)[task] for task in tasks) for each in side)
            for clock in ("seconds", "cpu_seconds")
            for side in (ours, hflm)
        )
        difference = max(
            abs(a - b)
            for task in tasks
            for a, b in zip(ours[0].log_likelihoods[task], exact.log_likelihoods[task], strict=True)
        )
        same = all(scored(each, tasks) == scored(ours[0], tasks) for each in (*hflm, exact))
        speed = [mine, stock, stock / mine, stock_cpu / my_cpu, goals.get(name, "")]
        rows.append([name, *speed, f"{difference:.1e}", "same" if same else "DIFFERENT"])
    head = [
        "task",
        "ours (s)",
        "HFLM (s)",
        "times faster",
        "by CPU time",
        "goal",
        "largest difference",
        "acc, acc_norm",
    ]
    peaks = [statistics.median(each.peak_mib for each in side) for side in (ours, hflm)]
    memory = f"peak resident memory: ours {peaks[0]:.0f} MiB, HFLM {peaks[1]:.0f} MiB"
    return f"{tabulate(rows, head, 'pipe', floatfmt='.2f', disable_numparse=[6])}\n\n{memory}"


def scored(measured: Measured, tasks: list[str]) -> tuple[dict[str, float], dict]:
    """Return the metrics of the tasks, and every question's outcome."""
    metrics = {name: value for name, value in measured.metrics.items() if name.startswith(tuple(tasks))}
    outcomes = measured.outcomes[measured.outcomes.task.isin(tasks)].drop(columns="answer")  # which no model gives
    return metrics, outcomes.fillna(-1).to_dict("list")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=("demo", "100M"), default=("demo", "100M"))
    parser.add_argument("--documents", type=int, help="of each task; 200 and 40 if not given")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8, help="HFLM's")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    main(options.size, options.documents, options.repetitions, options.batch_size, options.threads)
