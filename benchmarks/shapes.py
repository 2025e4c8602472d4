"""Time and memory on a GPU: python benchmarks/shapes.py [--shapes TinyLlama Llama-2-7B] [--methods l2 ...]

Models of these shapes with random bfloat16 weights, on the device alone: perplexity over 16 windows of 1,024 tokens;
prefill and decode speed of one sequence; a LoRA step of 16 windows of 256 tokens; pruning at ratio 0.2 (single weights:
0.5) with 64 calibration windows of 256 tokens. The peak is that of torch's allocator, without the copy of the base that
is kept for the next measurement. The params are those of params.yaml.
"""

import argparse
import copy
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stages.common.params import RunParams, read_params_file  # noqa: E402 - the path has to be there first
from stages.common.torch_setup import arithmetic, setup_torch  # noqa: E402
from stages.evaluate.perplexity import window_losses  # noqa: E402
from stages.profile.memory import MIB, weight_bytes  # noqa: E402
from stages.profile.speed import speed_metrics  # noqa: E402
from stages.prune.methods import METHODS  # noqa: E402
from stages.prune.params import PruneParams  # noqa: E402
from stages.prune.pruning import prune  # noqa: E402
from stages.tune import lora  # noqa: E402
from stages.tune.distillation import Distillation  # noqa: E402
from stages.tune.examples import Example  # noqa: E402
from stages.tune.next_token import next_token_loss  # noqa: E402
from stages.tune.params import TuneParams  # noqa: E402
from stages.tune.recovery import backward_mean  # noqa: E402

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 2},
    "TinyLlama": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
                  "num_key_value_heads": 4},
    "Llama-2-7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
                   "num_key_value_heads": 32},
}  # fmt: skip
VOCABULARY, BATCH = 32000, 16


class Bench:
    """The rows of one shape."""

    def __init__(self, shape: str, device: torch.device, params: dict[str, Any]):
        self.shape, self.device, self.params = shape, device, params
        config = LlamaConfig(**SHAPES[shape], vocab_size=VOCABULARY, max_position_embeddings=2048)
        torch.set_default_dtype(torch.bfloat16)
        with device:
            self.base = LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
        self.windows = self.draw(64, 256)

    def draw(self, count: int, length: int) -> torch.Tensor:
        """Return random tokens."""
        return torch.randint(VOCABULARY, (count, length))

    def row(self, name: str, work: Callable[[], Any], tokens: int = 0, copies: int = 0) -> list[str]:
        """Return the row of what `work` takes; `copies` of the base are not counted into its peak."""
        gc.collect()
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() / MIB - copies * weight_bytes(self.base) / MIB if cuda else None
        speed = f"{tokens / seconds:,.0f}" if tokens else ""
        return [self.shape, name, f"{seconds:.2f}", speed, "" if peak is None else f"{peak:,.0f}"]

    @torch.no_grad()
    def evaluation(self) -> list[list[str]]:
        """Return the rows of perplexity, prefill and decode."""
        texts = self.draw(16, 1024)
        with arithmetic():
            window_losses(self.base, texts[:1], 1024, "warm-up")
            row = self.row("perplexity", lambda: window_losses(self.base, texts, 8192, "perplexity"), texts.numel())
            speeds = speed_metrics(self.base, self.windows[:1].to(self.device), 32, 3)
        return [row, *([self.shape, name.split("_")[0], "", f"{speed:,.0f}", ""] for name, speed in speeds.items())]

    def recovery(self, objective: str) -> list[str]:
        """Return the row of a LoRA step, after one to warm up."""
        params = TuneParams.model_validate(self.params["tune"] | {"batch_size": BATCH, "micro_batch_size": BATCH})
        model: PreTrainedModel = lora.trained(lora.prepare(copy.deepcopy(self.base), params)).train()
        loss = next_token_loss if objective == "next_token" else Distillation(self.base, 1.0, 0.0)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        examples = [Example(tokens, tokens) for tokens in self.windows[:BATCH]]

        def step() -> None:
            backward_mean(model, loss, examples, BATCH)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        step()
        copies = 1 if objective == "next_token" else 0  # distillation needs the base
        return self.row(f"LoRA step, {objective}", step, BATCH * self.windows.shape[1], copies)

    def pruning(self, method: str) -> list[str]:
        """Return the row of a method."""
        ratio = 0.5 if METHODS[method].structure == "weight" else 0.2
        changes = {"method": method, "ratio": ratio, "ratio_of": "groups"}
        params = PruneParams.model_validate(self.params["prune"] | changes)
        model = copy.deepcopy(self.base)
        return self.row(f"prune, {method}", lambda: prune(model, self.windows, params), copies=1)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shapes", nargs="+", default=["TinyLlama", "Llama-2-7B"], choices=list(SHAPES))
    parser.add_argument("--methods", nargs="*", default=["l2", "wanda_sp", "taylor", "flap", "wanda"], choices=METHODS)
    options = parser.parse_args()
    params = read_params_file(ROOT / "params.yaml")
    device = setup_torch(RunParams.model_validate(params["run"] | {"device": options.device}), 42)
    rows = []
    for shape in options.shapes:
        bench = Bench(shape, device, params)
        rows += [*bench.evaluation(), bench.recovery("next_token"), bench.recovery("distillation")]
        rows += [bench.pruning(method) for method in options.methods]
    print(tabulate(rows, ["shape", "what", "seconds", "tokens/s", "peak MiB"], "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
