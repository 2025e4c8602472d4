"""lm-eval's own tasks, with nothing but the location of their data replaced.

The YAML that this writes names lm-eval's definition (`stock`, a path inside its package), so the prompts, the choices
and the Python functions among them are those of the lm-eval that evaluates.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.data.collected import Task
from stages.data.datasets import STOCK, Dataset

Get = Callable[[str, Dataset, str], pa.Table | None]


def stock_task(name: str, get: Get, few_shot: bool) -> Task | None:
    """Return task `name` with the rows that `get` finds for it, or None where it finds none.

    With `few_shot` it has the training split too, which examples come from, unless `get` finds none.
    """
    path, repo, chance = STOCK[name]
    stock = definition(path)
    dataset = Dataset(repo, stock.get("dataset_name"))
    scored = stock.get("test_split") or stock["validation_split"]
    table = get(name, dataset, scored)
    if table is None:
        return None
    training = stock.get("training_split")
    examples = get(name, dataset, training) if few_shot and training else None
    splits = {scored: table} if examples is None else {scored: table, training: examples}
    config = {
        "task": name,
        "stock": path,
        **{key: value if value in splits else None for key, value in stock.items() if key.endswith("_split")},
        "metadata": {**stock.get("metadata", {}), "chance": chance},
    }
    return Task(config, splits, scored)


def definition(path: str) -> dict[str, Any]:
    """Return lm-eval's own task file, its functions as names and nothing of it run."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    return load_yaml(Path(lm_eval.tasks.__file__).parent / path, resolve_func=False)
