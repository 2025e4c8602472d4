"""Sweeps by the real dvc: each experiment once, whatever fails, is killed, or runs beside it."""

import os
import re
import signal
import subprocess
import time

import pandas as pd
import pytest
from project import environment
from stub_project import COMPARE, LABELS, SWEEP, experiments, tables

pytestmark = pytest.mark.slow


def commit_of(project, name: str) -> str:
    return project.run("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").stdout.strip()


def started(project, stage: str) -> int:
    """Return how often the sweeps' experiments ran a stage."""
    return sum(log.read_text().count(f"Running stage '{stage}'") for log in project.folder.glob(".dvc/tmp/sweep/*.log"))


def test_a_failing_variant_is_named_and_stops_nothing(swept):
    project, printed = swept
    assert set(experiments(project)) == LABELS
    reason = "prune: prune.ratio = 0.9 is not allowed; expected less, in this test"
    assert f"taylor-0.9: failed: {reason}" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("failed: small-taylor-0.9-")]
    assert line.endswith(reason)
    assert "3/4 done, 1 failed" in printed and re.search(r"\d running, about \d+ (s|min) left", printed)


def test_the_page_is_written_as_variants_end_and_names_what_failed(swept):
    project, printed = swept
    assert "page: reports/small/index.html" in printed
    page = (project.folder / "reports/small/index.html").read_text()
    assert '"label":"taylor 0.3"' in page and '"failed":{"taylor-0.9":"prune: prune.ratio = 0.9' in page
    assert f"dvc exp apply {experiments(project)['taylor-0.3']}" in page


def test_nothing_is_made_twice(swept):
    project, _ = swept
    stages = ("data", "base", "evaluate@base", "profile@base", "evaluate@pruned", "tune")
    assert {stage: started(project, stage) for stage in stages} == dict.fromkeys(stages, 1)


def test_workers_are_pinned_to_the_gpus_in_turn(swept):
    logs = [log.read_text().splitlines() for log in swept[0].folder.glob(".dvc/tmp/sweep/*.log")]
    assert {line for log in logs for line in log if line.startswith("GPU")} == {"GPU 3", "GPU 5"}


def test_a_second_sweep_runs_only_what_failed(swept):
    project, _ = swept
    before = experiments(project)
    again = project.run(*SWEEP, check=False)
    assert again.returncode == 1
    assert "4 experiments, 3 done, 1 to run" in again.stdout
    assert experiments(project) == before


def test_an_experiment_holds_what_it_measured_and_nothing_of_another(swept):
    project, _ = swept
    files = {
        label: project.run("git", "ls-tree", "-r", "--name-only", commit_of(project, name)).stdout.splitlines()
        for label, name in experiments(project).items()
    }
    assert {"metrics/evaluate/base.json", "metrics/evaluate/pruned.json"} <= set(files["taylor-0.3"])
    assert "metrics/evaluate/tuned.json" not in files["taylor-0.3"]
    assert "metrics/evaluate/tuned.json" in files["taylor-0.3-tuned"]


def test_models_are_kept_by_link(swept):
    project, _ = swept
    sizes = {path.stat().st_ino: path.stat().st_size for path in project.folder.rglob("*") if path.is_file()}
    models = [size for size in sizes.values() if size == 1 << 16]
    assert len(models) == 4  # base, pruned, adapter and merged: one of each, in the cache


def test_a_killed_sweep_is_ended_by_two_at_once_with_the_same_tables(swept, stub_project, tmp_path):
    project = stub_project.copy(tmp_path / "project")
    sweep = start(project)
    wait_for(lambda: any(project.folder.glob(".dvc/tmp/sweep/small-taylor-0.3-*.log")))
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    assert set(experiments(project)) == {"base"}
    assert project.run("git", "status", "--porcelain").stdout == ""

    both = [start(project), start(project)]
    printed = [each.communicate(timeout=300)[0] for each in both]
    assert [each.returncode for each in both] == [1, 1], printed
    assert all("3/4 done, 1 failed" in text for text in printed)
    assert set(experiments(project)) == LABELS
    stages = ("base", "evaluate@base", "evaluate@pruned", "tune")
    assert {stage: started(project, stage) for stage in stages} == dict.fromkeys(stages, 1)
    assert tables(project) == tables(swept[0])


