"""Run git."""

import subprocess
from pathlib import Path

from stages.common.errors import UserError
from studies.worker import reason


def git(*arguments: str, folder: Path | None = None) -> str:
    """Return git's output without the last newline; UserError with the line that says why if it fails."""
    done = run_git(*arguments, folder=folder)
    if done.returncode:
        raise UserError(f"git {arguments[0]} failed: {reason(done.stderr.splitlines())}")
    return done.stdout.rstrip("\n")


def run_git(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run git and return how it ended; UserError where it is not installed."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    try:
        return subprocess.run(command, cwd=folder, text=True, errors="surrogateescape", capture_output=True)
    except FileNotFoundError:
        raise UserError("git is not on PATH, and experiments are its commits; install it") from None
