"""How many cores there are for a run, and what is said of a number of threads."""

import importlib.util
import os
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from stages.check import cores

specification = importlib.util.spec_from_file_location("threads", ROOT / "benchmarks/threads.py")
threads = importlib.util.module_from_spec(specification)
specification.loader.exec_module(threads)


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Return a function that writes cgroup files below a root of the test's own, with eight cores to run on."""
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def write(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, content in files.items():
            (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroup" / name).write_text(content)

    return write


V1 = "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n1:cpuset:/\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "10000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/a\n", {"a/cpu.max": "9900000 100000\n"}, 8),
        ("0::/a\n", {"a/cpu.max": "nonsense"}, 8),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "-1\n", "cpu/docker/abc/cpu.cfs_period_us": "100000\n"}, 8),
        (V1, {"cpu/docker/abc/cpu.cfs_quota_us": "250000\n", "cpu/docker/abc/cpu.cfs_period_us": "100000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_cores_are_those_of_the_affinity_and_the_quota(cgroups, own, files, expected):
    cgroups(own, files)
    assert cores.available_cores() == expected


def test_without_cgroups(cgroups):
    assert cores.available_cores() == 8


def test_more_threads_than_cores_is_one_line():
    assert cores.warning(2, 2) is None
    assert cores.warning(3, 2) == (
        "espalier: run.threads = 3 is more than the 2 cores available here, which makes every stage slower; "
        "`make threads` measures which number is fastest"
    )


def test_the_line_is_said_and_stops_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    for threads_set, lines in ((2, 0), (99, 1)):
        run = {"device": "cpu", "threads": threads_set, "precision": "auto", "processes": 1, "sharded": False}
        Path("params.yaml").write_text(yaml.safe_dump({"run": run}))
        cores.main()
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_the_numbers_of_threads_that_are_tried():
    assert [threads.candidates(count) for count in (1, 2, 6, 16)] == [
        [1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16],
    ]  # fmt: skip


def test_the_fewest_threads_that_lose_nothing_are_best():
    assert threads.best({1: 100.0, 2: 101.0}) == 1
    assert threads.best({1: 100.0, 2: 180.0, 4: 185.0}) == 2
    assert threads.best({1: 100.0, 2: 60.0}) == 1


def test_speeds_are_measured():
    speeds = threads.measure([1], bfloat16=False, rounds=1, seconds=0)
    assert speeds.keys() == {1} and speeds[1] > 0
