"""Any task of lm-eval, from data.tasks to the metrics, against lm_eval.simple_evaluate with HFLM on the same rows."""

import importlib.util
import logging
import math

import datasets
import lm_eval
import pyarrow as pa
import pytest
from evaluate_helpers import tiny_model, tiny_tokenizer
from family_rows import FAMILIES, rows
from ifeval_packages import IFEVAL_PACKAGES, nltk_data, stub_package
from lm_eval.models.huggingface import HFLM

from stages.data.definitions import expand, index
from stages.data.stock_tasks import read_tasks, with_chance
from stages.data.task_files import write_group, write_task
from stages.data.task_rows import check_supported
from stages.evaluate import tasks as evaluated
from stages.evaluate.harness import BOOTSTRAP_SAMPLES, merge, run_tasks, scores, with_groups
from stages.evaluate.language_model import BranchingLM
from stages.evaluate.outcomes import headlines, only, question_outcomes, question_values, task_metrics

logging.getLogger("lm_eval").setLevel(logging.ERROR)
TOKENIZER = tiny_tokenizer()
TOKENIZER.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
SHORT = {"max_gen_toks": 12}  # a random model never stops
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def packages_of_ifeval(monkeypatch):
    """Stand in for what ifeval imports and these rows' instructions do not use."""
    nltk_data(monkeypatch, found=True)
    for name in IFEVAL_PACKAGES:
        if importlib.util.find_spec(name) is None:
            stub_package(monkeypatch, name)


def model():
    made = tiny_model("pruned")
    made.config.max_position_embeddings = 2048
    return made


def ours(name, tmp_path, num_fewshot, chat=False):
    """Return (results, Tasks) by the data stage's snapshot and the evaluate stage."""
    known = expand([name], None)
    asked = []

    def get(task, dataset, split):
        asked.append(split)
        return pa.Table.from_pylist(rows(FAMILIES[name], split, dataset.config))

    for definition in known.tasks.values():
        check_supported(definition)
    tasks = {each: with_chance(task) for each, task in read_tasks(known.tasks, get, num_fewshot).items()}
    folder = tmp_path / "tasks"
    folder.mkdir()
    for each, task in tasks.items():
        write_task(each, task, folder, folder)
    for each, group in known.groups.items():
        write_group(each, group, tasks, folder)
    read = evaluated.read_tasks(folder, "all", tmp_path / "ours")
    language_model = BranchingLM(model(), TOKENIZER, 3000)
    parts = [
        scores(run_tasks(language_model, [generating_little(config)], num_fewshot, None, 1, None, chat))
        for config in read.configs
    ]
    return with_groups(merge(parts), read.groups), read, asked


def generating_little(config):
    settings = config.get("generation_kwargs")
    return config | ({"generation_kwargs": settings | SHORT} if settings else {})


def theirs(name, tmp_path, monkeypatch, num_fewshot, chat=False):
    """Return lm-eval's own results, with the same rows in the place of the hub's."""

    class Splits(dict):
        def __missing__(self, split):
            return datasets.Dataset.from_list(rows(FAMILIES[name], split, self.config))

    def load_dataset(path, name=None, **_):
        splits = Splits()
        splits.config = name
        return splits

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return lm_eval.simple_evaluate(
        HFLM(model(), tokenizer=TOKENIZER, batch_size=4, max_length=2048),
        tasks=[name],
        num_fewshot=num_fewshot,
        task_manager=index(None),
        bootstrap_iters=BOOTSTRAP_SAMPLES,
        gen_kwargs=SHORT,
        apply_chat_template=chat,
        random_seed=1,
        numpy_random_seed=1,
        torch_random_seed=1,
        fewshot_random_seed=1,
    )


def same(mine, stock):
    """Compare results by task and metric: accuracies exactly, what is made of log-likelihoods to their rounding."""
    assert mine.keys() == stock.keys()
    for task, values in stock.items():
        for key, value in values.items():
            if isinstance(value, str | dict):
                continue
            assert mine[task][key] == pytest.approx(value, rel=1e-5, abs=1e-9), (task, key)


OWN_NUMBER = ("gsm8k", "boolq", "truthfulqa_mc1")  # of examples: 5, none said, 0
CASES = [(name, 0) for name in FAMILIES] + [
    (name, 2) for name in FAMILIES if name not in ("wikitext", "drop", "ifeval")
]


