"""Evaluation tasks as lm-eval reads them: a YAML and parquet files."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from stages.data.collected import Task
from stages.data.definitions import GroupDefinition


def multiple_choice(name: str, rows: list[dict]) -> Task:
    """Return the task of `rows`.

    They have `context` and `choices`, or, as in WinoGrande, `contexts` and one `continuation`, scored after each.
    """
    partial = "contexts" in rows[0]
    choices = "contexts" if partial else "choices"
    config: dict[str, Any] = {
        "task": name,
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "label" if partial else "context",
        "doc_to_target": "continuation" if partial else "label",
        "doc_to_choice": choices,
        "target_delimiter": "",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in (["acc"] if partial else ["acc", "acc_norm"])
        ],
        "metadata": {"version": 1.0, "chance": 1 / len(rows[0][choices])},
    }
    return Task(config, {"test": pa.Table.from_pylist(rows)}, "test")


def write_task(name: str, task: Task, written: Path, folder: Path) -> None:
    """Write <name>.yaml and a parquet file for every split to `written`, with paths as they are in `folder` later.

    The Python files that a user's own definition refers to are written beside them, in functions/.
    """
    files = {}
    for split, table in task.splits.items():
        file = f"{name}.parquet" if split == task.scored else f"{name}.{split}.parquet"
        pq.write_table(table, written / file)
        files[split] = str(folder / file)
    config = {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    text = dump(task.config | config, lambda reference: place(reference, name, written))
    (written / f"{name}.yaml").write_text(text, encoding="utf-8")


def dump(config: dict[str, Any], named: Callable[[Any], str]) -> str:
    """Return `config` as YAML, with `named` for the name of each function in it."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_multi_representer(str, lambda dumper, value: dumper.represent_scalar("!function", named(value)))
    return yaml.dump(config, Dumper=Dumper, sort_keys=False)


def place(reference: Any, task: str, written: Path) -> str:
    """Return the name by which lm-eval finds a function from `written`, and copy a module of the user's there.

    A function of lm-eval's own is named by its place in that package.
    """
    from stages.common.task_files import STOCK

    module, _, function = reference.rpartition(".")
    file = reference.folder / f"{module.replace('.', '/')}.py"
    if not file.is_file():
        return reference  # one that is installed
    if file.is_relative_to(STOCK):
        return ".".join(["lm_eval.tasks", *file.relative_to(STOCK).with_suffix("").parts, function])
    folder = re.sub(r"\W", "_", task)
    copy = written / "functions" / folder / f"{module.replace('.', '_')}.py"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, copy)
    return f"functions.{folder}.{copy.stem}.{function}"


def write_group(name: str, group: GroupDefinition, tasks: dict[str, Task], written: Path) -> None:
    """Write <name>.yaml of a group with the names of its tasks, unless it has none of `tasks`.

    Its accuracy of guessing is the mean of its tasks', weighted as the group weighs their accuracies.
    """
    left = [each for each in group.tasks if each in tasks]
    if not left:
        return
    metadata = dict(group.config.get("metadata") or {})
    chances = [tasks[each].config["metadata"].get("chance") for each in left]
    listed = group.config.get("aggregate_metric_list") or []
    sized = [each["weight_by_size"] for each in listed if each["metric"] == "acc"]
    if sized and None not in chances:
        metadata["chance"] = fmean(chances, [tasks[each].questions if sized[0] else 1 for each in left])
    config = {**group.config, "tasks": left, "groups": group.groups, "metadata": metadata}
    (written / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
