"""What each kind of recovery gains and damages: python benchmarks/recovery_quality.py [--arms ARM ...]

models/pruned is trained once per arm and seed, always on the same number of tokens, and the checkpoint with the least
loss on held-out data of the arm's own kind is measured, as the thesis did. A row per model, printed as it is done: loss
tokens; by how much the arm's own training loss fell; the perplexity of every set of data/perplexity, and of WikiText2
and PTB of --mirror; the mean accuracy on data/tasks; and BoolQ of --mirror. No small model can answer BoolQ; it shows
how often a model says yes. `odds` is the mean log-odds of yes; a question is answered yes above the threshold at which
the base's share of yes is the true one; the area under the ROC curve does not change with a shift of all answers.
Without the mirror its columns are left out.
"""

import argparse
import logging
import statistics
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import mannwhitneyu
from transformers import PreTrainedModel, PreTrainedTokenizerBase

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages.common.params import RunParams, load_section
from stages.common.torch_setup import setup_torch
from stages.evaluate.harness import run_tasks, scores
from stages.evaluate.language_model import BranchingLM
from stages.evaluate.outcomes import task_metrics
from stages.evaluate.perplexity import evaluation_windows, perplexity, read_sets, window_losses
from stages.evaluate.tasks import read_tasks
from stages.models.checkpoint import load_model, load_tokenizer
from stages.tune.data import training_examples, validation_examples
from stages.tune.params import TuneParams
from stages.tune.recovery import recover
from stages.tune.tuning import METHODS, make_objective

INSTRUCTIONS = {"data": "instructions", "objective": "next_token", "window": 256}
TEXT = {"data": "text", "objective": "next_token"}
DISTILLED = {"objective": "distillation"}
ARMS = {  # changes to section tune of params.yaml
    "instructions": INSTRUCTIONS,
    "instructions, rate / 10": {**INSTRUCTIONS, "learning_rate": 0.0006},
    "instructions, the thesis's rate": {**INSTRUCTIONS, "learning_rate": 0.0001},
    "instructions, distilled": {**INSTRUCTIONS, **DISTILLED},
    "instructions and text": {**TEXT, "data": "both", "window": 256},
    "text": TEXT,
    "text, rate / 10": {**TEXT, "learning_rate": 0.0006},
    "text, distilled": {**TEXT, **DISTILLED},
}
HELD_OUT = 64  # instructions that the checkpoint is chosen on
LENGTH, BATCH_TOKENS = 128, 8192  # tokens of a window, of a forward pass
WINDOWS, QUESTIONS = 250, 400  # of a perplexity set; of a task
NOTHING = {"loss tokens": 0.0, "own loss, %": 0.0}  # what base and pruned were trained on here
BOOLQ = "aps/super_glue/boolq/validation.parquet"
TEXTS = {"wikitext2": "wikitext/wikitext-2-v1/test.parquet", "ptb": "ptb_text_only/penn_treebank/validation.parquet"}


def main() -> None:
    """Print one row per model: base, pruned, and each arm."""
    options = arguments()
    device = setup_torch(
        RunParams(device="auto", threads=options.threads, precision="auto", processes=1, sharded=False)
    )
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    tokenizer = load_tokenizer("models/pruned")
    measure = Measure(tokenizer, options.mirror)
    head: list[str] = []
    for name in ("base", "pruned", *options.arms):
        if name in ARMS:
            found = [measure(*trained(name, seed, options.tokens, device)) for seed in range(options.seeds)]
        else:
            found = [measure(load_model(f"models/{name}", device), NOTHING)]
        if not head:
            head = list(found[0])
            print(row("model", *head), row("---", *("---:" for _ in head)), sep="\n")
        print(row(name, *(spread([each[key] for each in found]) for key in head)), flush=True)


def trained(arm: str, seed: int, tokens: int, device: torch.device) -> tuple[PreTrainedModel, dict[str, float]]:
    """Return models/pruned recovered as `arm` says on `tokens` tokens, and what it learnt from."""
    changes = {**ARMS[arm], "seed": seed}
    params = TuneParams.model_validate({**load_section("tune", TuneParams).model_dump(), **changes})
    torch.manual_seed(seed)
    tokenizer, model = load_tokenizer("models/pruned"), load_model("models/pruned", device)
    examples, held_out = training_examples(params, tokenizer), validation_examples(params, tokenizer)
    if params.data == "instructions":
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0)).tolist()
        held_out = [examples[index] for index in order[:HELD_OUT]]
        examples = [examples[index] for index in order[HELD_OUT:]]
    length = statistics.fmean(len(example.tokens) for example in examples)
    params = params.model_copy(update={"steps": round(tokens / length / params.batch_size)})
    objective, method = make_objective(model, params), METHODS[params.method]
    tuned = method.prepare(model, params)
    with tempfile.TemporaryDirectory() as state:
        _, metrics = recover(method.trained(tuned), objective, examples, held_out, params, Path(state))
    change = metrics["train_loss_after"] / metrics["train_loss_before"] - 1
    return method.merge(tuned).eval(), {"loss tokens": metrics["loss_tokens_seen"], "own loss, %": 100 * change}


