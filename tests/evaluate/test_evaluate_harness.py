"""The stage's numbers are lm-eval's own."""

import json
import logging

import lm_eval
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from evaluate_helpers import tiny_model, tiny_tokenizer, write_task, write_tasks
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from stages.common.errors import UserError
from stages.evaluate.harness import merge, run_tasks, scores
from stages.evaluate.language_model import BranchingLM
from stages.evaluate.outcomes import question_outcomes, task_metrics
from stages.evaluate.tally import Tally
from stages.evaluate.tasks import Tasks, read_tasks

logging.getLogger("lm_eval").setLevel(logging.ERROR)
TOKENIZER = tiny_tokenizer()


@pytest.fixture
def tasks(tmp_path):
    write_tasks(tmp_path / "tasks")
    return lambda chosen="all": read_tasks(tmp_path / "tasks", chosen, tmp_path / "cache").configs


def run(configs, model, num_fewshot=0, limit=None):
    return run_tasks(BranchingLM(model, TOKENIZER, 500), configs, num_fewshot, limit, seed=1)


@pytest.mark.parametrize(("num_fewshot", "limit"), [(0, None), (2, 7)])
def test_same_as_simple_evaluate(tasks, num_fewshot, limit):
    model = tiny_model("pruned")
    ours = run(tasks(), model, num_fewshot, limit)
    theirs = lm_eval.simple_evaluate(
        HFLM(model, tokenizer=TOKENIZER, batch_size=4),
        tasks=tasks(),
        num_fewshot=num_fewshot,
        limit=limit,
        task_manager=TaskManager(include_defaults=False),
        random_seed=1,
        numpy_random_seed=1,
        torch_random_seed=1,
        fewshot_random_seed=1,
    )
    assert ours["results"] == theirs["results"]
    for task, samples in theirs["samples"].items():
        for mine, stock in zip(ours["samples"][task], samples, strict=True):
            assert mine["arguments"] == stock["arguments"]
            for (my_sum, _), (stock_sum, _) in zip(mine["filtered_resps"], stock["filtered_resps"], strict=True):
                assert my_sum == pytest.approx(stock_sum, rel=0, abs=1e-4)


def test_metrics_have_standard_errors_and_fit_the_outcomes(tasks):
    results = run(tasks(), tiny_model())
    metrics, outcomes = task_metrics(results), question_outcomes(results)
    assert set(metrics) == {
        *("ending_acc", "ending_acc_stderr", "ending_acc_norm", "ending_acc_norm_stderr", "gap_acc", "gap_acc_stderr")
    }
    for name in ("ending_acc", "ending_acc_norm", "gap_acc"):
        task, metric = name.split("_", 1)
        values = outcomes.loc[outcomes.task == task, metric].astype(float)
        assert len(values) == 12
        assert metrics[name] == pytest.approx(values.mean())
        assert metrics[f"{name}_stderr"] == pytest.approx(values.std(ddof=1) / 12**0.5)
    assert outcomes.loc[outcomes.task == "gap", "acc_norm"].isna().all()
    assert outcomes.loc[outcomes.task == "ending", "question"].tolist() == list(range(12))


def test_answers_are_kept_where_all_questions_have_the_same_choices(tmp_path):
    write_tasks(tmp_path / "tasks")
    table = pd.DataFrame({"context": ["a tree", "a wall", "fruit"], "label": [1, 0, 1]})
    fields = {"doc_to_text": "context", "doc_to_target": "label", "doc_to_choice": ["no", "yes"]}
    write_task(tmp_path / "tasks", "polar", table, ["acc"], **fields)
    outcomes = question_outcomes(
        scores(run(read_tasks(tmp_path / "tasks", "all", tmp_path / "cache").configs, tiny_model()))
    )
    answers = outcomes.set_index("task")["answer"]
    assert answers["polar"].tolist() == ["1", "0", "1"]
    assert answers[["ending", "gap"]].isna().all()


def test_one_question_has_no_standard_error(tasks):
    metrics = task_metrics(run(tasks(), tiny_model(), limit=1))
    assert set(metrics) == {"ending_acc", "ending_acc_norm", "gap_acc"}


def test_chosen_tasks(tasks):
    assert [config["task"] for config in tasks()] == ["ending", "gap"]
    assert [config["task"] for config in tasks(["gap", "gap"])] == ["gap"]
    with pytest.raises(
        UserError, match=r"evaluate\.tasks = 'boolq' is not a known task; expected one of: all, ending, gap"
    ):
        tasks(["gap", "boolq"])


