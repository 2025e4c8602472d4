"""What the tests of stage evaluate share: a tiny tokenizer, tiny models, task files."""

import random
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import tiny_llama
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from stages.models.modeling_pruned import PrunedLlamaConfig, PrunedLlamaForCausalLM

VOCABULARY = 320
TEXT = "the tree grows flat against a wall by pruning every branch that would not carry fruit next year"
WORDS = TEXT.split()
WIDTHS = {1: (2, 1, 11), 2: (6, 3, 7)}  # layer: query heads, key/value heads, MLP width; six heads do not divide 32


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with some merges; it adds no special tokens itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", clean_up_tokenization_spaces=False
    )


TOKENIZER = tiny_tokenizer()


def tiny_model(kind: str = "GQA") -> PreTrainedModel:
    """Return a random model: MHA, GQA, MQA, `tied`, or `pruned` with layers of different widths."""
    if kind != "pruned":
        kv_heads = {"MHA": 4, "MQA": 1}.get(kind, 2)
        return tiny_llama(kv_heads=kv_heads, vocab=VOCABULARY, tied=kind == "tied")
    keys = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    config = PrunedLlamaConfig(
        **{key: value for key, value in tiny_llama(vocab=VOCABULARY).config.to_dict().items() if key != "model_type"},
        allow_global_per_layer_attribute_access=True,
        per_layer_config={layer: dict(zip(keys, widths, strict=True)) for layer, widths in WIDTHS.items()},
    )
    return PrunedLlamaForCausalLM(config).eval()


def text(rng: random.Random, words: int) -> str:
    """Return that many random words."""
    return " ".join(rng.choices(WORDS, k=words))


def write_task(folder: Path, name: str, table: pd.DataFrame, metrics: list[str], **fields) -> None:
    """Write one multiple-choice task as <name>.yaml and <name>.parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / f"{name}.parquet")
    config = {
        "task": name,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.parquet")}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "target_delimiter": "",
        "metric_list": [{"metric": each, "aggregation": "mean", "higher_is_better": True} for each in metrics],
        **fields,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def write_tasks(folder: Path, questions: int = 12) -> None:
    """Write two tasks: `ending`, four answers to one context, and `gap`, two contexts before one ending."""
    rng = random.Random(0)
    endings = [
        {
            "context": text(rng, 9),
            "choices": [" " + text(rng, rng.randint(1, 5)) for _ in range(4)],
            "label": rng.randrange(4),
        }
        for _ in range(questions)
    ]
    ending_fields = {"doc_to_text": "context", "doc_to_target": "label", "doc_to_choice": "choices"}
    write_task(folder, "ending", pd.DataFrame(endings), ["acc", "acc_norm"], **ending_fields)
    gaps = []
    for _ in range(questions):
        start = text(rng, 5)
        contexts = [f"{start} {text(rng, 1)}" for _ in range(2)]
        gaps.append({"contexts": contexts, "continuation": " " + text(rng, 4), "label": rng.randrange(2)})
    gap_fields = {"doc_to_text": "label", "doc_to_target": "continuation", "doc_to_choice": "contexts"}
    write_task(folder, "gap", pd.DataFrame(gaps), ["acc"], **gap_fields)


def hellaswag_folder(folder: Path, stock: str = "hellaswag/hellaswag.yaml") -> Path:
    """Write a HellaSwag of one question, whose definition needs a Python function of lm-eval."""
    row = {
        "ctx_a": "A man sits on a roof. [title]", "ctx_b": "he", "activity_label": "Roofing",
        "endings": [f" [step] falls {i}." for i in range(4)], "label": "2",
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    pd.DataFrame([row]).to_parquet(folder / "hellaswag.parquet")
    files = {"data_files": {"validation": str(folder / "hellaswag.parquet")}}
    config = {"task": "hellaswag", "stock": stock, "dataset_path": "parquet", "dataset_kwargs": files}
    (folder / "hellaswag.yaml").write_text(yaml.safe_dump(config | {"training_split": None}), encoding="utf-8")
    return folder


def stock(model) -> HFLM:
    """Return lm-eval's own wrapper, without its cache, which mixes up positions of one text split at two places."""
    return HFLM(model, tokenizer=TOKENIZER, batch_size=3, logits_cache=False)


def text_requests(arguments: list[tuple], kind: str = "loglikelihood") -> list[Instance]:
    """Return requests of these arguments, such as (context, continuation)."""
    return [Instance(request_type=kind, doc={}, arguments=each, idx=i) for i, each in enumerate(arguments)]


def assert_same(ours, theirs, tolerance=1e-4) -> None:
    """Fail unless two lists of (log-likelihood, greedy) agree."""
    assert len(ours) == len(theirs)
    for (our_sum, our_greedy), (their_sum, their_greedy) in zip(ours, theirs, strict=True):
        assert our_sum == pytest.approx(their_sum, rel=0, abs=tolerance)
        assert our_greedy == their_greedy
