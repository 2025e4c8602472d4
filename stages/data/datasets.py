"""Public datasets: their usual names and their locations."""

from dataclasses import dataclass

# The hub keeps a copy of every dataset as parquet here; needed for those whose own files are a script.
CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True)
class Dataset:
    """A dataset on the hub."""

    repo: str
    config: str | None = None
    revision: str = "main"
    files: str | None = None  # where they are not named as `patterns` expects
    held_out: str | None = None  # the split that perplexity is measured on

    def patterns(self, split: str) -> list[str]:
        """Return how the files of `split` may be named, the likeliest first."""
        if self.files:
            return [self.files.format(split=split)]
        prefix = f"{self.config}/" if self.config else "*"
        names = ("{}-*.parquet", "{}.parquet", "{}/*.parquet", "partial-{}/*.parquet", "{}.jsonl", "{}.json")
        return [prefix + name.format(split) for name in names]

    def places(self, split: str) -> list[str]:
        """Return where a mirror may keep `split`: under the whole name, or that without the organisation."""
        folders = [self.repo, self.repo.split("/")[-1]]
        return ["/".join(filter(None, [folder, self.config, f"{split}.parquet"])) for folder in dict.fromkeys(folders)]


# LLM-Pruner reads WikiText2 raw, and of PTB the validation split.
DATASETS = {
    "alpaca-cleaned": Dataset("yahma/alpaca-cleaned", files="alpaca_data_cleaned.json"),
    "bookcorpus": Dataset("bookcorpus/bookcorpus", "plain_text", CONVERTED, "plain_text/*{split}/0000.parquet"),
    "c4": Dataset("allenai/c4", "en", files="en/c4-{split}.00000-of-*.json.gz", held_out="validation"),
    "ptb": Dataset("ptb-text-only/ptb_text_only", "penn_treebank", CONVERTED, held_out="validation"),
    "wikitext2": Dataset("Salesforce/wikitext", "wikitext-2-raw-v1", held_out="test"),
    "wikitext2_tokenised": Dataset("Salesforce/wikitext", "wikitext-2-v1", held_out="test"),
}


def named(name: str) -> Dataset:
    """Return the dataset of one of the names above, or the one called organisation/name on the hub."""
    return DATASETS.get(name) or Dataset(name)