def test_a_schema_cannot_make_images_of_a_column(tmp_path):
    """`datasets` would open the paths and addresses in a column that the file's metadata declares as images."""
    write_tasks(tmp_path)
    file = tmp_path / "gap.parquet"
    declared = json.dumps({"info": {"features": {"continuation": {"_type": "Image"}}}})
    pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": declared}), file)
    (config,) = read_tasks(tmp_path, ["gap"], tmp_path / "cache").configs
    (task,) = TaskManager(include_defaults=False).load([config])["tasks"].values()
    rows = pq.read_table(file).to_pylist()
    assert [dict(row) for row in task.eval_docs] == rows
    assert (tmp_path / "cache/gap.test.parquet").is_file()


def test_a_damaged_file_of_a_task_is_one_line(tmp_path):
    write_tasks(tmp_path)
    (tmp_path / "gap.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"gap\.parquet: not a Parquet file, or damaged"):
        read_tasks(tmp_path, ["gap"], tmp_path)


def test_task_files_this_stage_cannot_score(tmp_path):
    write_tasks(tmp_path)
    config = yaml.safe_load((tmp_path / "ending.yaml").read_text())
    for change, message in (
        ({"task": "gaps"}, r"gap\.yaml: its task is named 'gaps'; expected gap"),
        ({"output_type": "guess"}, r"^task gap: lm-eval cannot make it \(ValueError: Got invalid output_type 'guess'"),
        ({"metric_list": [{"metric": "none"}]}, r"^task gap: lm-eval cannot make it \("),
    ):
        (tmp_path / "gap.yaml").write_text(yaml.safe_dump(config | {"task": "gap"} | change))
        with pytest.raises(UserError, match=message):
            run(read_tasks(tmp_path, ["gap"], tmp_path / "cache").configs, tiny_model())


def test_a_changed_file_is_read_again(tmp_path):
    """`datasets` caches by name and time; a cache of each run's own cannot be stale."""
    outcomes = []
    for label in (0, 1):
        write_tasks(tmp_path / "tasks")
        table = pd.read_parquet(tmp_path / "tasks" / "gap.parquet").assign(label=label)
        table.to_parquet(tmp_path / "tasks" / "gap.parquet")
        configs = read_tasks(tmp_path / "tasks", ["gap"], tmp_path / f"cache{label}").configs
        outcomes.append(question_outcomes(run(configs, tiny_model()))["acc"])
    assert (outcomes[0] != outcomes[1]).all()


def test_no_tasks(tmp_path):
    write_tasks(tmp_path / "tasks")
    (tmp_path / "empty").mkdir()
    assert read_tasks(tmp_path / "empty", "all", tmp_path) == read_tasks(tmp_path / "tasks", [], tmp_path) == Tasks([])
    with pytest.raises(UserError, match=r"evaluate\.tasks = 'boolq' is not a known task; expected one of: all$"):
        read_tasks(tmp_path / "empty", ["boolq"], tmp_path)
    nothing = merge([])
    assert task_metrics(nothing) == {}
    outcomes = question_outcomes(nothing)
    assert len(outcomes) == 0 and list(outcomes) == ["task", "question", "acc", "acc_norm", "answer"]
    outcomes.to_parquet(tmp_path / "questions.parquet", index=False)
    assert pd.read_parquet(tmp_path / "questions.parquet").dtypes.equals(outcomes.dtypes)


def test_accuracy_so_far_ends_as_the_accuracy(tasks):
    language_model = BranchingLM(tiny_model(), TOKENIZER, 100)
    for name in ("ending", "gap"):
        results = run_tasks(language_model, tasks([name]), num_fewshot=0, limit=None, seed=1)
        accuracy = task_metrics(results)[f"{name}_acc"]
        assert language_model.tally.answered == 12
        assert str(language_model.tally) == f"accuracy {accuracy:.3f}"


def test_a_question_counts_once_all_its_answers_are_scored(tasks):
    language_model = BranchingLM(tiny_model(), TOKENIZER, 100)
    samples = run_tasks(language_model, tasks(["gap"]), num_fewshot=0, limit=2, seed=1)["samples"]["gap"]
    tally = Tally(language_model.tasks, language_model.tally.requests)
    shown = []
    for index, (first, second) in enumerate([(0, 1), (2, 3)]):
        tally.add(second, samples[index]["filtered_resps"][1])
        shown.append(str(tally))
        tally.add(first, samples[index]["filtered_resps"][0])
    assert shown == ["", f"accuracy {samples[0]['acc']:.3f}"]
    assert tally.right / tally.answered == (samples[0]["acc"] + samples[1]["acc"]) / 2
