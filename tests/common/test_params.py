"""Every mistake in params.yaml is one line that names the key, the value and what is allowed."""

from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import pytest
from helpers import ROOT
from ruamel.yaml import YAML

from stages.check.sections import SECTIONS, check_control, check_params
from stages.common.errors import UserError
from stages.common.params import ModelsParams, RunParams, load_section, read_params_file
from stages.prune.methods import METHODS
from stages.tune.params import TuneParams

yaml = YAML(typ="safe")
PARAMS = yaml.load(ROOT / "params.yaml")


@pytest.fixture
def params(tmp_path, monkeypatch):
    """The project's params.yaml in a folder of its own; `params(key, value)` changes one key and checks all."""
    content = deepcopy(PARAMS)
    # Choices that go with all that the tests combine them with.
    content["prune"] |= {"method": "taylor", "ratio": 0.5, "ratio_of": "groups"}
    content["prune"] |= {"attention_layers": [1, 6], "mlp_layers": [1, 6]}
    monkeypatch.chdir(tmp_path)

    def check(key=None, value=None):
        if key:
            *parents, last = key.split(".")
            place = content
            for parent in parents:
                place = place[parent]
            place[last] = value
        yaml.dump(content, Path("params.yaml"))
        check_params(read_params_file())

    check.content = content
    return check


