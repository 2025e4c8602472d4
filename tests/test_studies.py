"""Every study's settings are valid params, and its commands say what it says."""

import itertools
import json
import runpy

import pytest
from helpers import ROOT
from ruamel.yaml import YAML

from stages.check.sections import check_params
from stages.common.params import read_params_file

STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
RUNNER = runpy.run_path(str(ROOT / "studies" / "queue_study.py"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_combination_is_valid(file, tmp_path, monkeypatch):
    study = YAML(typ="safe").load(file)
    monkeypatch.chdir(tmp_path)
    for grid in study["grids"]:
        for values in itertools.product(*grid["vary"].values()):
            content = read_params_file(ROOT / "params.yaml")
            for key, value in {**study["set"], **dict(zip(grid["vary"], values, strict=True))}.items():
                *parents, last = key.split(".")
                place = content
                for parent in parents:
                    place = place[parent]
                assert last in place, f"{key} is no key of params.yaml"
                place[last] = value
            (tmp_path / "params.yaml").write_text(json.dumps(content), encoding="utf-8")
            check_params(content)


def test_commands():
    study = {
        "set": {"a.b": [4, 18], "a.c": None},
        "grids": [{"vary": {"p.m": ["l1", "l2"], "p.r": [0.3, 0.4]}, "targets": ["evaluate@base"]}],
    }
    expected = "dvc exp run --queue -n name-1 -S a.b=[4,18] -S a.c=null -S p.m=l1,l2 -S p.r=0.3,0.4 evaluate@base"
    assert RUNNER["commands"](study, "name") == [expected.split()]


def test_the_thesis_has_thirteen_models():
    (study,) = [YAML(typ="safe").load(file) for file in STUDIES if file.stem == "thesis"]
    sizes = [len(list(itertools.product(*grid["vary"].values()))) for grid in study["grids"]]
    assert sizes == [12, 1]
