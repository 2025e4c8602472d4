"""data.source = files: every format of the user's own text, and every mistake in it."""

import json
import os
from pathlib import Path

import pandas as pd
import public_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.data.collected import Collected
from stages.data.files import collect
from stages.data.splits import split_texts

SHARES = {"validation_share": 0.1, "test_share": 0.2}


def params(path: object, **changes):
    """Return section `data` for the files at `path`, with nothing beside them, changed by `changes`."""
    none = {"source": "files", "path": str(path), "tasks": [], "perplexity": []}
    return public_files.params(**none | SHARES | changes)


def read(path: object, **changes) -> Collected:
    """Return what is collected from `path`."""
    return collect(params(path, **changes), few_shot=False)


def page(number: int) -> str:
    """Return a text of its own."""
    return f"Page {number} tells of tree {number}.\n\nIts second paragraph tells of wall {number}."


def all_texts(collected: Collected) -> list[str]:
    """Return the documents of all splits."""
    return sorted(text for part in collected.texts.values() for text in part)


PAGES = [page(number) for number in range(60)]
ROWS = [{"text": text} for text in PAGES]
ALPACA = [{"instruction": f"Name {i}", "input": None if i % 2 else "of it", "output": f"N{i}"} for i in range(60)]


def write(folder: Path, kind: str) -> Path:
    """Write PAGES in one of the formats, and return the path to be read."""
    folder.mkdir(exist_ok=True)
    if kind in ("txt", "md"):
        for number, text in enumerate(PAGES):
            place = folder / f"part {number % 3}" / f"{number:02}.{kind.upper() if number == 7 else kind}"
            place.parent.mkdir(exist_ok=True)
            place.write_text(text, encoding="utf-8-sig" if number == 8 else "utf-8", newline="\r\n")
        return folder
    file = folder / f"pages.{kind}"
    if kind == "parquet":
        pd.DataFrame(ROWS).to_parquet(file)
    else:
        file.write_text("\n\n".join(map(json.dumps, ROWS)))
    return file


@pytest.mark.parametrize("kind", ["txt", "md", "jsonl", "parquet"])
def test_every_format_gives_the_same_documents(kind, tmp_path):
    collected = read(write(tmp_path / "own text", kind))
    assert all_texts(collected) == sorted(PAGES)
    assert {name: len(part) for name, part in collected.texts.items()} == {"train": 42, "validation": 6, "test": 12}
    assert collected.perplexity == {"own": collected.texts["test"]}
    assert collected.tasks == {} and collected.own_domain == "own" and collected.instructions.empty
    assert [source["name"] for source in collected.sources] == ["own"]


def test_two_readings_are_equal_and_a_change_is_seen(tmp_path):
    folder = write(tmp_path / "own", "txt")
    first, again = read(folder), read(folder)
    assert first.texts == again.texts and first.sources == again.sources and first.details == again.details
    (folder / "part 0" / "00.txt").write_text("Other text")
    assert read(folder).sources != first.sources


def test_formats_mix_and_hidden_files_are_left_out(tmp_path):
    write(tmp_path, "parquet")
    (tmp_path / "more.md").write_text("More of it")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/x.bin").write_bytes(b"\0")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    assert all_texts(read(tmp_path)) == sorted([*PAGES, "More of it"])


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_instructions_are_those_of_the_training_split(kind, tmp_path):
    file = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pd.DataFrame(ALPACA).to_parquet(file)
    else:
        file.write_text("\n".join(json.dumps({k: v for k, v in row.items() if v is not None}) for row in ALPACA))
    collected = read(file)
    rows = collected.instructions
    assert list(rows) == ["instruction", "input", "output"] and len(rows) == len(collected.texts["train"]) == 42
    joined = ["\n".join(filter(None, row)) for row in rows.itertuples(index=False)]
    assert joined == collected.texts["train"]
    assert set(rows["input"]) == {"", "of it"}


def test_few_instructions_are_not_cut(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"instruction": f"Say {i}", "output": "word " * 300}) for i in range(20))
    )
    assert len(read(tmp_path).instructions) == 14


def test_a_document_that_occurs_twice_counts_once(tmp_path):
    write(tmp_path, "txt")
    (tmp_path / "copy.txt").write_text(PAGES[3] + "\n\n")
    pd.DataFrame(ROWS).to_parquet(tmp_path / "all.parquet")
    assert all_texts(read(tmp_path)) == sorted(PAGES)


