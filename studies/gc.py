"""python -m studies.gc: free what neither the work tree nor a branch, tag or experiment needs, and say how much."""

import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo

from stages.common.errors import UserError
from stages.common.outputs import remove
from stages.common.stage import FAILURE, run
from studies.experiments import parse
from studies.git import git
from studies.workspace import FOLDER, claim, discard

COMMAND = ["gc", "--quiet", "--workspace", "--all-branches", "--all-tags", "--all-experiments", "--force"]


def main() -> int:
    """Remove what killed sweeps left, whose links would keep the models' blocks, and run `dvc gc`."""
    with Repo() as repo:
        root, cache = Path(repo.root_dir), Path(repo.cache.local_cache_dir)
    if not cache.is_relative_to(root):
        raise UserError(
            f"cache.dir = {cache} may serve other repositories too, whose data this would free; "
            "expected a cache inside this repository; for a shared one, run `dvc gc --projects` with all its projects"
        )
    before = size_of(cache) + size_of(FOLDER)
    remove_workspaces()
    print(" ".join(["dvc", *COMMAND]), flush=True)
    done = subprocess.run([sys.executable, "-m", "dvc", *COMMAND])
    if done.returncode:
        return FAILURE
    references = git("for-each-ref", "--format=%(refname)", "refs/exps/").splitlines()
    experiments = sum(1 for reference in references if parse(reference)[1])
    after = size_of(cache) + size_of(FOLDER)
    print(
        f"freed {mib(before - after)}; {mib(after)} are left, "
        f"which the work tree, branches, tags or the {experiments} experiments need"
    )
    return 0


def remove_workspaces() -> None:
    """Remove the clones and logs of sweeps that have ended; UserError if one is running."""
    for file in sorted(FOLDER.glob("*.lock")):
        lock = claim(file)
        if lock is None:
            raise UserError(f"{file.stem} is being run by a sweep; wait until no sweep is running")
        with lock:
            discard(file.with_suffix(""))
            remove(file.with_suffix(".log"))


def size_of(folder: Path) -> int:
    """Return the bytes that a folder's files take on the disk; a file with several links in it counts once."""
    files = {(stat.st_dev, stat.st_ino): stat.st_blocks * 512 for stat in map(Path.lstat, folder.rglob("*"))}
    return sum(files.values())


def mib(size: int) -> str:
    """Return bytes as a person reads them."""
    return f"{size / 2**20:,.1f} MiB"


if __name__ == "__main__":
    run("gc", main)
