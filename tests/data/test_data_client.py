"""Public datasets by our reader and by the datasets client, which a hub's cards tell where the rows are."""

import subprocess
import sys

import pytest
import yaml
from hub_server import Hub
from public_files import FILES, TASKS, serve, variables

# Reads each dataset by our reader and by the datasets client.
BOTH = """
import sys
from datasets import load_dataset
from stages.data.datasets import DATASETS, named
from stages.data.definitions import expand
from stages.data.readers import hub_reader
from stages.data.stock_tasks import read_tasks

read = hub_reader({})

def compare(name, dataset, split):
    ours = read(dataset, split).table
    theirs = load_dataset(dataset.repo, dataset.config, split=split, revision=dataset.revision)
    print(name, split, "same" if ours.to_pylist() == theirs.to_list() else (ours, theirs))
    return ours

read_tasks(expand(sys.argv[1:], None).tasks, compare, 1)
for name, dataset in DATASETS.items():
    if dataset.held_out:
        compare(name, dataset, dataset.held_out)
for name in ("alpaca-cleaned", "bookcorpus", "c4", "wikitext2", "org/corpus", "org/lines"):
    compare(name, named(name), "train")
"""


@pytest.mark.slow
def test_the_datasets_client_reads_the_same_rows(tmp_path):
    """The files that we choose by name are those that a repository's own card gives to datasets.load_dataset."""
    cards: dict[str, dict[str, dict[str, list]]] = {}  # repository: config: split: its files
    for file in FILES:
        if file.part:
            splits = cards.setdefault(file.repository, {}).setdefault(file.config, {})
            splits.setdefault(file.split, []).append(file.name)
    with Hub() as hub:
        serve(hub, tmp_path)
        for repository, configs in cards.items():
            card = {"configs": [{"config_name": key, "data_files": data_files(configs[key])} for key in configs]}
            hub.datasets[repository]["README.md"] = f"---\n{yaml.safe_dump(card)}---\n".encode()
        command, environment = [sys.executable, "-c", BOTH, *TASKS], variables(hub, tmp_path)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["same"] * 24, done.stdout


def data_files(splits: dict[str, list[str]]) -> list[dict]:
    """Return a card's entry for the files of each split."""
    return [{"split": split, "path": names} for split, names in splits.items()]
