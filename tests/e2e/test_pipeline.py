"""What a DVC user expects of the pipeline."""

import json

import pandas as pd
import pytest
from project import ran
from ruamel.yaml import YAML

from analysis.results import read_by_model, read_json

pytestmark = pytest.mark.slow

PRUNED_ON = [
    "prune", "tune", "evaluate@pruned", "evaluate@tuned", "export", "profile@pruned", "profile@tuned",
    "report",
]  # fmt: skip


def test_a_second_repro_runs_nothing(finished):
    assert ran(finished.run("dvc", "repro").stdout) == []
    assert finished.run("git", "status", "--porcelain").stdout == ""


def test_every_metrics_file_is_flat_and_holds_numbers_only(finished):
    paths = sorted((finished.folder / "metrics").glob("*.json")) + sorted(
        (finished.folder / "metrics").glob("[ep]*/*.json")
    )
    assert {path.stem for path in paths} == {"base", "prune", "pruned", "tuned", "comparison"}
    for path in paths:
        for name, value in json.loads(path.read_text()).items():
            assert type(value) in (int, float), f"{path.name}: {name} = {value!r}"


def test_every_stage_has_a_desc_and_its_cost_is_recorded_beside_the_outputs(finished):
    stages = YAML(typ="safe").load(finished.folder / "dvc.yaml")["stages"]
    assert all(stage.get("desc") or stage["do"]["desc"] for stage in stages.values())
    recorded = {path.stem for path in (finished.folder / "metrics/runtime").glob("*.json")}
    assert recorded == {
        "check", "data", "base", "prune", "tune", "control", "export", "report",
        *(f"{stage}-{model}" for stage in ("evaluate", "profile") for model in ("base", "pruned", "tuned")),
    }  # fmt: skip
    assert "runtime" not in (finished.folder / "dvc.lock").read_text()


def test_the_outputs_agree_with_each_other(finished):
    metrics = finished.folder / "metrics"
    prune = read_json(metrics / "details/prune.json")
    base, pruned, tuned = read_by_model(metrics, "profile").values()
    assert read_json(metrics / "prune.json") == {"ratio": 1 - pruned["parameters"] / base["parameters"]}
    assert base["parameters"] == prune["parameters_before"]
    assert pruned["parameters"] == tuned["parameters"] == prune["parameters"] < prune["parameters_before"]
    assert pruned["macs"] == tuned["macs"] < base["macs"]
    evaluate = read_by_model(metrics, "evaluate")
    for model, measured in evaluate.items():
        questions = pd.read_parquet(finished.folder / f"metrics/outcomes/{model}/questions.parquet")
        for task, rows in questions.groupby("task"):
            assert measured[f"{task}_acc"] == pytest.approx(rows["acc"].mean())
    report = (finished.folder / "reports/run.md").read_text()
    for measured in evaluate.values():
        assert f"{measured['pydocs_ppl']:.2f}" in report
    assert "None differs from its source" in report


def test_make_run_prints_the_table_and_the_path_of_the_report(finished):
    shown = finished.run("python", "-m", "stages.report.show").stdout
    assert all(word in shown for word in ("base", "pruned", "tuned", "pydocs, perplexity", "reports/run.md"))


