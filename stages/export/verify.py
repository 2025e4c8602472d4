"""Check that an exported folder holds the model it was made from: in transformers, and in llama.cpp for a GGUF."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common import llama_cpp
from stages.export.gguf_model import reach
from stages.export.gguf_tokenizer import comparable_parts
from stages.models.checkpoint import load_model

Metrics = dict[str, int | float]

# Bounds of the largest difference of logits, relative to the largest logit; formats not named here have none.
LOGITS = {
    "padded": 1e-4,
    "safetensors-float32": 1e-6,
    "safetensors-float16": 1e-2,
    "gguf-f32": 1e-6,
    "gguf-f16": 1e-2,
}
PERPLEXITY = {"gguf-q8_0": 0.005, "torchao-int8": 0.005}  # relative
ENGINE_LOGITS = 1e-2  # llama.cpp against the same weights in transformers, for files that are not quantised
ENGINE_PERPLEXITY = 0.005  # the same of perplexities, relative, for every file
GREEDY_TOKENS, PROMPT_TOKENS, COMPARED_WINDOWS = 64, 32, 4


class ExportError(Exception):
    """An export does not behave like the model: a fault of the export or of the engine."""


@dataclass(frozen=True)
class HeldOut:
    """What exports are compared on: windows of tokens, shape (windows, length), and lines of text."""

    windows: torch.Tensor
    lines: list[str]


def verify(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    kind: str,
    held_out: HeldOut,
    threads: int,
) -> Metrics:
    """Return how far the export of `model` in `folder` is from it; ExportError beyond the bounds of format `kind`.

    A GGUF is read back and dequantised for the comparison in transformers, so what llama.cpp is compared with has the
    same weights as it.
    """
    exported = load_model(folder, model.device)
    if not hasattr(exported.config, "quantization_config"):  # which transformers casts no more
        exported = exported.float()
    reference = model.float()
    windows = held_out.windows[:COMPARED_WINDOWS]
    metrics: Metrics = {"logits_relative_error": relative_error(scores(reference, windows), scores(exported, windows))}
    check(folder.name, "the logits differ by", metrics["logits_relative_error"], LOGITS.get(kind, math.inf))
    loss, exported_loss = mean_loss(reference, held_out.windows), mean_loss(exported, held_out.windows)
    metrics |= {"ppl": math.exp(exported_loss), "ppl_ratio": math.exp(exported_loss - loss)}
    check(folder.name, "the perplexity differs by", abs(metrics["ppl_ratio"] - 1), PERPLEXITY.get(kind, math.inf))
    if not kind.startswith("gguf"):
        return metrics
    metrics["lines_encoded_otherwise"] = sum(comparable_parts(tokenizer, line) != [line] for line in held_out.lines)
    if llama_cpp.is_installed():
        metrics |= verify_in_engine(exported, tokenizer, next(folder.glob("*.gguf")), kind, held_out, threads)
    return metrics


def verify_in_engine(
    exported: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    file: Path,
    kind: str,
    held_out: HeldOut,
    threads: int,
) -> Metrics:
    """Return how far llama.cpp is from transformers on the same weights; ExportError beyond the bounds."""
    # Beyond a sliding window llama.cpp sees more than the model does; the file's context ends there.
    context = reach(exported.config)
    windows = held_out.windows[:, :context]
    prompt_tokens = min(PROMPT_TOKENS, context // 3)
    steps = min(GREEDY_TOKENS, context - prompt_tokens)
    llama = llama_cpp.open_llama(file, max(windows.shape[1], prompt_tokens + steps), threads, every_logit=True)
    all_windows, windows = windows, windows[:COMPARED_WINDOWS]
    expected = scores(exported, windows)
    got = torch.from_numpy(np.stack([llama_cpp.logits_of(llama, window.tolist()) for window in windows]))
    error = relative_error(expected, got)
    loss = mean_loss(exported, all_windows)
    losses = [
        window_loss(torch.from_numpy(llama_cpp.logits_of(llama, window.tolist())), window) for window in all_windows
    ]
    ratio = math.exp(sum(losses) / len(losses) - loss)
    prompt = windows[0, :prompt_tokens].tolist()
    equal = equal_greedy_tokens(exported, llama, prompt, steps, tolerance=2 * error * float(expected.abs().max()))
    encoded = sum(encodes(llama, tokenizer, line) for line in held_out.lines)
    alike = sum(
        all(encodes(llama, tokenizer, part) for part in comparable_parts(tokenizer, line)) for line in held_out.lines
    )
    decoded = sum(decodes(llama, tokenizer, line) for line in held_out.lines)
    lines, name = len(held_out.lines), f"{file.parent.name}/{file.name}"
    if not kind.startswith("gguf-q"):
        check(name, "llama.cpp's logits differ by", error, ENGINE_LOGITS)
        check(name, f"greedy tokens that differ in llama.cpp, of {steps}:", steps - equal, 0)
    check(name, "llama.cpp's perplexity differs by", abs(ratio - 1), ENGINE_PERPLEXITY)
    check(name, f"lines that llama.cpp encodes differently, of {lines}:", lines - alike, 0)
    check(name, f"lines that llama.cpp decodes differently, of {lines}:", lines - decoded, 0)
    return {
        "llama_cpp_logits_relative_error": error,
        "llama_cpp_ppl_ratio": ratio,
        "llama_cpp_greedy_tokens_equal": equal,
        "llama_cpp_lines_encoded_equal": encoded,
        "llama_cpp_lines_decoded_equal": decoded,
    }


def check(what: str, finding: str, value: float, bound: float) -> None:
    """Raise ExportError if `value` is beyond `bound`, or not a number."""
    if not value <= bound:
        raise ExportError(f"{what}: {finding} {value:.3g}, more than {bound:g}")


@torch.no_grad()
def scores(model: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    """Return the logits of `windows`, shape (windows, length, vocabulary), float32."""
    return model(windows.to(model.device), use_cache=False).logits.float().cpu()


def relative_error(expected: torch.Tensor, got: torch.Tensor) -> float:
    """Return the largest difference over the largest value expected."""
    return float((expected - got).abs().max() / expected.abs().max())


def window_loss(logits: torch.Tensor, window: torch.Tensor) -> float:
    """Return the mean loss, in nats per predicted token, of logits (length, vocabulary) on a window (length,)."""
    return float(F.cross_entropy(logits[:-1].double(), window[1:]))


def mean_loss(model: PreTrainedModel, windows: torch.Tensor) -> float:
    """Return the mean loss over `windows`, in nats per predicted token."""
    return sum(window_loss(scores(model, window[None])[0], window) for window in windows) / len(windows)


def equal_greedy_tokens(model: PreTrainedModel, llama, prompt: list[int], steps: int, tolerance: float) -> int:
    """Return for how many of `steps` steps both continue `prompt` with the same most probable token.

    Where the two best logits of `model` are nearer than `tolerance`, twice the engines' difference, either choice is
    right and the model's is taken for both.
    """
    tokens = list(prompt)
    for step in range(steps):
        expected = scores(model, torch.tensor([tokens]))[0, -1]
        got = torch.from_numpy(llama_cpp.logits_of(llama, tokens)[-1])
        chosen = int(expected.argmax())
        if float(expected[chosen] - expected[int(got.argmax())]) > tolerance:
            return step
        tokens.append(chosen)
    return steps


def encodes(llama, tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Return whether llama.cpp and the tokenizer encode `text` to the same tokens."""
    return llama.tokenize(text.encode(), special=True) == tokenizer(text)["input_ids"]


def decodes(llama, tokenizer: PreTrainedTokenizerBase, line: str) -> bool:
    """Return whether llama.cpp and the tokenizer decode the tokens of `line` to the same text."""
    tokens = tokenizer(line)["input_ids"]
    # transformers may clean up spaces before punctuation, which llama.cpp does not.
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return llama_cpp.text_of(llama, tokens) == text