def start(project) -> subprocess.Popen:
    return subprocess.Popen(
        SWEEP, cwd=project.folder, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it never happened")


def test_a_format_of_a_study_is_exported_evaluated_and_compared(stub_project, tmp_path):
    project = stub_project.copy(tmp_path / "project")
    (project.folder / "studies/small.yaml").write_text(
        "grid: {prune.method: [taylor], prune.ratio: [0.3]}\nmodels: [pruned, tuned]\nformats: [gguf-q8_0]\n"
    )
    project.commit("A study with a format")
    project.run(*SWEEP)
    assert set(experiments(project)) == {"base", "taylor-0.3-tuned-gguf-q8_0"}
    project.run(*COMPARE)
    table = pd.read_csv(project.folder / "reports/small/quality.csv").set_index("method")["prose_ppl"]
    assert list(table.index) == ["base", "taylor, tuned", "taylor, tuned, gguf-q8_0", "guessing"]
    assert table["base"] < table["taylor, tuned"] < table["taylor, tuned, gguf-q8_0"]
    assert "None differs from its source" in (project.folder / "reports/small/study.md").read_text()


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        ("dirty", "espalier: sweep: uncommitted changes in params.yaml: experiments start from the last commit"),
        ("unborn", "espalier: sweep: there is no commit yet, and experiments start from one"),
        ("no git", "espalier: sweep: this is not a git repository"),
    ],
)
def test_a_state_without_a_baseline_is_one_line(stub_project, tmp_path, state, answer):
    project = stub_project.copy(tmp_path / "project")
    if state == "dirty":
        project.set(prune__seed=5)
    else:
        project.run("rm", "-rf", ".git")
    if state == "unborn":
        project.run("git", "init", "-q")
    done = project.run(*SWEEP, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith(answer), done.stdout
    assert done.stdout.count("\n") == 1


def test_a_detached_head_is_named_and_its_experiments_are_found(swept, tmp_path):
    project = swept[0].copy(tmp_path / "project")
    head = project.run("git", "rev-parse", "HEAD").stdout.strip()
    project.run("git", "checkout", "-q", "--detach")
    done = project.run(*SWEEP, check=False).stdout
    assert f"HEAD is detached: the experiments belong to commit {head[:7]}" in done
    assert "4 experiments, 3 done, 1 to run" in done


def test_what_a_dvc_user_does_with_variants_works(swept, tmp_path):
    project = swept[0].copy(tmp_path / "project")
    tuned, pruned = (experiments(project)[label] for label in ("taylor-0.3-tuned", "taylor-0.3"))
    difference = project.run("dvc", "metrics", "diff", pruned, tuned, "--json").stdout
    assert '"metrics/evaluate/tuned.json"' in difference and "metrics/evaluate/pruned.json" not in difference
    # All that the variant has comes; of what neither it nor HEAD has in the cache, DVC says so.
    applied = project.run("dvc", "exp", "apply", tuned, check=False).stdout
    missing = applied.split("Checkout failed for following targets:\n")[1].split("Is your cache")[0]
    assert set(missing.split()) == {"models/export", "metrics/details/export.json"}
    assert (project.folder / "models/merged/config.json").is_file()
    project.run("git", "checkout", "-q", "-f", ".")
    project.run("dvc", "exp", "branch", tuned, "winner")
    project.run("git", "tag", "-a", "tuned@v1.0.0", "winner", "-m", "The best of the study")
    project.run("dvc", "artifacts", "get", ".", "tuned", "-o", "got")
    merged = project.run("git", "show", "winner:dvc.lock").stdout
    assert "models/merged" in merged and (project.folder / "got/model.safetensors").stat().st_size == 1 << 16


def test_gc_frees_what_no_experiment_needs_and_says_how_much(swept, tmp_path):
    project = swept[0].copy(tmp_path / "project")
    kept = project.run("python", "-m", "studies.gc").stdout
    assert re.search(r"which the work tree, branches, tags or the 3 experiments need", kept)
    project.run("dvc", "exp", "remove", experiments(project)["taylor-0.3-tuned"])
    freed = project.run("python", "-m", "studies.gc").stdout
    assert float(re.search(r"freed ([\d.]+) MiB", freed)[1]) >= 0.1  # adapter and merged, 64 KiB each
    again = project.run(*COMPARE).stdout
    assert "taylor" in again and "tuned" not in again


def test_gc_leaves_a_cache_alone_that_others_may_share(swept, tmp_path):
    project = swept[0].copy(tmp_path / "project")
    project.run("dvc", "cache", "dir", "--local", str(tmp_path / "shared"))
    done = project.run("python", "-m", "studies.gc", check=False)
    assert done.returncode == 2
    assert "may serve other repositories too" in done.stdout
