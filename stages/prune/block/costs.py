"""The cost of a model in parameters, memory, MACs or measured time, and the price of a unit of each module.

All are taken to add up over units, so that a unit has one price. Parameters, memory and MACs do, exactly. Of a time the
price is the slope of a straight line through what was measured at a few widths of all modules of a kind: what a matrix
product takes beside its size stays with the layer.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicSlidingWindowLayer

from stages.models.parts import Parts
from stages.models.prunable import Prunable
from stages.prune.block import budget
from stages.prune.params import PruneParams

WIDTHS = (1.0, 0.75, 0.5, 0.25)  # shares of the units at which the latency is measured
REPETITIONS, TOKENS = 5, 8  # the median of so many measurements of so many tokens each


@dataclass(frozen=True)
class Costs:
    """What a model costs, what a unit of each of its modules takes of that, and what it may cost once it is pruned.

    One `unit` of a budget's text is `scale` times what these numbers count: parameters, bytes, MACs or nanoseconds.
    """

    total: float
    prices: list[float]
    limit: float
    scale: float
    unit: str
    units: list[int]  # of each module
    rests: list[float]  # what each module takes beside its units, which goes with the last of them

    def less(self, counts: list[int]) -> float:
        """Return what the model costs once counts[i] units of module i are gone."""
        return self.total - sum(self.saved(i, count) for i, count in enumerate(counts))

    def saved(self, i: int, count: int) -> float:
        """Return what `count` units of module i take."""
        return self.prices[i] * count + (self.rests[i] if count == self.units[i] else 0)


def costs_of(params: PruneParams, model: PreTrainedModel, modules: list[Prunable], before: int) -> Costs:
    """Return the costs that `prune.budget` limits or, where there is none, those that `prune.ratio` does.

    `before` are the parameters that the ratio is a share of: those of the model without what an update has added to it.
    """
    units = [module.units for module in modules]
    if params.budget is None:
        total: float = model.num_parameters()
        prices: list[float] = [module.cost for module in modules]
        rests: list[float] = [module.rest for module in modules]
        return Costs(total, prices, before - int(before * params.ratio), 1, "parameters", units, rests)
    amount, unit = budget.parse(params.budget)
    scale, measure = budget.UNITS[unit]
    total, prices, rests = MEASURES[measure](model, modules, params.budget_length)
    return Costs(total, prices, amount * scale, scale, unit, units, rests)


Measured = tuple[float, list[float], list[float]]  # of the model, of a unit of each module, and of what else it has


def memory(model: PreTrainedModel, modules: list[Prunable], length: int) -> Measured:
    """Return the bytes of the model, a tied weight counted once, and of its modules, KV cache included."""
    item, parts = model.dtype.itemsize, Parts(model)
    tokens = cached_tokens(model, length)
    cached = [2 * tokens[module.layer] * module.width if module.kind == "attention" else 0 for module in modules]
    heads = sum(count * widths["num_key_value_heads"] for count, widths in zip(tokens, parts.widths, strict=True))
    total = item * (model.num_parameters() + 2 * parts.head_dim * heads)
    prices: list[float] = [item * (module.cost + each) for module, each in zip(modules, cached, strict=True)]
    return total, prices, [item * module.rest for module in modules]


def cached_tokens(model: PreTrainedModel, length: int) -> list[int]:
    """Return of how many of `length` tokens each layer's KV cache holds keys: a sliding window drops the oldest."""
    layers = DynamicCache(config=model.config).layers
    windows = {
        index: layer.sliding_window
        for index, layer in enumerate(layers)
        if isinstance(layer, DynamicSlidingWindowLayer)
    }
    return [min(length, windows.get(index, length + 1) - 1) for index in range(len(Parts(model).layers))]


