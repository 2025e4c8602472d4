"""Run one experiment in its own clone, so that neither it nor a kill touches the work tree.

The clone is in .dvc/tmp/sweep and shares DVC's cache: models are links, and an output of one experiment is reused by
the others. The process that works in the clone holds a lock, even a `dvc exp run` whose sweep was killed.
"""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

from dvc.config import Config
from dvc.config_schema import RelPath
from dvc.repo import Repo
from dvc.stage import Stage

from stages.common.errors import shown
from stages.common.outputs import remove
from studies.experiments import IDENTITY, find_experiments, reference_of
from studies.git import git, run_git
from studies.settings import write_settings
from studies.study import Variant

FOLDER, SITE_CACHE = Path(".dvc/tmp/sweep"), Path(".dvc/tmp/site")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Claimed:
    """A variant that one sweep or worker at a time may run, and the log of its run."""

    def __init__(self, variant: Variant):
        self.variant, self.log = variant, FOLDER / f"{variant.name}.log"
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


class Workspace(Claimed):
    """Where a variant is run: `project` in the clone `folder`; `log` holds what DVC and the stages print."""

    def __init__(self, variant: Variant, baseline: str, flags: tuple[str, ...] = ()):
        super().__init__(variant)
        self.baseline, self.flags = baseline, flags  # `flags` are those of dvc exp run
        self.folder = FOLDER.resolve() / variant.name
        # The project may be a folder of a larger repository.
        self.project = self.folder / git("rev-parse", "--show-prefix")

    def collect(self) -> bool:
        """Return whether the experiment is there, fetched from the clone if it was finished in it."""
        reference = reference_of(self.baseline, self.variant.name)
        if self.has(reference):
            git("fetch", "-q", str(self.folder), f"{reference}:{reference}")
        discard(self.folder)
        return self.variant.name in find_experiments([self.variant])

    def has(self, reference: str) -> bool:
        """Return whether the clone has the reference: that of the experiment once it is finished."""
        return (self.folder / ".git").is_dir() and bool(git("for-each-ref", reference, folder=self.folder))

    def launch(self, environment: dict[str, str], needed: str | None) -> subprocess.Popen:
        """Make the clone and start the experiment in it, from the results of the commit `needed` if there is one."""
        self.clone()
        if needed:
            git("checkout", "-q", needed, "--", ".", folder=self.project)
            git("checkout", "-q", self.baseline, "--", "params.yaml", folder=self.project)
        write_settings(self.project / "params.yaml", self.variant.settings)
        keep_only(self.project, self.variant.targets)
        command = ["dvc", *command_of(self.variant, self.flags)]
        environment = {**environment, "DVC_SITE_CACHE_DIR": str(self.site_cache)}
        with self.log.open("w", encoding="utf-8") as log:
            print(shlex.join(command), file=log)
            for key, value in self.variant.settings.items():
                print(f"params.yaml: {key} = {shown(value)}", file=log)
            log.flush()
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.project, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True, pass_fds=[self.lock.fileno()] if self.lock else [],
                env={**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            )  # fmt: skip

    def clone(self) -> None:
        """Check out the commit that the experiment starts from, with this repository's own settings.

        The clone borrows this repository's objects, as `git clone --shared` would, which refuses shallow ones.
        """
        discard(self.folder)
        git("init", "-q", str(self.folder))
        objects, shallow = (Path(git("rev-parse", "--git-path", name)).resolve() for name in ("objects", "shallow"))
        (self.folder / ".git/objects/info/alternates").write_text(f"{objects}\n", encoding="utf-8")
        if shallow.is_file():
            shutil.copy(shallow, self.folder / ".git/shallow")
        git("checkout", "-q", "--detach", self.baseline, folder=self.folder)
        self.site_cache.parent.mkdir(exist_ok=True)
        self.site_cache.symlink_to(mkdtemp(prefix="espalier-", dir=MEMORY))
        for key in IDENTITY:
            value = run_git("config", key).stdout.strip()
            if value:
                git("config", key, value, folder=self.folder)
        with Repo() as repo, Config(str(self.project / ".dvc")).edit("local") as local:
            local.update(repo.config.read("local"))
            # DVC writes no file with an absolute path that is not ASCII.
            local.setdefault("cache", {})["dir"] = RelPath(repo.cache.local_cache_dir)

    @property
    def site_cache(self) -> Path:
        """DVC's site cache, one for each clone, so that clones do not wait for each other.

        A link into memory where that is a folder, since DVC waits for the disk some 300 times in an experiment.
        """
        return self.project / SITE_CACHE


def discard(clone: Path) -> None:
    """Remove a clone, and the site cache that it links to."""
    site_cache = clone / git("rev-parse", "--show-prefix") / SITE_CACHE
    if site_cache.is_symlink():
        remove(site_cache.resolve())
    remove(clone)


def claim(path: Path) -> IO | None:
    """Return the lock file, locked; None if a process holds it. It is free again when every holder has closed it."""
    lock = path.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def command_of(variant: Variant, flags: tuple[str, ...] = ()) -> list[str]:
    """Return the arguments of dvc that run the variant where params.yaml holds its settings."""
    return ["exp", "run", "-n", variant.name, *flags, *variant.targets]


def keep_only(folder: Path, targets: list[str]) -> None:
    """Remove the files that stages other than `targets` and those before them made for the commit.

    They were made with other params: an experiment that keeps them would show another model's metrics as its own.
    """
    with Repo(str(folder)) as repo:
        for stage in set(repo.index.graph) - set(stages_of(repo, targets)):
            for out in stage.outs:
                remove(Path(out.fs_path))


def stages_of(repo: Repo, targets: list[str]) -> list[Stage]:
    """Return the stages `targets` and those before them."""
    graph = repo.index.graph
    wanted = [stage for stage in graph if stage.name in targets]
    for stage in wanted:  # grows as it goes
        wanted += [before for before in graph.successors(stage) if before not in wanted]
    return wanted