@pytest.mark.parametrize(("name", "num_fewshot"), CASES + [(name, None) for name in OWN_NUMBER])
def test_results_are_those_of_simple_evaluate(name, num_fewshot, tmp_path, monkeypatch):
    results, tasks, asked = ours(name, tmp_path, num_fewshot)
    stock = theirs(name, tmp_path, monkeypatch, num_fewshot)
    same(results["results"], stock["results"])
    assert set(results["results"]) >= set(tasks.shown)
    for task, samples in stock["samples"].items():
        values = {(sample["doc_id"], f"{metric},{sample['filter']}"): sample[metric]
                  for sample in samples for metric in sample["metrics"]}  # fmt: skip
        kept = {(sample["doc_id"], key): value
                for sample in results["samples"][task] for key, value in sample["values"].items()}  # fmt: skip
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
        assert kept == pytest.approx(numbers, rel=1e-5), task
    if num_fewshot == 0 and name != "mmlu_social_sciences":
        assert len(asked) == 1, "few-shot examples are not read where there are none"


@pytest.mark.parametrize("name", ["arc_challenge", "winogrande", "gsm8k", "mmlu_social_sciences"])
def test_a_chat_is_that_of_simple_evaluate(name, tmp_path, monkeypatch):
    results, _, _ = ours(name, tmp_path, 2, chat=True)
    same(results["results"], theirs(name, tmp_path, monkeypatch, 2, chat=True)["results"])


def test_a_group_stands_for_its_tasks(tmp_path):
    results, tasks, _ = ours("mmlu_social_sciences", tmp_path, 0)
    assert tasks.shown == ["mmlu_social_sciences"] and len(tasks.configs) == 12
    shown = only(results, tasks.shown)
    sizes = [len(results["samples"][task]) for task in tasks.groups["mmlu_social_sciences"]["tasks"]]
    assert len(set(sizes)) > 1
    accuracies = [results["results"][task]["acc,none"] for task in tasks.groups["mmlu_social_sciences"]["tasks"]]
    mean = sum(size * each for size, each in zip(sizes, accuracies, strict=True)) / sum(sizes)
    assert headlines(shown) == {"mmlu_social_sciences_acc": pytest.approx(mean), "average_acc": pytest.approx(mean)}
    questions = question_outcomes(shown)
    assert len(questions) == sum(sizes) and questions["acc"].mean() == pytest.approx(mean)
    assert questions["question"].tolist() == list(range(sum(sizes)))
    assert tasks.groups["mmlu_social_sciences"]["metadata"]["chance"] == 0.25


def test_names_of_metrics(tmp_path):
    results, _, _ = ours("gsm8k", tmp_path, 0)
    assert list(headlines(results)) == ["gsm8k_exact_match_strict_match"]
    assert set(task_metrics(results)) == {
        f"gsm8k_exact_match_{kind}{suffix}"
        for kind in ("strict_match", "flexible_extract")
        for suffix in ("", "_stderr")
    }
    values = question_values(results)
    assert set(values["filter"]) == {"strict-match", "flexible-extract"} and len(values) == 2 * 7
    assert question_outcomes(results).empty


def test_chance_is_that_of_each_questions_choices(tmp_path):
    _, tasks, _ = ours("arc_challenge", tmp_path, 0)
    (config,) = tasks.configs
    counts = [len(row["choices"]["text"]) for row in rows("arc", "test", "ARC-Challenge")]
    assert len(set(counts)) > 1
    assert config["metadata"]["chance"] == pytest.approx(math.fsum(1 / count for count in counts) / len(counts))
    assert (config["metadata"]["version"], config["metadata"]["lm_eval"]) == (1.0, lm_eval.__version__)


def test_a_group_that_counts_tasks_alike_has_no_questions_of_its_own():
    samples = {"one": [{"doc_id": 0, "acc": 1.0}], "two": [{"doc_id": number, "acc": 0.0} for number in range(3)]}
    found = {name: {"acc,none": each[0]["acc"], "sample_len": len(each)} for name, each in samples.items()}
    for by_size, mean, questions in ((True, 0.25, 4), (False, 0.5, 0)):
        listed = [{"metric": "acc", "weight_by_size": by_size}]
        group = {"group": "both", "tasks": ["one", "two"], "groups": [], "aggregate_metric_list": listed}
        merged = with_groups({"results": found, "samples": samples}, {"both": group})
        assert merged["results"]["both"]["acc,none"] == mean
        assert len(question_outcomes(only(merged, ["both"]))) == questions
