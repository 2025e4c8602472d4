"""python -m stages.check.cores: print one line if run.threads is clearly wrong for this machine.

It changes nothing: results depend on the number of threads, so only params.yaml sets it.
"""

import math
import os
import sys
from pathlib import Path

from stages.common.params import RunParams, load_section
from stages.common.stage import run

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_cores() -> int:
    """Return on how many cores this process may compute: those it may run on, and of their time its cgroups' quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, quotas())]))


def quotas() -> list[float]:
    """Return the CPU quotas of this process's cgroups and their parents, in cores; none outside Linux."""
    found = []
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            found += quota(folder)
            if folder == root:
                break
    return found


def quota(folder: Path) -> list[float]:
    """Return the quota in cores of one cgroup folder, of version 2 or 1; empty if it has none."""
    try:
        if (folder / "cpu.max").is_file():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(limit) / int(period)] if int(limit) > 0 else []
    except (OSError, ValueError):  # no such file, or `max`
        return []


def warning(threads: int, cores: int) -> str | None:
    """Return the line for `threads` that are more than the machine's `cores`, if they are."""
    if threads <= cores:
        return None
    return (
        f"espalier: run.threads = {threads} is more than the {cores} cores available here, which makes every stage "
        "slower; `make threads` measures which number is fastest"
    )


def main() -> None:
    """Print the warning, if any."""
    if line := warning(load_section("run", RunParams).threads, available_cores()):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    run("cores", main)