class Measure:
    """All that the table says of a model; the first one measured is the base."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mirror: Path):
        self.tokenizer, self.mirror = tokenizer, mirror
        self.threshold: float | None = None

    def __call__(self, model: PreTrainedModel, learnt: dict[str, float]) -> dict[str, float]:
        """Return the row of a model, which begins with `learnt`."""
        sets = read_sets(Path("data/perplexity"))
        for name, file in TEXTS.items():
            if (self.mirror / file).is_file():
                sets[name] = pd.read_parquet(self.mirror / file).iloc[:, 0].tolist()
        found = dict(learnt)
        for name, texts in sets.items():
            windows = evaluation_windows(name, texts, self.tokenizer, LENGTH)[:WINDOWS]
            found[f"{name} ppl"] = perplexity(window_losses(model, windows, BATCH_TOKENS, name))
        with tempfile.TemporaryDirectory() as cache:
            tasks = read_tasks(Path("data/tasks"), "all", Path(cache)).configs
            harness = BranchingLM(model, self.tokenizer, BATCH_TOKENS)
            metrics = task_metrics(scores(run_tasks(harness, tasks, 0, QUESTIONS, 0)))
        found["tasks %"] = 100 * statistics.fmean(value for key, value in metrics.items() if key.endswith("_acc"))
        return found | (self.boolq(model) if (self.mirror / BOOLQ).is_file() else {})

    def boolq(self, model: PreTrainedModel) -> dict[str, float]:
        """Return how the model answers BoolQ in lm-eval's prompt, cut on the left to LENGTH; shorter ones are out."""
        rows = pd.read_parquet(self.mirror / BOOLQ).iloc[:QUESTIONS]
        texts = [f"{each.passage}\nQuestion: {each.question}?\nAnswer:" for each in rows.itertuples()]
        prompts = self.tokenizer(texts)["input_ids"]
        rows = rows[[len(each) >= LENGTH for each in prompts]]
        prompts = [each for each in prompts if len(each) >= LENGTH]
        odds = self.likelihoods(model, prompts, " yes") - self.likelihoods(model, prompts, " no")
        truth = torch.tensor(rows["label"].astype(bool).tolist())
        if self.threshold is None:
            self.threshold = odds.quantile(1 - truth.double().mean()).item()
        yes = odds > self.threshold
        area = mannwhitneyu(odds[truth], odds[~truth]).statistic / (truth.sum() * (~truth).sum())
        return {
            "odds": odds.mean().item(),
            "yes %": 100 * yes.double().mean().item(),
            "boolq %": 100 * (yes == truth).double().mean().item(),
            "boolq AUC": area.item(),
        }

    @torch.no_grad()
    def likelihoods(self, model: PreTrainedModel, prompts: list[list[int]], answer: str) -> torch.Tensor:
        """Return the log-likelihood of `answer` after each prompt, float64; no prompt is shorter than LENGTH."""
        ending = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        tokens = torch.tensor([(prompt + ending)[-LENGTH:] for prompt in prompts])
        found = []
        for batch in tokens.to(model.device).split(BATCH_TOKENS // LENGTH):
            logits = model(batch, use_cache=False, logits_to_keep=len(ending) + 1).logits[:, :-1].float()
            chosen = logits.log_softmax(-1).gather(2, batch[:, -len(ending) :, None])
            found.append(chosen.double().sum((1, 2)).cpu())
        return torch.cat(found)


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS, metavar="ARM", help="; ".join(ARMS))
    parser.add_argument("--tokens", type=int, default=200_000, help="tokens seen by each arm")
    parser.add_argument("--seeds", type=int, default=1, help="of the adapter and the order of the data, 0 .. n-1")
    parser.add_argument("--mirror", type=Path, default=Path("../shared/data/mirror"))
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def spread(values: list[float]) -> str:
    """Return the mean, and the deviation where there are several values."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):,.2f}{deviation}"


def row(*cells: str) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
