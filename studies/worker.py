"""python -m studies.worker STUDY VARIANT --repository URL --commit C: run one variant of a study on any machine.

It clones the repository, makes the environment, runs the variant as a DVC experiment and pushes it: the commit to the
repository, the models to the DVC remote. It needs git, make and Python's standard library; this file alone is enough.
VARIANT is the experiment's name, its number in the study from 0 (the base), or its label, such as taylor-0.3.

The last line says what happened. Exit codes: 0 the experiment is on the remote, 1 the variant failed, 2 this worker
cannot run it, 130 interrupted: the same command goes on with it.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CANNOT, INTERRUPTED = 2, 130
CONFIG = """['remote "worker"']
    url = {remote}
[core]
    remote = worker
"""
MARKS = ("fatal:", "remote: ", "espalier:", "ERROR:", "Error:")
CANNOT_READ = "fatal: Could not read from remote repository."
STORAGE = ("ssh", "s3")  # DVC remotes that need packages of their own; a make target of that name installs them
ENVIRONMENT_FILES = ("requirements.txt", "constraints.txt", "requirements-smollm2.txt")


class WorkerError(Exception):
    """What keeps this worker from running the variant, in one line."""


def main() -> int:
    """Prepare the clone and the environment, hand over to `studies.variant_run` there, and return its exit code."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    # There is nobody to ask: what needs a password fails.
    os.environ.setdefault("GIT_TERMINAL_PROMPT", "0")
    os.environ.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    try:
        project = prepare_clone(options) / options.project
        python = options.python or prepare_environment(project, options.folder)
    except WorkerError as error:
        return say(options.variant, str(error), CANNOT)
    except KeyboardInterrupt:
        return say(options.variant, "interrupted; the same command starts again", INTERRUPTED)
    command = [str(python), "-m", "studies.variant_run", options.study, options.variant]
    code = hand_over(command, project)
    if code < 0:
        return say(options.variant, f"killed by signal {-code}; the same command goes on with it", INTERRUPTED)
    return code


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.worker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", help="studies/<name>.yaml, as in the commit")
    parser.add_argument("variant", help="name, number or label of the experiment")
    parser.add_argument("--repository", required=True, metavar="URL", help="git repository to clone from and push to")
    parser.add_argument("--commit", required=True, metavar="C", help="commit that the experiment starts from")
    parser.add_argument("--remote", metavar="URL", help="DVC remote, where the commit's .dvc/config names none")
    parser.add_argument("--python", metavar="PATH", help="interpreter with the requirements; default: by make setup")
    parser.add_argument("--project", default=".", metavar="FOLDER", help="where the project is in the repository")
    parser.add_argument(
        "--folder", type=Path, default=Path("~/.cache/espalier"), help="where clones, cache and environments are kept"
    )
    options = parser.parse_args()
    options.folder = options.folder.expanduser().absolute()
    return options


def prepare_clone(options: argparse.Namespace) -> Path:
    """Return the clone of the commit, which all workers of one folder share; each experiment has a clone of its own."""
    name = re.sub(r"[^\w.-]", "-", Path(options.repository.rstrip("/")).name) or "repository"
    key = key_of(options.repository, options.remote or "", options.project)
    clone = options.folder / f"{name}-{key}" / options.commit[:12]
    with locked(clone.with_name(f"{clone.name}.lock")):
        if clone.is_dir():
            return clone
        partial = clone.with_name(f"{clone.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        run(["git", "clone", "-q", "--no-checkout", options.repository, str(partial)])
        if subprocess.run(["git", "cat-file", "-e", f"{options.commit}^{{commit}}"], cwd=partial).returncode:
            run(["git", "fetch", "-q", "origin", options.commit], partial)
        run(["git", "checkout", "-q", "--detach", options.commit], partial)
        for key, value in (("user.name", "espalier"), ("user.email", f"espalier@{socket.gethostname()}")):
            if not subprocess.run(["git", "config", key], cwd=partial, capture_output=True).stdout.strip():
                run(["git", "config", key, value], partial)  # experiments are commits
        config = partial / options.project / ".dvc"
        if not config.is_dir():
            raise WorkerError(f"--project {options.project} is no DVC project of commit {options.commit}")
        cache = f"[cache]\n    dir = {options.folder / 'cache'}\n"
        remote = CONFIG.format(remote=options.remote) if options.remote else ""
        (config / "config.local").write_text(remote + cache, encoding="utf-8")
        partial.rename(clone)
    return clone


def prepare_environment(project: Path, folder: Path) -> Path:
    """Return the interpreter of the environment that `make setup` makes, once for each set of requirements."""
    remotes = "".join(file.read_text(encoding="utf-8") for file in project.glob(".dvc/config*"))
    storage = [name for name in STORAGE if f"{name}://" in remotes]
    files = [*ENVIRONMENT_FILES, *(f"requirements-{name}.txt" for name in storage)]
    texts = [(project / name).read_text() for name in files if (project / name).is_file()]
    environment = folder / "environments" / key_of(sys.version, *texts)
    ready, link = environment / "ready", project / ".venv"
    with locked(environment.with_name(f"{environment.name}.lock")):
        environment.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(environment)
        if not ready.is_file():
            run(["make", "setup", *storage, f"PYTHON={sys.executable}"], project)
            ready.touch()
    return link / "bin" / "python"


def hand_over(command: list[str], project: Path) -> int:
    """Run the command in the project, pass on what asks this process to end, and return its exit code."""
    process = subprocess.Popen(
        command, cwd=project, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda *_: process.send_signal(signal.SIGTERM))
    return process.wait()


def run(command: list[str], folder: Path | None = None) -> None:
    """Run a command; WorkerError with its last line where it fails."""
    text = hidden(" ".join(command))
    print(text, flush=True)
    try:
        done = subprocess.run(command, cwd=folder, text=True, errors="replace", capture_output=True)
    except FileNotFoundError:
        raise WorkerError(f"{command[0]} is not on PATH; install it") from None
    if done.returncode:
        lines = f"{done.stdout}\n{done.stderr}".splitlines()
        raise WorkerError(f"{text} failed: {hidden(reason(lines))}")


def reason(lines: list[str]) -> str:
    """Return the line that says why a command failed: the first that git, pip or venv marks, else the last.

    Git passes on what ssh or a server says, and then says itself that it cannot read, with advice.
    """
    lines = [line.strip() for line in lines if line.strip()]
    said = lines[: lines.index(CANNOT_READ)] if CANNOT_READ in lines else lines
    return next((line for line in said if line.startswith(MARKS)), (said or lines or ["no reason given"])[-1])


def hidden(text: str) -> str:
    """Return a text whose URLs have no name and password."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def key_of(*texts: str) -> str:
    """Return a short hash of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other worker holds the lock file `path`, and hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(variant: str, text: str, code: int) -> int:
    """Print the last line and return the exit code."""
    print(f"espalier: worker: {variant}: {text}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