def test_the_projects_own_params_are_valid(params):
    params()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("prune.ratio", -0.1, r"prune.ratio = -0.1 is not allowed; expected a value greater than or equal to 0"),
        ("prune.ratio", 1, r"prune.ratio = 1 is not allowed; expected a value less than 1"),
        ("prune.ratio", 1.5, r"prune.ratio = 1.5 is not allowed; expected a value less than 1"),
        ("prune.ratio", "half", r"prune.ratio = 'half' is not allowed; expected a valid number"),
        ("prune.ratio", "0.3", r"prune.ratio = '0.3' is not allowed; expected a valid number"),
        ("prune.ratio", True, r"prune.ratio = True is not allowed"),
        ("prune.ratio", None, r"prune.ratio = None is not allowed"),
        ("prune.ratio", float("nan"), r"prune.ratio = nan is not allowed"),
        ("prune.method", "tailor", r"prune.method = 'tailor' is not allowed; expected one of: .*l1, l2, .*taylor"),
        ("prune.taylor", "first", r"prune.taylor = 'first' is not allowed; expected 'param_first', "),
        ("prune.grouping", "median", r"prune.grouping = 'median' is not allowed; expected 'sum', 'mean'"),
        ("prune.allocation", "equal", r"prune.allocation = 'equal' is not allowed; expected .*uniform"),
        ("prune.mlp_layers", [1], r"prune.mlp_layers = \[1\] is not allowed"),
        ("prune.mlp_layers", [-1, 3], r"prune.mlp_layers = \[-1, 3\] is not allowed"),
        ("prune.calibration.windows", 0, r"prune.calibration.windows = 0 is not allowed"),
        ("prune.calibration.windos", 4, r"prune.calibration.windos is not a known key; expected .*: windows, length"),
        ("prune.ration", 0.4, r"prune.ration is not a known key; expected one of: method, structure"),
        ("prunes", {}, r"`prunes` is not a known section; expected one of: run, data"),
        (
            "export.formats",
            ["gguf-q5"],
            r"export.formats.0 = 'gguf-q5' is not allowed; expected 'padded', .*'gguf-q4_0'",
        ),
        (
            "export.models",
            ["merged"],
            r"export.models.0 = 'merged' is not allowed; expected 'base', 'pruned' or 'tuned'",
        ),
        ("models.Pruned/x", "models/x", r"models: Pruned/x is not allowed; expected lower-case letters"),
        ("models.pruned", "models/x", r"models: pruned is not allowed"),
        ("models.other", 3, r"models.other = 3 is not allowed; expected a valid string"),
        ("run.device", "tpu", r"run.device = 'tpu' is not allowed; expected 'auto', 'cpu' or 'cuda'"),
        ("run.threads", 0, r"run.threads = 0 is not allowed"),
        ("run.processes", 0, r"run.processes = 0 is not allowed; expected auto, or 1 to 1024"),
        ("run.processes", 3, r"run.processes = 3 does not divide the 4 micro-batches of a step"),
        ("run.sharded", True, r"run: sharded = true is not allowed with processes = 1; expected auto, or 2 to 1024"),
        (
            "run.threads",
            10**23,
            r"run.threads = 10{23} is not allowed; expected a value less than or equal to 1024",
        ),
        (
            "tune.target_modules",
            ["q_proj", "foo"],
            r"tune.target_modules = \['q_proj', 'foo'\] is not allowed; expected all-linear, or a list of: \w+, \w+",
        ),
        (
            "data.tasks",
            ["boolk"],
            r"data.tasks = 'boolk' is not a task, group or tag of lm-eval; similar names: boolq",
        ),
        (
            "data.tasks",
            "none",
            r"data.tasks = 'none' is not allowed; expected auto, or a list, empty for none, of",
        ),
        (
            "data.perplexity",
            [3],
            r"data.perplexity = \[3\] is not allowed; expected auto, or a list, .*abstracts, c4",
        ),
        ("data.source", "files", r"data: path = None; expected a file or folder of your text, since source = 'files'"),
        ("evaluate.tasks", 3, r"evaluate.tasks = 3 is not allowed; expected all, or a list of names from data/tasks"),
        ("tune.learning_rate", 0, r"tune.learning_rate = 0 is not allowed; expected a value greater than 0"),
    ],
)
def test_a_wrong_value_is_named(params, key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        params(key, value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_missing_key_and_section_is_named(section, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = yaml.load(ROOT / "params.yaml")
    for key in SECTIONS[section].model_fields:
        content = yaml.load(ROOT / "params.yaml")
        del content[section][key]
        yaml.dump(content, Path("params.yaml"))
        with pytest.raises(UserError, match=rf"{section}.{key} is missing"):
            check_params(read_params_file())
    del content[section]
    yaml.dump(content, Path("params.yaml"))
    with pytest.raises(UserError, match=rf"section `{section}` is missing"):
        check_params(read_params_file())


def test_tasks_that_data_does_not_make_are_named(params):
    params("evaluate.tasks", ["pydocs_gap"])
    made = "pydocs_continuation, pydocs_gap, pydocs_object"
    with pytest.raises(
        UserError, match=rf"evaluate.tasks = 'boolk' is not a task that stage data makes; expected one of: all, {made}$"
    ):
        params("evaluate.tasks", ["pydocs_gap", "boolk"])
    params("evaluate.tasks", "all")
    params("data.tasks", ["boolq", "piqa"])
    params("data.source", "hub")
    params("evaluate.tasks", ["piqa"])
    with pytest.raises(
        UserError,
        match=r"evaluate.tasks = 'pydocs_gap' is not a task that stage data makes; expected one of: all, boolq, ",
    ):
        params("evaluate.tasks", ["pydocs_gap"])


@pytest.mark.parametrize(
    ("made", "models", "message"),
    [
        (True, {}, r"tune.control = true needs .*: models: \{control: models/control\}$"),
        (True, {"control": "models/base"}, r"tune.control = true needs .*: models: \{control: models/control\}$"),
        (False, {"control": "models/control"}, r"models.control = 'models/control' needs tune.control = true"),
        (True, {"control": "models/control"}, None),
        (False, {"mine": "models/mine"}, None),
    ],
)
def test_a_control_is_made_and_measured_or_neither(made, models, message):
    expected = pytest.raises(UserError, match=message) if message else nullcontext()
    with expected:
        check_control(TuneParams.model_construct(control=made), ModelsParams.model_validate(models))


def test_both_ranges_null_leaves_nothing_to_prune(params):
    params("prune.mlp_layers", None)
    with pytest.raises(UserError, match="attention_layers and mlp_layers are both null"):
        params("prune.attention_layers", None)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"structure": "weight"},
            "criterion = taylor does not go with structure = weight; expected one of: magnitude, obs, wanda",
        ),
        (
            {"method": "wanda", "structure": "block"},
            "criterion = wanda does not go with structure = block; expected .*l1",
        ),
        (
            {"method": "wanda", "allocation": "global"},
            "allocation = global does not go with .* expected one of: uniform$",
        ),
        (
            {"method": "wanda", "update": "refit"},
            "update = refit does not go with structure = weight; expected one of: none, obs",
        ),
        (
            {"method": "wanda", "iterative_steps": 2},
            "iterative_steps = 2 does not go with structure = weight; expected 1",
        ),
        ({"method": "wanda", "pattern": "4:2"}, "prune.pattern = '4:2' is not allowed; expected row, matrix, or n:m"),
        (
            {"method": "wanda", "pattern": "2:4", "ratio": 0.3},
            "ratio = 0.3 does not go with pattern = 2:4; expected 0.5",
        ),
        ({"method": "wanda", "pattern": "2:4", "ratio_of": "parameters"}, "ratio_of = parameters .* expected groups"),
        ({"method": "obs", "structure": "weight", "update": "none"}, "pattern = null .* expected row, matrix, or n:m"),
        ({"pattern": "2:4"}, "pattern = 2:4 does not go with structure = block; expected null"),
        (
            {"method": "svd_llm", "criterion": "obs"},
            "criterion = obs does not go with structure = rank; expected one of: svd, whitened",
        ),
        (
            {"method": "svd_llm", "iterative_steps": 2},
            "iterative_steps = 2 .* with structure = rank; expected 1",
        ),
        ({"method": "svd", "budget": "1 GiB"}, "budget = 1 GiB does not go with structure = rank; expected null"),
        (
            {"method": "shortgpt", "criterion": "obs"},
            "criterion = obs .* layer; expected one of: first, influence, last, taylor",
        ),
        (
            {"method": "shortgpt", "update": "obs"},
            "update = obs does not go with structure = layer; expected one of: none",
        ),
        (
            {"method": "shortgpt", "mlp_layers": [2, 6]},
            r"mlp_layers = \[2, 6\] does not go .* expected one range for both",
        ),
    ],
)
def test_choices_that_do_not_go_together_are_one_line(params, keys, message):
    *others, last = keys.items()
    params.content["prune"].update(others)
    with pytest.raises(UserError, match=message) as caught:
        params(f"prune.{last[0]}", last[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        *({"method": name, "ratio_of": "parameters"} for name in METHODS),
        {"method": "wanda", "pattern": "2:4"},
        {"method": "wanda", "pattern": "1:3", "ratio": 0.667},
        {"method": "wanda", "update": "obs"},
        {"method": "magnitude", "pattern": "row", "ratio_of": "parameters", "mlp_layers": None},
        {"method": "shortgpt", "attention_layers": None, "iterative_steps": 3},
        {"method": "svd_llm", "allocation": "global", "update": "realign", "streaming": True},
    ],
)
def test_choices_that_go_together_are_allowed(params, keys):
    params.content["prune"].update(keys)
    params()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "must be a mapping"),
        ("run: [", "not valid YAML"),
        ("run: {device: cpu, threads: 1}\nrun: {device: cpu, threads: 2}\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_params_file(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"params.yaml is missing"):
        read_params_file(tmp_path / "params.yaml")


def test_numbers_are_read_as_dvc_reads_them(tmp_path):
    run = {"device": "cpu", "threads": 2, "precision": "float32", "processes": 1, "sharded": False}
    (tmp_path / "params.yaml").write_text(f"run: {run}\nrate: 1e-4\n")
    assert read_params_file(tmp_path / "params.yaml")["rate"] == 1e-4
    assert load_section("run", RunParams, tmp_path / "params.yaml") == RunParams(
        device="cpu", threads=2, precision="float32", processes=1, sharded=False
    )