def macs(model: PreTrainedModel, modules: list[Prunable], length: int) -> Measured:
    """Return the MACs of the model and of its modules; a bias adds one per output, as in `profile`."""
    linears = [each for each in model.modules() if isinstance(each, nn.Linear)]
    weights = sum(parameter.numel() for linear in linears for parameter in linear.parameters())
    parts = Parts(model)
    if parts.has_experts:  # no linear layers
        mixtures = [parts.mixture(layer).module for layer in parts.layers]
        weights += sum(parameter.numel() for mixture in mixtures for parameter in mixture.parameters())
        weights -= parts.idle_parameters
    heads = parts.head_dim * sum(widths["num_attention_heads"] for widths in parts.widths)
    total = length * weights + 2 * length**2 * heads
    queries = [
        module.output.in_features // module.units if module.kind == "attention" else 0  # of one unit's query heads
        for module in modules
    ]
    prices = [
        length * module.cost * module.passed + 2 * length**2 * each
        for module, each in zip(modules, queries, strict=True)
    ]
    biases = [module.output.bias for module in modules]
    return total, prices, [0 if bias is None else length * bias.numel() for bias in biases]


def latency(model: PreTrainedModel, modules: list[Prunable], length: int) -> Measured:
    """Return the nanoseconds that the model takes for a token, and those of its modules, taken to be in their units."""
    prompt = torch.zeros(1, length, dtype=torch.int64, device=model.device)
    decode_time(model, prompt)  # without one-time set-up of the libraries
    slopes, total = {}, 0.0
    for kind in sorted({module.kind for module in modules}):
        times: dict[int, list[float]] = {}  # by the units left in all modules of this kind together
        for share in WIDTHS * REPETITIONS:  # in turns, so that a busy moment does not hit one width alone
            alike = [module for module in modules if module.kind == kind]
            left = {each: max(1, round(share * each.units / each.step)) * each.step for each in alike}
            with narrowed(left):
                times.setdefault(sum(left.values()), []).append(decode_time(model, prompt))
        total = median(times[max(times)])
        line = np.polyfit(list(times), [median(each) for each in times.values()], 1) if len(times) > 1 else [0.0]
        slopes[kind] = max(0.0, float(line[0]))
    return total, [slopes[module.kind] for module in modules], [0.0] * len(modules)


@torch.no_grad()
def decode_time(model: PreTrainedModel, prompt: torch.Tensor) -> float:
    """Return the nanoseconds of one decoded token after `prompt`, shape (1, length), the mean of TOKENS of them."""
    cache = model(prompt, use_cache=True, logits_to_keep=1).past_key_values
    start = clock(prompt)
    for _ in range(TOKENS):
        model(prompt[:, :1], past_key_values=cache, use_cache=True)
    return (clock(prompt) - start) / TOKENS


def clock(tokens: torch.Tensor) -> int:
    """Return the time in nanoseconds, once all work on the device of `tokens` is done."""
    if tokens.is_cuda:
        torch.cuda.synchronize(tokens.device)
    return time.perf_counter_ns()


@contextmanager
def narrowed(units: dict[Prunable, int]) -> Iterator[None]:
    """Let each module do with its first units[module] units, copying no weight but those of experts."""
    mixtures = {module.mixture: count for module, count in units.items() if module.mixture}
    stacked = [(mixture.stack, name, tensor) for mixture in mixtures for name, tensor in mixture.tensors.items()]
    whole = [(linear, linear.weight, linear.bias) for module in units for linear, _ in module.linears]
    norms = [(norm, norm.weight) for module in units for norm in module.norms]
    try:
        for mixture, count in mixtures.items():
            mixture.narrow(count)
        for module, count in units.items():
            module.set_counts(count)
            for linear, dim in module.linears:
                # Which rows they are is all the same: of a matrix that has several parts, the first ones altogether.
                size = linear.weight.shape[dim] // module.units * count
                linear.weight = nn.Parameter(linear.weight.narrow(dim, 0, size), requires_grad=False)
                if dim == 0 and linear.bias is not None:
                    linear.bias = nn.Parameter(linear.bias.narrow(0, 0, size), requires_grad=False)
            for norm in module.norms:
                size = len(norm.weight) // module.units * count
                norm.weight = nn.Parameter(norm.weight.narrow(0, 0, size), requires_grad=False)
        yield
    finally:
        for linear, weight, bias in whole:
            linear.weight, linear.bias = weight, bias
        for norm, weight in norms:
            norm.weight = weight
        for module in units:
            module.set_counts(module.units)
        for stack, name, tensor in stacked:
            setattr(stack, name, tensor)


MEASURES = {"memory": memory, "macs": macs, "latency": latency}
