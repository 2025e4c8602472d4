"""python -m stages.data: collect documents, split them, and write what the other stages read."""

import json
from pathlib import Path

import pandas as pd

from stages.common.errors import UserError
from stages.common.outputs import staged, write_details
from stages.common.params import load_section
from stages.common.stage import run_stage
from stages.data import embedded, files, public
from stages.data.params import DataParams, FewShot, TuneData
from stages.data.stock_tasks import with_chance
from stages.data.task_check import check_tasks
from stages.data.task_files import write_group, write_task

OUT = Path("data")
SOURCES = {
    "installed": embedded.collect,
    "python-docs": embedded.collect,
    "files": files.collect,
    "hub": public.collect,
    "mirror": public.collect,
}


def main() -> None:
    """Collect from the source that params.yaml names; write all or nothing of each output."""
    params = load_section("data", DataParams)
    check_tasks(params)
    few_shot = load_section("evaluate", FewShot).num_fewshot
    collected = SOURCES[params.source](params, few_shot)
    learnt = load_section("tune", TuneData).data
    if learnt in ("instructions", "both") and collected.instructions.empty:
        raise UserError(
            f"tune.data = {learnt!r}, but data.source = {params.source!r} provides no instructions; set tune.data: "
            "text, or rows with the columns instruction, input and output"
        )

    tasks = {name: with_chance(task) for name, task in collected.tasks.items()}
    with staged(OUT / "text") as folder:
        folder.mkdir()
        for name, part in collected.texts.items():
            write_texts(folder / f"{name}.parquet", part)
    with staged(OUT / "calibration.parquet") as file:
        write_texts(file, collected.calibration)
    with staged(OUT / "instructions.parquet") as file:
        collected.instructions.to_parquet(file, index=False)
    with staged(OUT / "perplexity") as folder:
        folder.mkdir()
        for name, part in collected.perplexity.items():
            write_texts(folder / f"{name}.parquet", part)
    with staged(OUT / "tasks") as folder:
        folder.mkdir()
        for name, task in tasks.items():
            write_task(name, task, folder, OUT / "tasks")
        for name, group in collected.groups.items():
            write_group(name, group, tasks, folder)
    with staged(OUT / "sources.json") as file:
        file.write_text(json.dumps(collected.sources, indent=2) + "\n", encoding="utf-8")
    write_details("metrics/details/data.json", collected.details | {"own_domain": collected.own_domain})


def write_texts(path: Path, texts: list[str]) -> None:
    """Write one document a row, column `text`."""
    pd.DataFrame({"text": texts}).to_parquet(path, index=False)


if __name__ == "__main__":
    run_stage("data", main)
