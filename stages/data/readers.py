"""Read one split of a dataset, from a hub or from a local mirror."""

import fnmatch
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from stages.common.errors import UserError
from stages.common.hub import NoSuchFileError, fetch
from stages.data.datasets import CONVERTED, Dataset
from stages.data.rows import check_text, read_parquet, without_metadata


class LoadedSplit(NamedTuple):
    """The rows of a split, and the record that identifies them."""

    table: pa.Table
    record: dict[str, Any]


Reader = Callable[[Dataset, str], LoadedSplit | None]


def mirror_reader(mirror: str) -> Reader:
    """Return the reader of <organisation>/<dataset>/<config>/<split>.parquet in folder `mirror`.

    The reader returns None for a split that is missing. Raises UserError if there is no such folder.
    """
    root = Path(mirror)
    if not root.is_dir():
        raise UserError(
            f"data.mirror = {mirror!r} is not a folder; expected a folder of <dataset>/<config>/<split>.parquet"
        )

    def load(dataset: Dataset, split: str) -> LoadedSplit | None:
        file = next((root / place for place in dataset.places(split) if (root / place).is_file()), None)
        return LoadedSplit(read_table([file]), describe(dataset, split, "mirror", [file])) if file else None

    return load


def hub_reader(revisions: dict[str, str]) -> Reader:
    """Return the reader of a hub; `revisions` pins datasets, by their names there, to commits.

    A split without files of its own in the repository is read from the hub's Parquet copy of the dataset.
    """

    def load(dataset: Dataset, split: str) -> LoadedSplit:
        patterns = dataset.patterns(split)
        try:
            snapshot = fetch("dataset", dataset.repo, revisions.get(dataset.repo, dataset.revision), patterns)
        except NoSuchFileError as error:
            if dataset.repo in revisions or dataset.files or dataset.revision != "main":
                raise
            patterns = [f"{dataset.config or 'default'}/{split}/*.parquet"]
            try:
                snapshot = fetch("dataset", dataset.repo, CONVERTED, patterns)
            except UserError:
                raise error from None
        names = {file: file.relative_to(snapshot.folder).as_posix() for file in snapshot.files}
        groups = ([file for file in names if fnmatch.fnmatch(names[file], pattern)] for pattern in patterns)
        files = next(group for group in groups if group)
        return LoadedSplit(read_table(files), describe(dataset, split, snapshot.commit, files))

    return load


def describe(dataset: Dataset, split: str, revision: str, files: list[Path]) -> dict[str, Any]:
    """Return the record of the split: its names, the revision and the hash of its files."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    names = {"dataset": dataset.repo, "config": dataset.config, "split": split}
    return {**names, "revision": revision, "sha256": digest.hexdigest()}


def read_table(files: list[Path]) -> pa.Table:
    """Return the rows of all files, parquet or JSON; UserError for one that is neither, or whose text has a null."""
    try:
        tables = [read_file(file) for file in files]
        for file, table in zip(files, tables, strict=True):
            check_text(file, table)
        return pa.concat_tables(tables)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{', '.join(map(str, files))}: neither parquet nor JSON rows ({reason})") from None


def read_file(file: Path) -> pa.Table:
    """Return the rows of a parquet file, a JSON array, or (possibly compressed) JSON lines."""
    if file.suffix == ".parquet":
        return read_parquet(file)
    rows = pd.read_json(file, lines=file.suffix != ".json")
    return without_metadata(pa.Table.from_pandas(rows, preserve_index=False))
