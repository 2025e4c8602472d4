"""One experiment in a clone of its own, so that nothing it does, or a kill leaves undone, touches the work tree.

The clone lies in .dvc/tmp/sweep and shares DVC's cache: models come and go by link, and what any experiment has made
no other makes again. A lock beside it is held by whoever works on it, also by a `dvc exp run` whose sweep was killed.
"""

import fcntl
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from dvc.config import Config
from dvc.repo import Repo

from stages.common.outputs import remove
from studies.experiments import find_experiments, git, reference_of
from studies.study import Variant

FOLDER = Path(".dvc/tmp/sweep")


class Workspace:
    """Where a variant is run: `folder` is the clone, `log` what DVC and the stages print."""

    def __init__(self, variant: Variant, baseline: str):
        self.variant, self.baseline = variant, baseline
        self.folder, self.log = FOLDER.resolve() / variant.name, FOLDER / f"{variant.name}.log"
        self.lock: IO | None = None

    def claim(self) -> bool:
        """Return whether the variant is ours to run; no other sweep is on it then."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.lock = claim(FOLDER / f"{self.variant.name}.lock")
        return self.lock is not None

    def release(self) -> None:
        """Let others have the variant."""
        if self.lock:
            self.lock.close()
            self.lock = None

    def collect(self) -> bool:
        """Return whether the experiment is there, fetched from the clone if it was finished in it."""
        reference = reference_of(self.baseline, self.variant.name)
        if (self.folder / ".git").is_dir() and git("for-each-ref", reference, folder=self.folder):
            git("fetch", "-q", str(self.folder), f"{reference}:{reference}")
        remove(self.folder)
        return self.variant.name in find_experiments()

    def start(self, environment: dict[str, str], needed: str | None) -> subprocess.Popen:
        """Make the clone and start the experiment in it, from the results of the commit `needed` if there is one."""
        self.clone()
        if needed:
            git("checkout", "-q", needed, "--", ".", folder=self.folder)
        keep_only(self.folder, self.variant.targets)
        command = ["dvc", *command_of(self.variant)]
        with self.log.open("w", encoding="utf-8") as log:
            print(shlex.join(command), file=log, flush=True)
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, pass_fds=[self.lock.fileno()] if self.lock else [],
                env={**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            )  # fmt: skip

    def clone(self) -> None:
        """Clone the commit that the experiment starts from, with this repository's own settings."""
        remove(self.folder)
        git("clone", "-q", "--no-checkout", ".", str(self.folder))
        git("checkout", "-q", "--detach", self.baseline, folder=self.folder)
        for key in ("user.name", "user.email"):
            value = subprocess.run(["git", "config", key], text=True, capture_output=True).stdout.strip()
            if value:
                git("config", key, value, folder=self.folder)
        with Repo() as repo, Config(str(self.folder / ".dvc")).edit("local") as local:
            local.update(repo.config.read("local"))
            local.setdefault("cache", {})["dir"] = repo.cache.local_cache_dir
            local.setdefault("core", {})["site_cache_dir"] = str(self.folder / ".dvc/tmp/site")

    def reason(self) -> str:
        """Return the one line of the log that says why the experiment failed."""
        lines = [line.strip() for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        for start in ("espalier: ", "ERROR: "):
            found = [line for line in lines if line.startswith(start)]
            if found:
                return found[-1].removeprefix(start)
        return lines[-1] if lines else "it printed nothing"

    def stage(self) -> str:
        """Return the stage that is running."""
        marks = [line for line in self.log.read_text(errors="replace").splitlines() if line.startswith("Running stage")]
        return marks[-1].split("'")[1] if marks else "dvc"


def claim(path: Path) -> IO | None:
    """Return the lock file, locked; None if a process holds it. It is free again when every holder has closed it."""
    lock = path.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def command_of(variant: Variant) -> list[str]:
    """Return the arguments of dvc that run the variant; they work by hand too."""
    settings = [each for key, value in variant.settings.items() for each in overrides(key, value)]
    return ["exp", "run", "-n", variant.name, *(part for each in settings for part in ("-S", each)), *variant.targets]


def overrides(key: str, value: Any) -> list[str]:
    """Return what -S takes to put `value` in the place of what params.yaml has under `key`."""
    # Into a mapping that stands there Hydra would merge, and refuse names that it does not have.
    if isinstance(value, dict):
        return [f"~{key}", f"+{key}={override(value)}"]
    # What is further evaluated, section `models`, is no key of params.yaml yet: `++` makes it one.
    return [f"{'++' * key.startswith('models.')}{key}={override(value)}"]


def override(value: Any) -> str:
    """Return a value in the grammar of -S, which is Hydra's; text goes in quotes, so that none of it is syntax."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(override, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{override(each)}" for key, each in value.items()) + "}"
    if isinstance(value, str) and (
        not value.isidentifier() or value.lower() in ("null", "true", "false", "inf", "nan")
    ):
        # A quote is escaped, and the backslashes before one, for which alone a backslash is special.
        return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value) + "'"
    return str(value)


def keep_only(folder: Path, targets: list[str]) -> None:
    """Remove the files that stages other than `targets` and those before them made for the commit.

    They were made with other params: an experiment that keeps them would show another model's metrics as its own.
    """
    with Repo(str(folder)) as repo:
        graph = repo.index.graph
        wanted = [stage for stage in graph if stage.name in targets]
        for stage in wanted:  # grows as it goes
            wanted += [before for before in graph.successors(stage) if before not in wanted]
        for stage in set(graph) - set(wanted):
            for out in stage.outs:
                remove(Path(out.fs_path))
