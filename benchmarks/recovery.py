"""Recovery against a plain Trainer: python benchmarks/recovery.py [--sizes demo 100M] [--repetitions 3]

Both take one optimizer step of the same LoRA adapter (the thesis's settings) over the same instructions of
../shared/data/mirror, prompts masked, in micro-batches of 4: ours as stage tune does it, theirs as transformers.Trainer
does with PEFT and a padding collator. Prints, for random Llamas, by alternating repetitions: median loss tokens per
second; the loss, which must agree to 1e-3; the share of padding; and the memory that a forward pass over four sequences
keeps for the backward pass, without weights. Returns 1 if the losses differ.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from tabulate import tabulate
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages.base.tokenizer import train_tokenizer
from stages.common.params import RunParams, load_section
from stages.common.torch_setup import setup_torch
from stages.tune import lora
from stages.tune.batches import Batches
from stages.tune.examples import Example, alpaca_prompt, instruction_examples, loss_tokens
from stages.tune.next_token import next_token_loss
from stages.tune.params import TuneParams
from stages.tune.recovery import backward_mean, part_loss, seen

DATA = "gururise/GPTeacher-Roleplay/train.parquet"
MICRO_BATCH = 4  # sequences per forward pass, of both
THESIS = {"lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.05, "learning_rate": 1e-4, "steps": 1, "warmup_steps": 0}
# Shape; the tokens that a sequence is cut at, twice the thesis's 256 where words take twice the tokens; sequences.
SIZES: dict[str, tuple[dict, int, int]] = {
    "demo": ({"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 6, "num_attention_heads": 8,
              "num_key_value_heads": 4, "vocab_size": 1024, "tie_word_embeddings": True}, 512, 128),
    "100M": ({"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 12,
              "num_key_value_heads": 4, "vocab_size": 32000, "tie_word_embeddings": False}, 256, 64),
}  # fmt: skip
HEAD = ["model", "by", "loss tokens/s", "times", "loss", "padding %", "kept MiB"]


def main() -> int:
    """Print the table; return 1 where two losses that should be equal are not."""
    options = arguments()
    setup_torch(RunParams(device="cpu", threads=options.threads, precision="float32", processes=1, sharded=False))
    differ = False
    for size in options.sizes:
        rows = []
        race = Race(size, options)
        found: dict[str, list[tuple[float, float]]] = {"ours": [], "Trainer": []}
        for _ in range(options.repetitions):
            found["ours"].append(race.ours())
            found["Trainer"].append(race.theirs())
        tokens = sum(map(loss_tokens, race.examples))
        speed = {by: tokens / statistics.median(seconds for seconds, _ in runs) for by, runs in found.items()}
        for by, runs in found.items():
            loss, factor = runs[0][1], speed[by] / speed["Trainer"]
            differ |= abs(loss - found["Trainer"][0][1]) > 1e-3
            cells = (f"{speed[by]:,.0f}", f"{factor:.2f}", f"{loss:.5f}", f"{100 * race.padding(by):.1f}")
            rows.append([f"{size} ({race.parameters:,})", by, *cells, f"{race.kept(by):,.1f}"])
        print(tabulate(rows, HEAD, "pipe", disable_numparse=True, stralign="right"), flush=True)
    return int(differ)


class Race:
    """The same instructions, for both sides to train a random model of one size on."""

    def __init__(self, size: str, options: argparse.Namespace):
        self.shape, window, count = SIZES[size]
        table = pd.read_parquet(options.mirror / DATA)
        texts = [alpaca_prompt(each.instruction, each.input) + each.output for each in table.itertuples()]
        self.tokenizer = train_tokenizer(texts, self.shape["vocab_size"])
        self.examples = instruction_examples(table.sample(count, random_state=0), self.tokenizer, window, "alpaca")
        section = load_section("tune", TuneParams).model_dump() | THESIS | {"window": window}
        self.params = TuneParams.model_validate(
            section | {"batch_size": len(self.examples), "micro_batch_size": MICRO_BATCH}
        )
        self.parameters = self.model().num_parameters()
        self.collator = DataCollatorForSeq2Seq(self.tokenizer)

    def model(self) -> PreTrainedModel:
        """Return the random model, the same each time."""
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**self.shape, max_position_embeddings=1024))

    def ours(self) -> tuple[float, float]:
        """Return the seconds of our step, and its loss."""
        model = lora.trained(lora.prepare(self.model(), self.params)).train()
        parameters = [each for each in model.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.params.learning_rate, weight_decay=0.0, fused=True)
        started = time.perf_counter()
        batch = [self.examples[index] for index in Batches(self.lengths(), len(self.examples), seed=0).at(0)]
        loss = backward_mean(model, next_token_loss, batch, self.params.micro_batch_size)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return time.perf_counter() - started, loss

    def theirs(self) -> tuple[float, float]:
        """Return the seconds of the Trainer's step, and its loss."""
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, per_device_train_batch_size=MICRO_BATCH, max_steps=1, learning_rate=self.params.learning_rate,
                gradient_accumulation_steps=len(self.examples) // MICRO_BATCH, save_strategy="no", report_to=[],
                use_cpu=True, disable_tqdm=True,
            )  # fmt: skip
            trainer = Trainer(self.peft(), arguments, self.collator, [row(each) for each in self.examples])  # type: ignore[arg-type]
            trainer.add_callback(clock)
            loss = trainer.train().training_loss
        return clock.seconds, loss

    def peft(self) -> torch.nn.Module:
        """Return the random model with the adapter that the thesis's script adds."""
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.params.lora_rank,
            lora_alpha=self.params.lora_alpha,
            lora_dropout=self.params.lora_dropout,
            target_modules=self.params.target_modules,
        )
        return get_peft_model(self.model(), config)

    def padding(self, by: str) -> float:
        """Return the share of padding in one epoch."""
        if by == "ours":
            return seen(self.examples, Batches(self.lengths(), len(self.examples), seed=0), self.params)[
                "padding_share"
            ]
        order = torch.randperm(len(self.examples), generator=torch.Generator().manual_seed(0))
        batches = torch.tensor(self.lengths())[order].view(-1, MICRO_BATCH)
        return 1 - batches.sum().item() / (MICRO_BATCH * batches.amax(1).sum().item())

    def kept(self, by: str) -> float:
        """Return the MiB that a forward pass over MICRO_BATCH sequences keeps for the backward pass, weights apart."""
        model, some = self.peft().train(), self.examples[:MICRO_BATCH]
        weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            if by == "ours":
                part_loss(model.get_base_model(), next_token_loss, some)
            else:
                _ = model(**self.collator([row(each) for each in some])).loss
        return sum(each.untyped_storage().nbytes() for key, each in kept.items() if key not in weights) / 2**20

    def lengths(self) -> list[int]:
        """Return the tokens of each example."""
        return [len(each.tokens) for each in self.examples]


class Clock(TrainerCallback):
    """Takes the time from the first micro-batch to the end of the training."""

    started = seconds = 0.0

    def on_step_begin(self, *_, **__):
        """Start."""
        self.started = time.perf_counter()

    def on_step_end(self, *_, **__):
        """Stop."""
        self.seconds = time.perf_counter() - self.started


def row(example: Example) -> dict[str, list[int]]:
    """Return an example as a dataset's row."""
    return {
        "input_ids": example.tokens.tolist(),
        "labels": example.labels.tolist(),
        "attention_mask": [1] * len(example.tokens),
    }


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--mirror", type=Path, default=Path("../shared/data/mirror"))
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
