import pytest

from stages.data.python_docs import Document, Entry, alpaca_rows, collect

MODULE = '''"""About the module."""

raise SystemExit("nobody runs this")


class Base:
    pass


class Thing(Base, dict):
    """A thing."""

    def act(self, times: int = 1, *, loudly=False) -> None:
        """Act.

        More than once."""

        def helper():
            """Help."""

    async def wait(self):
        """Wait."""


if True:

    def conditional(*arguments, **options):
        """Only here."""
'''


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setattr("pydoc_data.topics.topics", {"if": "The if\n", "empty": "\n"})
    files = {
        "thing.py": MODULE,
        "package/__init__.py": '"""A package."""',
        "package/part.py": '"""A part."""',
        "package/silent.py": "x = 1",
        "package/tests/test_part.py": '"""A test."""',
        "test/support.py": '"""For tests."""',
        "site-packages/other.py": '"""Not ours."""',
        "broken.py": '"""Two."""\nprint "two"',
        "null.py": '"""Null."""\n\0',
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(content.replace("\\\n", "\n"), encoding="utf-8")
    return tmp_path


def test_the_documents_are_modules_and_topics_in_the_order_of_their_names(library):
    names = [document.name for document in collect(library)]
    assert names == ["module package", "module package.part", "module thing", "topic if"]


def test_a_module_gives_every_docstring_under_its_signature_and_is_not_run(library):
    (thing,) = (document for document in collect(library) if document.name == "module thing")
    assert thing.entries == (
        Entry("module", "thing", "About the module."),
        Entry("class", "Thing(Base, dict)", "A thing."),
        Entry("function", "Thing.act(self, times: int=1, *, loudly=False)", "Act.\n\nMore than once."),
        Entry("function", "Thing.act.helper()", "Help."),
        Entry("function", "Thing.wait(self)", "Wait."),
        Entry("function", "conditional(*arguments, **options)", "Only here."),
    )
    assert thing.text().startswith("thing\nAbout the module.\n\nThing(Base, dict)\nA thing.\n\nThing.act(self")


def test_instructions_ask_for_the_first_paragraph_of_what_has_a_signature(library):
    rows = alpaca_rows(collect(library))
    assert len(rows) == 8
    assert rows[4] == {
        "instruction": "Describe what this Python function does.",
        "input": "Thing.act(self, times: int=1, *, loudly=False)",
        "output": "Act.",
    }
    assert alpaca_rows([Document("topic x", (Entry("", "", "Text."),))]) == []
