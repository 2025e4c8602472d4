"""python -m stages.evaluate NAME: evaluate a model into metrics/evaluate/NAME.json and metrics/details."""

import os

# Libraries read these when they are imported, and the processes that this one starts inherit them. All input is local
# files. A library's bar would be redrawn a thousand times in a log; the stage's own are not silenced.
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
os.environ.setdefault("TQDM_DISABLE", "1")

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from stages.common import processes, resume
from stages.common.errors import UserError
from stages.common.launch import run_parallel_stage
from stages.common.outputs import staged, write_details, write_metrics
from stages.common.params import RunParams, folder_of, load_section, name_of
from stages.common.torch_setup import arithmetic, precision, setup_torch
from stages.evaluate.generation import continuations
from stages.evaluate.harness import merge, run_tasks, scores, with_groups
from stages.evaluate.language_model import BranchingLM
from stages.evaluate.outcomes import headlines, only, question_outcomes, question_values, task_metrics
from stages.evaluate.params import EvaluateParams, TaskFunctions
from stages.evaluate.perplexity import (
    evaluation_windows,
    first_windows,
    perplexity,
    read_sets,
    window_losses,
    window_table,
)
from stages.evaluate.precision import cast_weights
from stages.evaluate.resume import Kept, remember
from stages.evaluate.tasks import read_tasks
from stages.models.checkpoint import load_model, load_tokenizer
from stages.models.sharding import load_sharded

PERPLEXITY, TASKS = Path("data/perplexity"), Path("data/tasks")
METRICS, DETAILS, OUTCOMES = Path("metrics/evaluate"), Path("metrics/details/evaluate"), Path("metrics/outcomes")


def main(name: str, folder: str | Path) -> None:
    """Measure perplexity on every set and every task's metrics, and write samples.

    An interrupted run continues within the set or task that it was in.
    """
    params, run = load_section("evaluate", EvaluateParams), load_section("run", RunParams)
    device = setup_torch(run, params.seed)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as cache, arithmetic():
        functions = load_section("data", TaskFunctions).task_functions
        sets, tasks = read_sets(PERPLEXITY), read_tasks(TASKS, params.tasks, Path(cache), functions)
        sharded = run.sharded and processes.size() > 1
        model = load_sharded(folder, device) if sharded else load_model(folder, device)
        tokenizer = load_tokenizer(folder)
        if params.chat_template and not tokenizer.chat_template:
            raise UserError(f"evaluate.chat_template = true, but the tokenizer in {folder} has no chat template")
        if sharded:
            processes.repeat()
        else:
            cast_weights(model)
        inputs = resume.digest(folder, PERPLEXITY, TASKS, Path(__file__).parent)
        state = resume.state_folder("evaluate", run.model_dump_json(), params.model_dump_json(), inputs)
        windows = {key: evaluation_windows(key, sets[key], tokenizer, params.sequence_length) for key in sets}
        used = {key: first_windows(each, params.tokens) for key, each in windows.items()}
        losses = {
            key: window_losses(model, each, params.batch_tokens, key, Kept(state / f"text {key}"))
            for key, each in used.items()
        }

        def measure_task(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
            name, settings = config["task"], (params.num_fewshot, params.limit, params.seed)
            answers = Kept(state / f"answers {name}")
            return remember(
                state / f"task {name}",
                lambda: scores(run_tasks(language_model, [config], *settings, answers, params.chat_template)),
            )

        language_model = BranchingLM(model, tokenizer, params.batch_tokens)
        results = with_groups(merge([measure_task(config) for config in tasks.configs]), tasks.groups)
        samples = continuations(model, tokenizer, params.prompts, params.new_tokens)

    if not processes.is_first():
        return
    compared = only(results, tasks.shown)
    with staged(OUTCOMES / name) as outcomes:
        outcomes.mkdir()
        question_outcomes(compared).to_parquet(outcomes / "questions.parquet", index=False)
        question_values(compared).to_parquet(outcomes / "values.parquet", index=False)
        (outcomes / "tasks.json").write_text(json.dumps(results["results"], indent=2) + "\n", encoding="utf-8")
        window_table(losses, params.sequence_length).to_parquet(outcomes / "windows.parquet", index=False)
        (outcomes / "samples.json").write_text(json.dumps(samples, indent=2) + "\n", encoding="utf-8")
    perplexities = {f"{key}_ppl": perplexity(losses[key]) for key in losses}
    measured, shown = task_metrics(compared), headlines(compared)
    write_metrics(METRICS / f"{name}.json", perplexities | shown)
    details: dict[str, Any] = {"precision": precision()}
    details |= {f"{key}_windows": len(used[key]) for key in used}
    details |= {f"{key}_windows_in_text": len(windows[key]) for key in windows}
    details |= {key: measured[key] for key in measured if key not in shown}
    write_details(DETAILS / f"{name}.json", details)
    resume.forget(state)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate", description=__doc__)
    parser.add_argument("name", help="base, pruned, tuned, or a name of section `models`; or the DVC stage's name")
    name = name_of(parser.parse_args().name)
    run_parallel_stage(f"evaluate-{name}", lambda: main(name, folder_of(name)))
