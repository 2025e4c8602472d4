"""studies/<name>.yaml: what it stands for, and that every mistake is one clear line."""

import shutil
from pathlib import Path

import pytest
from helpers import ROOT
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.common.params import read_params_file
from studies.settings import write_settings
from studies.study import load_study
from studies.workspace import command_of

GRID = "grid:\n  prune.method: [l2, taylor]\n  prune.ratio: [0.3, 0.4]\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return the study that a text describes, over the project's own params changed by `params`."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, **params):
        content = YAML(typ="safe").load(ROOT / "params.yaml")
        content["base"]["source"] = "train"  # whose number of layers is known before it is there
        for key, value in params.items():
            section, name = key.split("__")
            content[section][name] = value
        YAML().dump(content, Path("params.yaml"))
        Path("small.yaml").write_text(text)
        return load_study(Path("small.yaml"))

    return load


@pytest.mark.parametrize(
    ("name", "variants"), [("demo", 13), ("thesis", 13), ("finer", 28), ("seeds", 30), ("quantised", 4)]
)
def test_the_projects_own_studies_are_valid(monkeypatch, name, variants):
    monkeypatch.chdir(ROOT)
    study = load_study(Path(f"studies/{name}.yaml"))
    assert len(study.variants) == variants
    assert len(study.bases) == 1
    assert len({each.name for each in study.experiments}) == variants + 1


def test_a_grid_is_every_combination_and_a_point_has_its_own_models(load):
    study = load(f"{GRID}points:\n  - set: {{prune.ratio: 0.3}}\n    models: [pruned, tuned]\n")
    assert [each.label for each in study.variants] == ["l2-0.3", "l2-0.4", "taylor-0.3", "taylor-0.4", "0.3-tuned"]
    assert study.variants[0].targets == ["evaluate@base", "evaluate@pruned", "profile@base", "profile@pruned"]
    assert study.variants[-1].models == ("base", "pruned", "tuned")
    assert study.bases[0].targets == ["evaluate@base", "profile@base"]


def test_seeds_repeat_every_variant(load):
    study = load(f"{GRID}seeds:\n  prune.seed: [1, 2, 3]\n  tune.seed: [4, 5, 6]\n")
    assert len(study.variants) == 12
    assert study.variants[1].label == "l2-0.3-seed2-seed5"
    assert study.variants[1].settings["tune.seed"] == 5
    assert len(study.bases) == 1


def test_what_others_start_from_is_needed_first(load):
    study = load(f"{GRID}points:\n  - set: {{prune.method: taylor, prune.ratio: 0.3}}\n    models: [tuned]\n")
    tuned = study.variants[-1]
    assert study.needs(tuned).label == "taylor-0.3"
    assert study.needs(study.variants[0]) == study.bases[0]
    assert study.needs(study.bases[0]) is None


def test_names_depend_on_what_a_variant_depends_on_and_nothing_else(load):
    names = lambda **params: [each.name for each in load(GRID, **params).experiments]  # noqa: E731
    first = names()
    assert names(report__seed=7, tune__seed=9) == first
    assert names(prune__ratio=0.9) == first  # every variant sets its own
    assert names(prune__seed=7)[0] == first[0]  # the base does not depend on it
    assert all(one != other for one, other in zip(names(prune__seed=7)[1:], first[1:], strict=True))
    assert not set(names(base__seed=7)) & set(first)


def test_a_variant_is_labelled_by_its_values_and_run_by_its_name(load):
    study = load("points:\n  - set: {prune.mlp_layers: [2, 4], base.revision: 'a b', prune.allocation: null}\n")
    variant = study.variants[0]
    assert command_of(variant) == ["exp", "run", "-n", variant.name, *variant.targets]
    assert variant.label == "2-4-a-b-none"
    assert variant.params["prune"]["mlp_layers"] == [2, 4]


