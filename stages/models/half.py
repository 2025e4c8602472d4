"""A layer's attention or its MLP in memory, found by its family's description."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stages.models.architecture import Attention, Mlp
from stages.models.modeling_pruned import Skipped


@dataclass(frozen=True)
class Half:
    """A layer's attention or its MLP: what reads the residual stream, and what writes to it."""

    module: Any  # torch types what a module holds as Tensor | Module, whatever it is
    norm: Any  # of what it reads, the identity where there is none
    inputs: dict[str, nn.Linear]  # what reads, by name
    units: list[nn.Linear]  # the same, first the one whose rows count the units
    unit_norms: list[Any]  # of queries and keys, whose weights lie along the units
    rows: int  # of the first of these matrices, those of each unit's key or of one channel
    sections: tuple[int, ...]  # the rows of its parts where they follow one another, () where they do not
    counts: dict[str, int]  # attributes of the module that hold so many times the number of units
    together: bool  # they divide all units by one root mean square
    input_norms: list[tuple[nn.Linear, Any]]  # matrices with the norm of what they put out
    output: nn.Linear
    output_name: str
    after: Any  # the norm of the result, the identity where there is none
    scale: float  # what the result is multiplied by

    @property
    def skipped(self) -> bool:
        """Whether the layer has no such half: there are no matrices, and what is added to the stream is zero."""
        return isinstance(self.module, Skipped)

    @property
    def columns(self) -> int:
        """The columns of the output matrix."""
        return 0 if self.skipped else self.output.in_features

    def result(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what is added to the residual stream when the output matrix reads `inputs`."""
        result = self.after(self.output(inputs))
        return result if self.scale == 1 else result * self.scale


def half(layer: nn.Module, names: Attention | Mlp, scale: float) -> Half:
    """Return the half of `layer` that has these names."""
    module = layer.get_submodule(names.module)
    if isinstance(module, Skipped):
        return skipped_half(module, names.output, scale)
    linears: dict[str, Any] = {name: module.get_submodule(name) for name in (*names.inputs, names.output)}
    pairs = []
    if isinstance(names, Attention) and names.query_norm and names.key_norm:
        for matrix, norm in ((names.query, names.query_norm), (names.key, names.key_norm)):
            if getattr(module, norm, None) is not None:  # some configs leave them out
                pairs.append((linears[matrix], getattr(module, norm)))
    kind = names.unit_norms if isinstance(names, Attention) else "shared"
    output, counts = linears[names.output], {}
    sections = sections_of(names, linears[names.units[0]].out_features, output.in_features)
    rows = sections[-1] if sections else linears[names.units[0]].out_features
    if isinstance(names, Attention):
        rows = rows if sections else rows // names.fused
        counts = dict.fromkeys(names.query_counts, output.in_features // rows) | dict.fromkeys(names.key_counts, 1)
    if isinstance(names, Mlp) and names.activation:
        module = nn.Sequential(linears[names.up], layer.get_submodule(names.activation), output)
    return Half(
        module=module,
        norm=layer.get_submodule(names.norm) if names.norm else nn.Identity(),
        inputs={name: linears[name] for name in names.inputs},
        units=[linears[name] for name in names.units],
        unit_norms=[] if kind == "shared" else [norm for _, norm in pairs],
        rows=rows,
        sections=sections,
        counts=counts,
        together=kind == "together" and bool(pairs),
        input_norms=pairs,
        output=output,
        output_name=names.output,
        after=layer.get_submodule(names.after) if names.after else nn.Identity(),
        scale=scale,
    )


def skipped_half(module: nn.Module, output: str, scale: float) -> Half:
    """Return the half of a layer that lacks it, `module` standing in its place."""
    stream: Any = nn.Identity()  # what the module puts out, zeros, is the result
    return Half(module, nn.Identity(), {}, [], [], 0, (), {}, False, [], stream, output, nn.Identity(), scale)


def sections_of(names: Attention | Mlp, rows: int, read: int) -> tuple[int, ...]:
    """Return the rows of each part of a matrix of so many `rows` whose parts follow one another, () for any other.

    `read` are the columns of the output matrix.
    """
    if isinstance(names, Mlp):
        return (read, read) if names.gate == names.up else ()
    keys = (rows - read) // 2
    return (read, keys, keys) if names.stacked else ()