BOOK = "\n\n".join(f"Paragraph {number}. " + f"It tells of tree {number} and more. " * 8 for number in range(300))


@pytest.mark.parametrize("text", [BOOK, BOOK.replace("\n\n", " "), BOOK.replace(" ", "_").replace("\n", "-")])
def test_one_long_document_is_cut_so_that_it_can_be_split(text, tmp_path):
    """One of paragraphs, one huge line of sentences, one huge line without a blank."""
    (tmp_path / "book.txt").write_text(text)
    collected = read(tmp_path)
    parts = [part for each in collected.texts.values() for part in each]
    assert all(collected.texts.values()) and max(map(len, parts)) <= 4000
    assert sum(map(len, parts)) > 0.99 * len(text) and all(part in text for part in parts)
    if text is BOOK:
        assert all(part.startswith("Paragraph") and part.endswith("more.") for part in parts)


def test_data_characters_ends_the_reading_and_says_where(tmp_path, capsys):
    write(tmp_path, "txt")
    collected = read(tmp_path, characters=2000, validation_share=0.2)
    assert 2000 <= sum(map(len, all_texts(collected))) < 2200
    assert "data: data.characters = 2000 is reached in" in capsys.readouterr().out
    (tmp_path / "book.txt").write_text("".join(f"é{number}" for number in range(20_000)))
    assert sum(map(len, all_texts(read(tmp_path / "book.txt", characters=30_001)))) == 30_001


def parquet_of(file: Path, **columns) -> None:
    """Write columns to a Parquet file."""
    pd.DataFrame(columns).to_parquet(file)


