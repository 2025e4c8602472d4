"""Evaluation tasks as lm-eval reads them: a YAML and parquet files."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from stages.data.collected import Task


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
    """Write <name>.yaml and a parquet file for every split to `written`, with paths as they are in `folder` later."""
    files = {}
    for split, table in task.splits.items():
        file = f"{name}.parquet" if split == task.scored else f"{name}.{split}.parquet"
        pq.write_table(table, written / file)
        files[split] = str(folder / file)
    config = {"dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    (written / f"{name}.yaml").write_text(yaml.safe_dump(task.config | config, sort_keys=False), encoding="utf-8")
