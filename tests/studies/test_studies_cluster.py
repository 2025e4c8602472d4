"""Sweeps on a real Ray and a real Slurm of this machine, disturbed: the same results as a local sweep's.

    pytest -m cluster tests/studies/test_studies_cluster.py

Not part of `make test`. It needs `make ray slurm`, and for Slurm root and Debian's slurm-wlm and munge.
"""

import re
import subprocess
import time
from contextlib import ExitStack

import clusters
import pytest
from project import Project, environment
from ruamel.yaml import YAML
from stub_project import tables, use_remotes

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

SWEEP = ("python", "-m", "studies.sweep", "studies/small.yaml", "--jobs")
STUDY = "grid: {prune.method: [random, l1, l2, taylor], prune.ratio: [0.1, 0.2, 0.3]}\n"
WORKERS, KILL_SECONDS, KILLS = 4, 5, 15


@pytest.fixture(scope="module")
def committed(stub_project, tmp_path_factory) -> Project:
    """The stub project with a study of 12 variants."""
    project = stub_project.copy(tmp_path_factory.mktemp("committed") / "project")
    (project.folder / "studies/small.yaml").write_text(STUDY)
    project.commit("A study of twelve")
    return project


@pytest.fixture(scope="module")
def local(committed, tmp_path_factory) -> tuple[dict, list[bytes]]:
    """What a local sweep makes: each experiment's results, and the tables of the comparison."""
    project = committed.copy(tmp_path_factory.mktemp("local") / "project")
    started = time.monotonic()
    project.run(*SWEEP, "2")
    print(f"\nlocal: {time.monotonic() - started:.0f} s for 13 experiments, 2 at a time")
    return results(project), tables(project)


def results(project: Project) -> dict[str, tuple[dict, list[str]]]:
    """Return each experiment's dvc.lock and the hashes of its params.yaml and metrics/, by its name.

    DVC writes stages of which none needs another into dvc.lock in any order.
    """
    lines = project.run("git", "for-each-ref", "--format=%(objectname) %(refname:lstrip=4)", "refs/exps/*/*/small-*")
    return {
        name: (
            YAML(typ="safe").load(project.run("git", "show", f"{commit}:dvc.lock").stdout),
            project.run("git", "rev-parse", f"{commit}:params.yaml", f"{commit}:metrics").stdout.split(),
        )
        for commit, name in (line.split() for line in lines.stdout.splitlines())
    }


@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_twelve_variants_on_four_workers_that_are_killed_are_those_of_a_local_sweep(engine, committed, local, tmp_path):
    if reason := clusters.missing(engine):
        pytest.skip(reason)
    project = committed.copy(tmp_path / "project")
    with ExitStack() as stack:
        variables, nodes, cluster = {}, [], None
        if engine == "ray":
            cluster, nodes = stack.enter_context(clusters.ray_nodes(3, cpus=2))
            use_remotes(project, tmp_path, ray={"address": cluster.address, "gpus": 1})
        else:
            variables = stack.enter_context(clusters.slurm_host(tmp_path / "slurm", cpus=WORKERS))
            use_remotes(project, tmp_path, slurm={"minutes": 60, "gpus": 1})
        started = time.monotonic()
        sweep = subprocess.Popen(
            [*SWEEP, str(WORKERS), "--executor", engine], cwd=project.folder, env=environment() | variables,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        stack.callback(sweep.kill)
        if cluster:
            clusters.wait_for(lambda: len(clusters.workers(tmp_path / "work")) > 1, 300)
            cluster.remove_node(nodes[0], allow_graceful=False)
        killed = clusters.disturb(sweep, tmp_path / "work", KILL_SECONDS, KILLS)
        printed = sweep.communicate()[0]
        seconds = time.monotonic() - started
    print(f"\n{engine}: {seconds:.0f} s for 13 experiments on {WORKERS} workers, {killed} of them killed\n{printed}")
    assert sweep.returncode == 0, printed
    assert "13/13 done, 0 failed" in printed
    assert "git remote origin (" in printed and "DVC remote storage (" in printed
    assert results(project) == local[0]
    logs = "".join(log.read_text(errors="replace") for log in project.folder.glob(".dvc/tmp/sweep/small-*.log"))
    gpus = set(re.findall("^GPU (.+)", logs, re.MULTILINE))
    assert len(gpus) > 1 and gpus < {"0", "1", "2", "3", "4"}, gpus
    pushed = project.run("git", "ls-remote", "origin", "refs/exps/*/small-*").stdout
    assert {line.rpartition("/")[2] for line in pushed.splitlines()} == set(local[0])
    (tmp_path / "storage").rename(tmp_path / "away")  # metrics are here, models are not
    assert tables(project) == local[1]
    assert "13 experiments, 13 done, 0 to run" in project.run(*SWEEP, "2").stdout
