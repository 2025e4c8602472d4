"""The page of a study while its sweep runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import IO, Any


class LivePage:
    """Writes a study's page while its sweep runs, one process at a time, each with the latest state."""

    def __init__(self, study: str, log: Path):
        self.study, self.log = study, log
        self.path = Path("reports") / study / "index.html"
        self.process: subprocess.Popen | None = None
        self.waiting: dict[str, Any] | None = None

    def update(self, status: dict[str, Any]) -> None:
        """Have the page written with what is running and what failed, by label, once the last writer has ended."""
        self.waiting = status
        self.proceed()

    def proceed(self) -> None:
        """Start the next writer if there is something to write and none runs."""
        if self.waiting is None or (self.process and self.process.poll() is None):
            return
        status, self.waiting = self.waiting, None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w", encoding="utf-8") as log:
            # The variants are more urgent.
            self.process = subprocess.Popen(
                ["nice", sys.executable, "-m", "studies.page", f"studies/{self.study}.yaml"],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        pipe: IO[str] | None = self.process.stdin
        if pipe:
            json.dump(status, pipe)
            pipe.close()

    def finish(self) -> bool:
        """Wait until the latest state is written; return whether it is."""
        while self.process:
            self.process.wait()
            if self.waiting is None:
                return self.process.returncode == 0
            self.proceed()
        return False

    def stop(self) -> None:
        """End a writer that still runs: what it writes, it writes whole or not at all."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
