"""The user's files in data.path, in a fixed order: only regular files inside the folder."""

import os
import stat
from pathlib import Path

from stages.common.errors import UserError

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
ONE_OF = f"expected one of: {', '.join(SUFFIXES)}"


def text_files(path: str) -> list[Path]:
    """Return the file `path`, or all files in the folder `path` and its subfolders, sorted by name.

    Hidden files and folders are left out. Raises UserError, naming the file, for a path that does not exist, a folder
    without files, a file of another extension, a link that leaves the folder, and what is no regular file.
    """
    root = Path(os.path.realpath(path))
    if root.is_dir():
        files = sorted(file for folder, _, names in walk(root) for file in visible(folder, names))
        if not files:
            raise UserError(f"data.path = {path!r} holds no files; {ONE_OF}")
    elif os.path.lexists(root):
        files = [root]
    else:
        raise UserError(f"data.path = {path!r} does not exist; expected a file or a folder, {', '.join(SUFFIXES)}")
    for file in files:
        check_file(file, root)
    return files


def walk(root: Path):
    """Yield like os.walk, without hidden folders; UserError for a folder that cannot be read or a link outside."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})")

    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in subfolders:
            check_inside(Path(folder, name), root)
        yield folder, subfolders, names


def visible(folder: str, names: list[str]) -> list[Path]:
    """Return the files of a folder that are not hidden."""
    return [Path(folder, name) for name in names if not name.startswith(".")]


def check_inside(place: Path, root: Path) -> None:
    """Raise UserError for a link to a target outside `root`."""
    if place.is_symlink() and not Path(os.path.realpath(place)).is_relative_to(root):
        raise UserError(f"{place}: a link that leaves {root}; expected the file itself")


def check_file(file: Path, root: Path) -> None:
    """Raise UserError unless `file` is a regular file inside `root` with a known extension."""
    check_inside(file, root)
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{file}: not a regular file; expected a text file")
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"{file}: extension {file.suffix or 'none'}; {ONE_OF}")
