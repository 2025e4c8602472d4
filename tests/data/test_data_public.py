"""Public datasets from a mirror."""

import json
from pathlib import Path

import pandas as pd
import public_files
import pyarrow.parquet as pq
import pytest
from public_files import write_mirror
from pydantic import ValidationError

from stages.common.errors import UserError
from stages.data.collected import Collected
from stages.data.public import collect, own_domain
from stages.data.readers import read_table

NAMES = {"tasks": ["hellaswag", "winogrande"], "perplexity": ["wikitext2", "ptb"], "calibration": "org/corpus"}


@pytest.fixture
def mirror(tmp_path) -> Path:
    return write_mirror(tmp_path / "mirror")


def read(mirror: Path, few_shot: bool = False, **changes) -> Collected:
    """Return what is collected from the mirror for NAMES, changed by `changes`."""
    return collect(public_files.params(source="mirror", mirror=str(mirror), **NAMES | changes), few_shot)


def test_texts_are_kept_as_they_are(mirror):
    collected = read(mirror)
    assert collected.perplexity == {"wikitext2": ["", " A line\n"], "ptb": ["a line"]}
    assert list(collected.instructions) == ["instruction", "input", "output"]
    joined = "".join(text for part in collected.texts.values() for text in part)
    assert sum(f"line {i} line {i} " in joined for i in range(300)) == 300
    parts = {name: sum(map(len, part)) / len(joined) for name, part in collected.texts.items()}
    assert parts["test"] == pytest.approx(0.15, abs=0.06) and parts["validation"] == pytest.approx(0.05, abs=0.06)
    assert not set(collected.texts["train"]) & set(collected.texts["test"])
    short = read(mirror, characters=20_000)
    assert sum(len(text) for part in short.texts.values() for text in part) == pytest.approx(20_000, rel=0.05)


def test_instructions_can_be_the_text(mirror):
    collected = read(mirror, calibration="alpaca-cleaned")
    assert collected.texts["train"][0].startswith("Say\n")
    assert "Say\nthis\nword" in collected.texts["train"][0]


@pytest.mark.parametrize(
    ("calibration", "sets", "own"),
    [
        ("wikitext2", ["wikitext2_tokenised", "ptb", "wikitext2"], "wikitext2"),
        ("wikitext2", ["ptb", "wikitext2_tokenised"], "wikitext2_tokenised"),
        ("Salesforce/wikitext", ["ptb", "wikitext2"], "wikitext2"),
        ("c4", ["wikitext2", "c4"], "c4"),
        ("org/corpus", ["wikitext2", "ptb"], None),
    ],
)
def test_the_set_from_the_corpus_is_named(calibration, sets, own):
    assert own_domain(calibration, sets) == own


def test_what_is_missing_is_named(mirror, capsys):
    (mirror / "Rowan/hellaswag/validation.parquet").unlink()
    (mirror / "yahma/alpaca-cleaned/train.parquet").unlink()
    lacking = (
        "not in the mirror: hellaswag (Rowan/hellaswag/validation.parquet), "
        "alpaca-cleaned (yahma/alpaca-cleaned/train.parquet)"
    )
    with pytest.raises(UserError) as error:
        read(mirror)
    assert str(error.value) == f"{lacking}; add it, name other data, or set data.missing: skip"
    collected = read(mirror, missing="skip")
    assert capsys.readouterr().out == f"data: {lacking}; left out\n"
    assert list(collected.tasks) == ["winogrande"]
    assert collected.instructions.empty and list(collected.instructions) == ["instruction", "input", "output"]
    with pytest.raises(UserError, match=r"nothing is left of data\.tasks = \['hellaswag'\]; expected at least one"):
        read(mirror, missing="skip", tasks=["hellaswag"])
    with pytest.raises(UserError, match=r"nothing is left of data\.perplexity = \['c4'\]; expected at least one"):
        (mirror / "allenai/c4/en/validation.parquet").unlink()
        read(mirror, missing="skip", perplexity=["c4"])
    (mirror / "org/corpus/train.parquet").unlink()
    with pytest.raises(UserError, match=r"data\.calibration = 'org/corpus' cannot be left out"):
        read(mirror, missing="skip")


