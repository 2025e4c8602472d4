"""Recovery with a million tokens: python benchmarks/real_recovery.py [--ratio 0.2]

Run it where `dvc repro base` has made models/base, data/tasks and data/calibration.parquet. The base is pruned by best,
then trained with batches of 32 windows of 256 tokens, by every objective and method, on the text of
data/calibration.parquet and on WikiText2's validation text with that; the base is trained alike, as control. Prints a
line of JSON for each model: what real_methods.py prints, and the share of the lost log-perplexity that is won back.
"""

import argparse
import copy
import json
import math
import tempfile
from pathlib import Path

import pandas as pd
import torch
from in_memory import CALIBRATION, MIRROR, Base
from transformers import PreTrainedModel

from stages.common.windows import consecutive_windows, token_stream
from stages.tune import full, lora
from stages.tune.distillation import Distillation
from stages.tune.examples import Example
from stages.tune.next_token import next_token_loss
from stages.tune.params import TuneParams
from stages.tune.recovery import recover

TOKENS, BATCH, WINDOW = 1_000_000, 32, 256
CHOICES = [("next_token", "lora", 2e-3), ("distillation", "lora", 2e-3), ("distillation", "full", 2e-4)]


def main() -> None:
    """Measure and print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--mirror", type=Path, default=MIRROR, help="folder of the texts; default: %(default)s")
    parser.add_argument("--ratio", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    base = Base(options.device, options.mirror)
    dense, pruned = base.measured(base.model), base.pruned(options.seed, method="best", ratio=options.ratio)
    lost = base.measured(pruned)
    for name, row in (("base", dense), ("pruned", lost)):
        print(json.dumps({"model": name} | row), flush=True)
    general = token_stream(pd.read_parquet(CALIBRATION)["text"].tolist(), base.tokenizer)
    wikitext2 = base.streams[Path(CALIBRATION).stem]
    texts = {"general": general[:TOKENS], "general and WikiText2": torch.cat([wikitext2, general])[:TOKENS]}
    for text, stream in texts.items():
        examples = [Example(tokens, tokens) for tokens in consecutive_windows(stream, WINDOW)]
        control = trained(base, base.model, examples, *CHOICES[0], options.seed)
        print(json.dumps({"model": "control", "text": text} | base.measured(control)), flush=True)
        for choice in CHOICES:
            row = base.measured(trained(base, pruned, examples, *choice, options.seed))
            back = {f"{key}_won_back": won_back(dense[key], lost[key], row[key]) for key in row if key.endswith("_ppl")}
            named = {"model": "tuned", "text": text, "objective": choice[0], "method": choice[1]}
            print(json.dumps(named | row | back), flush=True)


def trained(
    base: Base, start: PreTrainedModel, examples: list[Example], objective: str, method: str, rate: float, seed: int
) -> PreTrainedModel:
    """Return a copy of `start`, trained on TOKENS tokens; the checkpoint is chosen by the last windows of WikiText2."""
    steps = TOKENS // (BATCH * WINDOW)
    changes = {"objective": objective, "method": method, "learning_rate": rate, "steps": steps, "warmup_steps": 10}
    changes |= {"batch_size": BATCH, "micro_batch_size": BATCH, "window": WINDOW, "validate_every": steps // 4}
    params = TuneParams.model_validate(base.params["tune"] | changes | {"seed": seed})
    held_out = consecutive_windows(base.streams["wikitext2_tokenised"], WINDOW)[-16:]
    torch.manual_seed(seed)
    kind = {"lora": lora, "full": full}[method]
    model = kind.prepare(copy.deepcopy(start), params)
    loss = next_token_loss if objective == "next_token" else Distillation(base.model, 1.0, 0.0)
    validation = [Example(tokens, tokens) for tokens in held_out]
    recover(kind.trained(model), loss, examples, validation, params, Path(tempfile.mkdtemp()) / "state")
    return kind.merge(model)


def won_back(base: float, pruned: float, tuned: float) -> float:
    """Return the share of the lost log-perplexity."""
    return math.log(pruned / tuned) / math.log(pruned / base)


if __name__ == "__main__":
    main()
