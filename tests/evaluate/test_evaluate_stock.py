"""The thesis's tasks and texts from the mirror, through the data stage's files, against lm-eval itself."""

import logging
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from evaluate_helpers import VOCABULARY, hellaswag_folder, tiny_model, tiny_tokenizer
from helpers import ROOT, SHARED, tiny_llama
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from analysis.averages import majority_shares
from stages.common.errors import UserError
from stages.common.task_files import STOCK
from stages.data.params import DataParams
from stages.data.public import collect
from stages.data.task_files import write_task
from stages.evaluate.harness import run_tasks, scores
from stages.evaluate.language_model import BranchingLM
from stages.evaluate.outcomes import question_outcomes, task_metrics
from stages.evaluate.perplexity import evaluation_windows, perplexity, window_losses
from stages.evaluate.tasks import read_tasks
from thesis import printed

MIRROR = SHARED / "data" / "mirror"
TASKS = {  # task: lm-eval's definition, its file in the mirror
    "boolq": ("super_glue/boolq/default.yaml", "aps/super_glue/boolq/validation.parquet"),
    "winogrande": ("winogrande/default.yaml", "allenai/winogrande/winogrande_xl/validation.parquet"),
    "arc_challenge": ("arc/arc_challenge.yaml", "allenai/ai2_arc/ARC-Challenge/test.parquet"),
    "openbookqa": ("openbookqa/openbookqa.yaml", "allenai/openbookqa/main/test.parquet"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "Rowan/hellaswag/validation.parquet"),
}
SETS = ["wikitext2_tokenised", "ptb"]
SECTION = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"] | {
    "source": "mirror",
    "tasks": list(TASKS),
    "perplexity": SETS,
    "calibration": "gururise/GPTeacher-Roleplay",
    "instructions": "gururise/GPTeacher-Roleplay",
}
in_mirror = pytest.mark.skipif(not MIRROR.is_dir(), reason="the mirror of real data is not beside the project")


@pytest.fixture(scope="module")
def collected():
    return collect(DataParams.model_validate(SECTION | {"mirror": str(MIRROR)}), few_shot=False)


@pytest.fixture(scope="module")
def task_folder(collected, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for name, task in collected.tasks.items():
        write_task(name, task, folder, folder)
    return folder


def stock_config(name: str, cache: Path) -> dict:
    """Return lm-eval's own definition on the mirror's own file."""
    definition, file = TASKS[name]
    split = Path(file).stem
    splits = {f"{key}_split": key if key == split else None for key in ("validation", "test")}
    data = {"data_files": {split: str(MIRROR / file)}, "cache_dir": str(cache)}
    location = {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": data, "training_split": None}
    return load_yaml(STOCK / definition) | location | splits


def requests(config: dict, limit: int = 100) -> list[tuple]:
    """Return what lm-eval asks a model for: (document, prompt, continuation), and the right answer of each document."""
    (task,) = TaskManager(include_defaults=False).load([config])["tasks"].values()
    task.build_all_requests(limit=limit)
    documents = list(task.eval_docs)[:limit]
    return [(each.doc_id, each.args) for each in task.instances] + [task.doc_to_target(doc) for doc in documents]


@in_mirror
@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_prompts_and_answers_are_those_of_lm_eval(name, task_folder, tmp_path):
    (ours,) = read_tasks(task_folder, [name], tmp_path / "ours").configs
    theirs = stock_config(name, tmp_path / "theirs")
    asked = requests(ours)
    assert asked == requests(theirs)
    assert len(asked) >= 300
    fields, wanted = ({key for key, value in config.items() if value is not None} for config in (ours, theirs))
    assert fields == wanted
    assert ours["metric_list"] == theirs["metric_list"] and ours["output_type"] == theirs["output_type"]


@in_mirror
@pytest.mark.slow
def test_scores_are_those_of_lm_eval(task_folder, tmp_path):
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    configs = read_tasks(task_folder, list(TASKS), tmp_path / "ours").configs
    ours = run_tasks(BranchingLM(model, tokenizer, 2048), configs, num_fewshot=0, limit=8, seed=1)
    stock = [stock_config(name, tmp_path / "theirs") for name in TASKS]
    theirs = run_tasks(HFLM(model, tokenizer=tokenizer, batch_size=8), stock, num_fewshot=0, limit=8, seed=1)
    assert task_metrics(ours) == task_metrics(theirs)
    assert {f"{name}_acc" for name in TASKS} <= task_metrics(ours).keys()
    assert question_outcomes(ours).equals(question_outcomes(theirs))


class Guesser(LM):
    """A model that finds all answers equally likely, in no time."""

    def loglikelihood(self, requests, disable_tqdm=False):
        return [(0.0, False)] * len(requests)

    loglikelihood_rolling = generate_until = loglikelihood


@in_mirror
@pytest.mark.slow
def test_the_majority_answer_of_boolq_and_of_no_task_whose_choices_differ(task_folder, tmp_path):
    configs = read_tasks(task_folder, ["boolq", "winogrande", "openbookqa"], tmp_path).configs
    questions = question_outcomes(scores(run_tasks(Guesser(), configs, num_fewshot=0, limit=None, seed=1)))
    assert len(questions[questions["task"] == "boolq"]) == 3270
    shares = majority_shares({"base": questions})
    assert shares == {"boolq": pytest.approx(0.6217, abs=5e-5)}
    assert round(100 * shares["boolq"], 2) == printed.read_tasks().loc["boolq", "majority"]


@in_mirror
@pytest.mark.slow
@pytest.mark.parametrize(("name", "file", "column"), [
    ("wikitext2_tokenised", "wikitext/wikitext-2-v1/test.parquet", "text"),
    ("ptb", "ptb_text_only/penn_treebank/validation.parquet", "sentence"),
])  # fmt: skip
def test_perplexity_is_that_of_ten_lines(name, file, column, collected):
    # The whole of either text, a million tokens, takes some seconds of a model of one layer.
    model = tiny_llama(layers=1, hidden=16, mlp=8, heads=2, kv_heads=1, vocab=VOCABULARY)
    tokenizer, length = tiny_tokenizer(), 256
    # LLM-Pruner's convention, on the mirror's own file.
    rows = pd.read_parquet(MIRROR / file)[column].tolist()
    tokens = torch.tensor(tokenizer("\n\n".join(rows))["input_ids"])
    losses = []
    with torch.no_grad():
        for batch in tokens[: len(tokens) // length * length].view(-1, length).split(16):
            losses += [model(batch, labels=batch).loss.item()] * len(batch)
    expected = math.exp(sum(losses) / len(losses))

    texts = collected.perplexity[name]
    assert texts == rows
    windows = evaluation_windows(name, texts, tokenizer, length)
    assert perplexity(window_losses(model, windows, 4096, name)) == pytest.approx(expected, rel=1e-6)


def test_functions_of_a_definition_are_kept(tmp_path):
    (config,) = read_tasks(hellaswag_folder(tmp_path / "tasks"), "all", tmp_path / "cache").configs
    asked = requests(config)
    assert asked == [*[(0, ("Roofing: A man sits on a roof.. He", f"  falls {i}.")) for i in range(4)], 2]


def test_a_definition_that_lm_eval_has_not(tmp_path):
    folder = hellaswag_folder(tmp_path / "tasks", "hellaswag/gone.yaml")
    with pytest.raises(UserError, match=r"hellaswag\.yaml: lm-eval [0-9.]+ has no task file hellaswag/gone\.yaml"):
        read_tasks(folder, "all", tmp_path / "cache")
