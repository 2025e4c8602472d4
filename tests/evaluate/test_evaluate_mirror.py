"""BranchingLM against HFLM on real questions, by lm-eval's own task definitions."""

import logging
from pathlib import Path

import lm_eval.tasks
import pytest
import torch
from evaluate_helpers import VOCABULARY, tiny_model, tiny_tokenizer
from helpers import SHARED, tiny_llama
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

from stages.evaluate.harness import run_tasks
from stages.evaluate.language_model import BranchingLM
from stages.evaluate.outcomes import question_outcomes, task_metrics

MIRROR = SHARED / "data" / "mirror"
STOCK = Path(lm_eval.tasks.__file__).parent
TASKS = {
    "boolq": ("super_glue/boolq/default.yaml", "aps/super_glue/boolq/validation.parquet"),
    "winogrande": ("winogrande/default.yaml", "allenai/winogrande/winogrande_xl/validation.parquet"),
    "arc_challenge": ("arc/arc_challenge.yaml", "allenai/ai2_arc/ARC-Challenge/test.parquet"),
    "openbookqa": ("openbookqa/openbookqa.yaml", "allenai/openbookqa/main/test.parquet"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "Rowan/hellaswag/validation.parquet"),
}
pytestmark = pytest.mark.skipif(not MIRROR.is_dir(), reason="the mirror of real data is not beside the project")


def stock_task(name: str, cache: Path) -> dict:
    """Return lm-eval's own config of a task with the mirror's file in the place of the hub's."""
    definition, file = TASKS[name]
    split = Path(file).stem
    return load_yaml(STOCK / definition) | {
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(MIRROR / file)}, "cache_dir": str(cache)},
        **{f"{other}_split": other if other == split else None for other in ("training", "validation", "test")},
        "training_split": None,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GQA", "pruned"])
@pytest.mark.parametrize("name", TASKS)
def test_same_as_hflm(name, kind, tmp_path):
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model, tokenizer = tiny_model(kind), tiny_tokenizer()
    ours, theirs = (
        run_tasks(language_model, [stock_task(name, tmp_path)], num_fewshot=0, limit=60, seed=1)
        for language_model in (BranchingLM(model, tokenizer, 2048), HFLM(model, tokenizer=tokenizer, batch_size=8))
    )
    assert task_metrics(ours) == task_metrics(theirs)
    assert question_outcomes(ours).equals(question_outcomes(theirs))
    for mine, stock in zip(ours["samples"][name], theirs["samples"][name], strict=True):
        for (my_sum, _), (stock_sum, _) in zip(mine["filtered_resps"], stock["filtered_resps"], strict=True):
            assert my_sum == pytest.approx(stock_sum, rel=3e-7, abs=1e-4)


@pytest.mark.slow
def test_long_passages_are_cut_as_hflm_cuts_them(tmp_path):
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model, tokenizer = tiny_llama(vocab=VOCABULARY, seed=1), tiny_tokenizer()
    model.config.max_position_embeddings = 100
    torch.manual_seed(0)
    ours, theirs = (
        run_tasks(language_model, [stock_task("boolq", tmp_path)], num_fewshot=0, limit=30, seed=1)
        for language_model in (BranchingLM(model, tokenizer, 512), HFLM(model, tokenizer=tokenizer, batch_size=8))
    )
    assert question_outcomes(ours).equals(question_outcomes(theirs))