def test_a_format_is_a_further_model_of_every_variant(load):
    study = load(f"{GRID}models: [tuned]\nformats: [gguf-q8_0, padded]\n")
    variant = study.variants[0]
    assert variant.label == "l2-0.3-tuned-gguf-q8_0-padded"
    assert variant.compared == ["tuned", "tuned-gguf-q8_0", "tuned-padded"]
    assert variant.targets[:5] == [f"evaluate@{name}" for name in ("base", "pruned", *variant.compared)]
    assert variant.params["export"] == {"models": ["tuned"], "formats": ["gguf-q8_0", "padded"]}
    assert variant.params["models"] == {
        "tuned-gguf-q8_0": "models/export/tuned-gguf-q8_0", "tuned-padded": "models/export/tuned-padded",
    }  # fmt: skip
    assert study.bases[0].targets == ["evaluate@base", "profile@base"]
    plain = load(f"{GRID}models: [tuned]\n")
    assert plain.bases[0].name == study.bases[0].name and plain.variants[0].name != variant.name


@pytest.mark.parametrize(
    "text",
    [
        "grid: {data.revisions: [{}, {yahma/alpaca-cleaned: abc}]}",
        f"{GRID}models: [tuned]\nformats: [gguf-q8_0, padded]\n",
        "points: [{set: {prune.allocation: null, prune.mlp_layers: [2, 4], base.learning_rate: 1e-5}}]",
    ],
)
def test_the_file_of_a_variant_holds_its_params_and_the_comments(load, text):
    for variant in load(text, data__revisions={"allenai/c4": "x"}).variants:
        shutil.copy(ROOT / "params.yaml", "written.yaml")
        write_settings(Path("written.yaml"), {"data.revisions": {"allenai/c4": "x"}, "base.source": "train"})
        write_settings(Path("written.yaml"), variant.settings)
        assert read_params_file(Path("written.yaml")) == variant.params
        kept = [line for line in Path("written.yaml").read_text().splitlines() if "# " in line]
        assert kept[0] == (ROOT / "params.yaml").read_text().splitlines()[0]
        assert len(kept) > 100


@given(st.text(max_size=60) | st.lists(st.text(max_size=60), min_size=1, max_size=3))
@example(
    [
        "${oc.env:HOME}",
        "${prune.ratio}",
        "\\${x}",
        "a'b\"c\\",
        "\n 😀 \t\x07\x85\u2028 # end ",
        "null",
        "1e5",
        "{a: [b]}",
    ]
)
def test_text_is_written_byte_for_byte(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text("section: {key: 0, other: '${oc.env:HOME}'} # a comment\n")
    write_settings(path, {"section.key": value})
    assert YAML(typ="safe").load(path) == {"section": {"key": value, "other": "${oc.env:HOME}"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grids: {}", "grids is not a known key; expected one of: set, grid, points, models, formats, seeds"),
        ("set: {}", "grid and points are both empty; expected at least one variant"),
        ("", "small.yaml: the content = None is not allowed; expected a valid dictionary"),
        ("grid: {prune.metod: [l2]}", "prune.metod is not a key of params.yaml; expected one of: method, "),
        ("grid: {pune.ratio: [0.1]}", "pune.ratio is not a key of params.yaml; expected one of: run, "),
        ("grid: {prune.ratio: 0.1}", "small.yaml: grid.prune.ratio = 0.1 is not allowed; expected a valid list"),
        ("grid: {prune.ratio: [0.1, 1.5]}", "small.yaml, variant 1.5: prune.ratio = 1.5 is not allowed"),
        ("grid: {prune.mlp_layers: [[2, 9]]}", "small.yaml, variant 2-9: prune.mlp_layers = [2, 9] is not allowed"),
        ("grid: {prune.ratio: [0.1, 0.1]}", "small.yaml: variant 0.1 appears twice; expected once, in grid or points"),
        (f"{GRID}models: [merged]", "small.yaml: models.0 = 'merged' is not allowed; expected 'pruned' or 'tuned'"),
        (f"{GRID}formats: [q8_0]", "small.yaml: formats.0 = 'q8_0' is not allowed; expected 'padded', "),
        (f"{GRID}seeds: {{prune.seed: [1]}}", "small.yaml: seeds.prune.seed = [1] is not allowed"),
        (f"{GRID}seeds: {{prune.seed: [1, 2], tune.seed: [1, 2, 3]}}", "seeds has lists of different lengths"),
        ("grid: {prune.ratio: [", "small.yaml is not valid YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(load, text, message):
    with pytest.raises(UserError) as error:
        load(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_study_names_those_there_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"studies/dmo.yaml is missing; expected one of: .*studies/demo.yaml"):
        load_study(Path("studies/dmo.yaml"))