def damage(file: Path) -> None:
    """Write a Parquet file with bytes of its middle and its end changed."""
    pd.DataFrame(ROWS).to_parquet(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = b"?" * (len(content) - len(content) // 2)
    file.write_bytes(content)


MISTAKES = {
    "empty": ("a.txt", lambda file: file.write_bytes(b""), r"a\.txt: contains no text; expected text"),
    "blank": ("a.md", lambda file: file.write_text(" \n\t\n"), r"a\.md: contains no text"),
    "binary": ("a.txt", lambda file: file.write_bytes(b"ab\0c"), r"a\.txt: byte 3 is zero, so this is not text"),
    "latin": ("a.txt", lambda file: file.write_bytes("naïf".encode("latin1")), r"a\.txt: byte 3 \(0xef\) is not UTF-8"),
    "utf-16": ("a.md", lambda file: file.write_text("text", encoding="utf-16"), r"a\.md: byte \d is zero, so"),
    "cut": ("a.txt", lambda file: file.write_bytes("né".encode()[:-1]), r"a\.txt: byte 2 \(0xc3\) is not UTF-8"),
    "extension": ("a.pdf", lambda file: file.write_text("x"), r"a\.pdf: extension \.pdf; expected one of: \.txt, \.md"),
    "none": ("a", lambda file: file.write_text("x"), r"a: extension none; expected one of: \.txt, \.md"),
    "fifo": ("a.txt", os.mkfifo, r"a\.txt: not a regular file"),
    "folder": ("a.txt", lambda file: (file / ".x").mkdir(parents=True), r"own' holds no files; expected one of: \.txt"),
    "outside": ("a.txt", lambda file: file.symlink_to("/etc/passwd"), r"a\.txt: a link that leaves .*; expected the"),
    "folder outside": ("a", lambda file: file.symlink_to("/etc"), r"a: a link that leaves .*; expected the file itse"),
    "dangling": ("a.txt", lambda file: file.symlink_to("b.txt"), r"a\.txt: cannot be read \(No such file"),
    "loop": ("a.txt", lambda file: file.symlink_to("a.txt"), r"a\.txt: cannot be read \(Too many levels"),
    "json": ("a.jsonl", lambda file: file.write_text('{"text": "a"}\n{'), r"a\.jsonl: line 2 is not JSON \(.*\); ex"),
    "deep": ("a.jsonl", lambda file: file.write_text("[" * 10**6), r"a\.jsonl: line 1 is not JSON \("),
    "list": ("a.jsonl", lambda file: file.write_text("[1]"), r"a\.jsonl: line 1 is list; expected a JSON object"),
    "bytes": ("a.jsonl", lambda file: file.write_bytes(b'{"text": "\xff"}'), r"line 1: byte 11 \(0xff\) is not UTF-8"),
    "null": ("a.jsonl", lambda file: file.write_text('\n{"text": null}'), r"line 2: text is null; expected a string"),
    "number": ("a.jsonl", lambda file: file.write_text('{"text": 3}'), r"line 1: text is int; expected a string"),
    "column": ("a.jsonl", lambda file: file.write_text('{"body": "a"}'), r"line 1 has no text; .*: body$"),
    "output": ("a.jsonl", lambda file: file.write_text('{"instruction": "a", "output": null}'), r"output is null"),
    "no rows": ("a.jsonl", lambda file: file.write_text("\n\n"), r"a\.jsonl: contains no text"),
    "null row": ("a.parquet", lambda file: parquet_of(file, text=["a"] * 1500 + [None]), r"row 1501: text is null"),
    "numbers": ("a.parquet", lambda file: parquet_of(file, text=[1, 2]), r"a\.parquet: row 1: text is int"),
    "columns": ("a.parquet", lambda file: parquet_of(file, body=["a"]), r"a\.parquet: row 1 has no text"),
    "no row": ("a.parquet", lambda file: parquet_of(file, text=[]), r"a\.parquet: contains no text"),
    "not parquet": ("a.parquet", lambda file: file.write_text("text"), r"a\.parquet: not a Parquet file, or damaged"),
    "damaged": ("a.parquet", damage, r"a\.parquet: not a Parquet file, or damaged"),
    "empty parquet": ("a.parquet", lambda file: file.write_bytes(b""), r"a\.parquet: not a Parquet file, or damaged"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line_that_names_the_file(mistake, tmp_path):
    name, make, message = MISTAKES[mistake]
    (tmp_path / "own").mkdir()
    make(tmp_path / "own" / name)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "own")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_path_that_is_not_there_or_holds_nothing(tmp_path):
    with pytest.raises(UserError, match=r"data\.path = 'nowhere' does not exist; expected a file or a folder"):
        read("nowhere")
    with pytest.raises(UserError, match=r"data\.path = '.*' holds no files; expected one of: \.txt, \.md, \.jsonl"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match=r"pipe\.txt: not a regular file"):
        read(tmp_path / "pipe.txt")


def test_links_that_stay_inside_are_followed(tmp_path):
    folder = write(tmp_path / "own", "txt")
    (folder / "link.txt").symlink_to(folder / "part 0" / "00.txt")
    (folder / "again").symlink_to(folder / "part 1")
    (tmp_path / "elsewhere").symlink_to(folder)  # what the user names may itself be a link
    assert all_texts(read(tmp_path / "elsewhere")) == sorted(PAGES)


def test_too_little_text_says_what_to_do(tmp_path):
    (tmp_path / "note.txt").write_text("One note, too short to be split.")
    message = r"data\.path = '.*' gives 1 different .*, and data\.validation_share = 0\.1 is none of them; exp"
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_a_schema_cannot_make_another_type_of_a_column(tmp_path):
    features = {"info": {"features": {"text": {"_type": "Image"}}}}
    table = pa.table({"text": PAGES}).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert all_texts(read(tmp_path)) == sorted(PAGES)


def test_abstracts_and_public_tasks_stand_beside_it_from_a_mirror(tmp_path):
    public_files.write_mirror(tmp_path / "mirror")
    beside = {"tasks": ["boolq"], "perplexity": ["ptb", "abstracts"], "mirror": str(tmp_path / "mirror")}
    collected = read(write(tmp_path / "own", "txt"), **beside)
    assert list(collected.perplexity) == ["own", "ptb", "abstracts"] and list(collected.tasks) == ["boolq"]
    assert [source["name"] for source in collected.sources] == ["own", "abstracts", "boolq", "ptb"]


DOCUMENTS = st.lists(st.text("ab. \n", min_size=1, max_size=3000), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(0, 5))
def test_nothing_of_one_split_is_in_another(texts, seed):
    stripped = [text.strip() for text in texts if text.strip()]
    try:
        splits = split_texts("x", stripped, params("x", seed=seed))
    except UserError as error:
        assert "is none of them; expected more text, or another share" in str(error)
        return
    parts = [part for each in splits.values() for part in each]
    assert len(set(parts)) == len(parts)
    assert all(any(part in text for text in stripped) for part in parts)
    blanks = str.maketrans("", "", " \n")
    joined = "".join(parts).translate(blanks)
    assert len(joined) <= len("".join(stripped).translate(blanks))
    assert len(joined) == len("".join(set(stripped)).translate(blanks)) or len(set(stripped)) < 40