def test_training_splits_are_read_for_few_shot_examples_alone(mirror):
    (mirror / "Rowan/hellaswag/train.parquet").unlink()
    tasks = read(mirror).tasks
    assert [task.config["training_split"] for task in tasks.values()] == [None, None]
    assert [list(task.splits) for task in tasks.values()] == [["validation"], ["validation"]]
    with pytest.raises(UserError, match=r"not in the mirror: hellaswag \(Rowan/hellaswag/train\.parquet\); add it"):
        read(mirror, few_shot=True)
    tasks = read(mirror, few_shot=True, missing="skip").tasks
    assert [task.config["training_split"] for task in tasks.values()] == [None, "train"]
    assert list(tasks["winogrande"].splits) == ["validation", "train"]


def test_bad_input(mirror, tmp_path):
    with pytest.raises(UserError, match=r"data\.mirror = 'nowhere' is not a folder"):
        read(Path("nowhere"))
    with pytest.raises(
        ValidationError, match="mirror = None; expected a folder of Parquet files, since source = 'mirror'"
    ):
        public_files.params(source="mirror")
    pd.DataFrame({"prompt": ["a"]}).to_parquet(mirror / "org/corpus/train.parquet")
    with pytest.raises(UserError, match=r"org/corpus has no column instruction, input, output; its columns: prompt"):
        read(mirror)
    (mirror / "org/corpus/train.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"train\.parquet: neither parquet nor JSON rows"):
        read(mirror)
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(UserError, match=r"broken\.json: neither parquet nor JSON rows"):
        read_table([tmp_path / "broken.json"])


@pytest.mark.parametrize(
    ("place", "column"), [("org/corpus/train", "text"), ("ptb_text_only/penn_treebank/validation", "sentence")]
)
def test_a_null_in_a_text_is_named(place, column, mirror):
    file = mirror / f"{place}.parquet"
    pd.DataFrame({column: ["a line", "another", None]}).to_parquet(file)
    with pytest.raises(
        UserError, match=rf"{place}\.parquet: row 3 has no {column} \(null\); expected a string, or rem"
    ):
        read(mirror)
    pd.DataFrame({column: [1, 2]}).to_parquet(file)
    with pytest.raises(UserError, match=rf"{place}\.parquet: column {column} holds int64; expected strings"):
        read(mirror)


def test_a_corpus_of_one_row_is_cut(mirror):
    pd.DataFrame({"text": [" ".join(f"word {i}" for i in range(20_000))]}).to_parquet(
        mirror / "org/corpus/train.parquet"
    )
    assert all(read(mirror).texts.values())
    pd.DataFrame({"text": ["One short row."]}).to_parquet(mirror / "org/corpus/train.parquet")
    with pytest.raises(UserError, match=r"data\.calibration = 'org/corpus' gives 1 different .*; expected more text"):
        read(mirror)


def test_metadata_of_a_schema_is_not_kept(mirror):
    """It may declare a column as images, whose paths and addresses `datasets` opens."""
    file = mirror / "Rowan/hellaswag/validation.parquet"
    declared = json.dumps({"info": {"features": {"ctx_a": {"_type": "Image"}}}})
    pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": declared}), file)
    for task in read(mirror).tasks.values():
        assert [table.schema.metadata for table in task.splits.values()] == [None]


@pytest.mark.slow
def test_no_tasks_and_those_of_python_beside_a_corpus(mirror):
    assert read(mirror, tasks=[]).tasks == {}
    collected = read(mirror, tasks=["pydocs_gap"], perplexity=["abstracts"], questions=3)
    assert list(collected.tasks) == ["pydocs_gap"] and list(collected.perplexity) == ["abstracts"]
    with pytest.raises(
        ValidationError, match="perplexity = \\[\\]; expected at least one set, since source = 'mirror'"
    ):
        read(mirror, perplexity=[])
