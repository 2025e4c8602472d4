"""lm-eval's task files: the definitions in its package, and those in data/tasks, which name one of them (`stock`)."""

import functools
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import lm_eval.tasks
import lm_eval.utils
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from stages.common.errors import UserError

STOCK = Path(lm_eval.tasks.__file__).parent
VERSION = importlib.metadata.version("lm-eval")

# lm-eval compiles a task's templates anew for every document, a millisecond each: a third of a small model's ARC.
lm_eval.utils.env.from_string = functools.cache(lm_eval.utils.env.from_string)  # type: ignore[method-assign]


class Reference(str):
    """A `!function` of a task file, not imported: module.function; the module is in the same `folder`."""

    folder: Path


def definition(path: Path) -> dict[str, Any]:
    """Return a task file with its includes; functions are References and do not run."""

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    def reference(loader: Any, node: Any) -> Reference:
        found = Reference(loader.construct_scalar(node))
        found.folder = path.parent
        return found

    Loader.add_constructor("!function", reference)
    own = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    includes = own.pop("include", None) or []
    merged: dict[str, Any] = {}
    for name in [includes] if isinstance(includes, str) else includes:
        merged |= {key: value for key, value in definition(path.parent / name).items() if key != "task_list"}
    return merged | own


def read_task(file: Path) -> dict[str, Any]:
    """Return a task's config from data/tasks, on lm-eval's own definition where it names one, functions included.

    Raises UserError where lm-eval lacks the definition, or a package that its functions need.
    """
    with one_line(file.stem):
        config = load_yaml(file)
        if "stock" in config:
            path = config.pop("stock")
            if not (STOCK / path).is_file():
                raise UserError(f"{file}: lm-eval {VERSION} has no task file {path}; install the pinned lm-eval")
            with without_downloads(STOCK / path):
                config = load_yaml(STOCK / path) | config
    if config.get("task") != file.stem:
        raise UserError(f"{file}: its task is named {config.get('task')!r}; expected {file.stem}")
    return config


def build(config: dict[str, Any]) -> ConfigurableTask:
    """Return lm-eval's task of a config; UserError where lm-eval cannot make one."""
    with one_line(config["task"]):
        (task,) = TaskManager(include_defaults=False).load([config])["tasks"].values()
    return task


@contextmanager
def without_downloads(file: Path) -> Iterator[None]:
    """Raise UserError where the functions beside task file `file` would download data of nltk, as ifeval's do."""
    if not any("nltk.download" in each.read_text(encoding="utf-8") for each in file.parent.glob("*.py")):
        yield
        return
    import nltk

    def refuse(name: str, *_: Any, **__: Any) -> None:
        raise UserError(
            f"task {file.stem}: its definition needs nltk's data {name}, which are missing; "
            f"`python -m nltk.downloader {name}` downloads them"
        )

    with mock.patch.object(nltk, "download", refuse):
        yield


@contextmanager
def one_line(task: str) -> Iterator[None]:
    """Raise UserError for any error inside: task files and their functions may do anything."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"task {task}: its definition needs the Python module {error.name}, which is missing") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"task {task}: lm-eval cannot make it ({type(error).__name__}: {reason})") from None


def local(config: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Return `config` such that `datasets` keeps its copies of the files in `cache`, and sees no metadata of theirs.

    A copy in the user's home would outlive the run. A schema's metadata may declare a column as images or audio, and
    `datasets` would open the paths and addresses in that column. Raises UserError for a damaged Parquet file.
    """
    settings = config.get("dataset_kwargs") or {}
    files = settings.get("data_files")
    if config.get("dataset_path") == "parquet" and isinstance(files, dict):
        files = {
            split: plain_copy(Path(file), cache / f"{config['task']}.{split}.parquet") for split, file in files.items()
        }
    return {**config, "dataset_kwargs": {**settings, "data_files": files, "cache_dir": str(cache)}}


def plain_copy(file: Path, copy: Path) -> str:
    """Return `file`, or `copy` after writing it there without metadata, if it has any; UserError if it is damaged."""
    try:
        schema = pq.read_schema(file)
        plain = pa.schema([field.remove_metadata() for field in schema])
        if schema.equals(plain, check_metadata=True):
            return str(file)
        copy.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pq.read_table(file).cast(plain), copy)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a Parquet file, or damaged ({' '.join(str(error).split())})") from None
    return str(copy)