def test_an_experiment_reruns_only_what_its_params_touch(project):
    output = project.run("dvc", "exp", "run", "-n", "l2", "-S", "prune.method=l2", "-S", "prune.ratio=0.4").stdout
    assert ran(output) == PRUNED_ON
    table = project.run("dvc", "exp", "show", "--csv").stdout
    header, *rows = table.splitlines()
    assert {"Experiment", "metrics/evaluate/pruned.json:pydocs_ppl", "prune.method", "prune.ratio"} <= set(
        header.split(",")
    )
    assert any("l2" in row.split(",") for row in rows)
    difference = project.run("dvc", "metrics", "diff", "--json").stdout
    assert {"old", "new", "diff"} <= json.loads(difference)["metrics/evaluate/pruned.json"]["pydocs_ppl"].keys()
    assert "metrics/evaluate/base.json" not in json.loads(difference)
    params = json.loads(project.run("dvc", "params", "diff", "--json").stdout)
    changes = {key: (change["old"], change["new"]) for key, change in params["params.yaml"].items()}
    assert changes == {"prune.method": ("taylor", "l2"), "prune.ratio": (0.5, 0.4)}
    project.run("dvc", "plots", "diff", "HEAD", "-o", "plots")
    assert (project.folder / "plots" / "index.html").is_file()
    project.commit("l2 at 0.4")
    between = json.loads(project.run("dvc", "metrics", "diff", "HEAD~1", "HEAD", "--json").stdout)
    assert between["metrics/evaluate/pruned.json"]["pydocs_ppl"]["diff"] != 0
    lines = project.run("dvc", "metrics", "diff", "HEAD~1").stdout.splitlines()
    assert 10 <= len(lines) <= 40, "the difference of two runs fits one screen"
    # And back again, from the run-cache. DVC leaves stages with uncached outputs that are no metrics out of it.
    project.set(prune__method="taylor", prune__ratio=0.5)
    assert set(ran(project.run("dvc", "repro").stdout)) <= {"export", "report"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"evaluate__limit": 4}, {"evaluate@base", "evaluate@pruned", "evaluate@tuned", "export", "report"}),
        ({"profile__repetitions": 1}, {"profile@base", "profile@pruned", "profile@tuned", "report"}),
        ({"report__seed": 1}, {"report"}),
        ({"tune__steps": 3}, {"tune", "control", "evaluate@tuned", "export", "profile@tuned", "report"}),
    ],
)
def test_repro_reruns_what_a_changed_param_touches(project, change, expected):
    project.set(**change)
    assert set(ran(project.run("dvc", "repro").stdout)) == expected


def test_a_queued_grid_finishes_and_makes_the_base_no_second_time(project):
    project.run("dvc", "exp", "run", "--queue", "-S", "prune.method=choice(l1,random)", "evaluate@pruned")
    project.run("dvc", "queue", "start")
    wait_for_queue(project)
    assert [ran(log).count(stage) for log in queue_logs(project) for stage in ("base", "prune")] == [0, 1, 0, 1]
    rows = json.loads(project.run("dvc", "exp", "show", "--json").stdout)
    done = [each for revision in rows for each in revision.get("experiments") or []]
    assert len(done) == 2
    assert len({json.dumps(each["revs"][0]["data"]["metrics"], sort_keys=True) for each in done}) == 2


def wait_for_queue(project) -> None:
    """Return when no task waits or runs; fail if one failed."""
    import time

    for _ in range(300):
        status = project.run("dvc", "queue", "status").stdout
        assert "Failed" not in status, "\n".join(queue_logs(project))[-3000:]
        if "Queued" not in status and "Running" not in status:
            return
        time.sleep(2)
    pytest.fail(f"the queue did not finish:\n{status}")


def queue_logs(project) -> list[str]:
    """Return the log of every task."""
    lines = project.run("dvc", "queue", "status").stdout.splitlines()
    names = [line.split()[0] for line in lines if line.split() and len(line.split()[0]) == 7]
    return [project.run("dvc", "queue", "logs", name).stdout for name in names]


def test_push_and_pull_bring_the_models_into_a_second_clone_without_a_run(project, tmp_path):
    project.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    project.commit("A remote")
    project.run("dvc", "push")
    project.run("git", "clone", "-q", ".", str(tmp_path / "clone"))
    clone = type(project)(tmp_path / "clone")
    clone.run("dvc", "pull")
    assert (clone.folder / "models/pruned/model.safetensors").read_bytes() == (
        project.folder / "models/pruned/model.safetensors"
    ).read_bytes()
    assert ran(clone.run("dvc", "repro").stdout) == []
