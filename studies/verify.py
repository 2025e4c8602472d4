"""python -m studies.verify: hash all outputs and DVC's cache again; print each difference and how to restore it.

DVC regards a file with the same size, time and inode as unchanged, so it misses a byte that a disk or a program changed
in place. Where an output is a hard link into the cache, that byte is changed there too.
"""

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from dvc.output import Output
from dvc.repo import Repo

from stages.common.stage import FAILURE, run
from studies.gc import mib


@dataclass(frozen=True)
class Recorded:
    """An output as dvc.lock and the cache have it."""

    path: Path
    stage: str
    in_cache: bool
    files: dict[Path, str]  # MD5 of each file; none of a folder whose list in the cache is damaged
    objects: set[Path]  # in the cache: its files, and the list of a folder's


def main() -> int:
    """Print a line for every difference and return 1 where there is one."""
    with Repo() as repo:
        root, cache = Path(repo.root_dir), Path(repo.cache.local_cache_dir) / "files/md5"
        objects = [path for path in sorted(cache.glob("??/*")) if path.is_file()]
        damaged = {path for path in objects if md5(path) != path.parent.name + path.name.removesuffix(".dir")}
        made = [out for out in repo.index.outs if out.hash_info and Path(out.fs_path).exists()]
        outputs = [record(out, root, cache, damaged) for out in made]
    found = 0
    for output in outputs:
        wrong = [path for path, expected in output.files.items() if not path.is_file() or md5(path) != expected]
        if wrong or output.objects & damaged:
            found += 1
            print(f"{', '.join(map(str, wrong)) or output.path} differs from dvc.lock: {advice(output, damaged)}")
    for path in sorted(damaged.difference(*(output.objects for output in outputs))):
        found += 1
        print(f"{path} does not match the hash in its name, and no output needs it: {command('rm', path)}")
    files = [*objects, *(path for output in outputs for path in output.files if path.is_file())]
    size = mib(sum(path.stat().st_size for path in files))
    print(f"{len(outputs)} outputs and {len(objects)} objects of the cache, {size}: {found or 'nothing'} differs")
    return FAILURE if found else 0


def record(out: Output, root: Path, cache: Path, damaged: set[Path]) -> Recorded:
    """Return the hashes of an output in dvc.lock and the cache."""
    path, value = Path(out.fs_path).relative_to(root), str(out.hash_info.value)
    files = {path: value}
    if value.endswith(".dir"):
        listing = object_of(cache, value)
        known = listing.is_file() and listing not in damaged
        entries = json.loads(listing.read_text(encoding="utf-8")) if known else []
        files = {path / entry["relpath"]: entry["md5"] for entry in entries}
    objects = {object_of(cache, each) for each in (value, *files.values())}
    return Recorded(path, out.stage.addressing, out.use_cache, files, objects)


def object_of(cache: Path, value: str) -> Path:
    """Return the cache's path of the object with hash `value`."""
    return cache / value[:2] / value[2:]


def advice(output: Recorded, damaged: set[Path]) -> str:
    """Return the commands that make an output again: from the cache if that is whole, else by its stage."""
    if not output.in_cache:
        return command("dvc", "repro", "-f", "-s", output.stage)
    broken = sorted(output.objects & damaged)
    again = command("dvc", "repro", output.stage) if broken else command("dvc", "checkout", output.path)
    return f"{command('rm', '-rf', output.path, *broken)} && {again}"


def command(*words: str | Path) -> str:
    """Return a command line for a shell."""
    return shlex.join(map(str, words))


def md5(path: Path) -> str:
    """Return the hash that DVC names a file's content by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


if __name__ == "__main__":
    run("verify", main)
