"""Experts as files of weights hold them: three matrices each. A model stacks those of all experts into two tensors."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.common.errors import UserError
from stages.models.architecture import Architecture, Experts
from stages.models.folder import listed


@dataclass(frozen=True)
class Stacked:
    """A tensor of all experts, still in its files; `[...]`, by which transformers asks for one, reads all of it."""

    experts: list[list[Any]]  # of each expert the matrices, still to be read, whose rows follow one another

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the model: experts, rows, columns."""
        rows = sum(matrix.shape[0] for matrix in self.experts[0])
        return len(self.experts), rows, *self.experts[0][0].shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrices; where they differ, one that is not a floating-point number's, if there is any."""
        dtypes = [matrix.dtype for matrices in self.experts for matrix in matrices]
        return next((dtype for dtype in dtypes if not dtype.is_floating_point), dtypes[0])

    def __getitem__(self, _) -> torch.Tensor:
        """Return the tensor; UserError if a file ends before its matrix does."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        for room, matrices in zip(tensor, self.experts, strict=True):
            for part, matrix in zip(room.split([each.shape[0] for each in matrices]), matrices, strict=True):
                part.copy_(matrix[...])
        return tensor


def stacked(folder: Path, tensors: dict[str, Any], family: Architecture) -> dict[str, Any]:
    """Return `tensors` with the matrices of single experts, if `folder` holds such, stacked under the model's names.

    Raises UserError, naming a tensor, where an expert lacks a matrix or has one of another shape than the first.
    """
    names = family.mlp
    if not isinstance(names, Experts):
        return tensors
    module, stack = re.escape(names.file_module), re.escape(names.stack)
    matrix = re.compile(rf"(.*\d+\.){module}\.{stack}\.(\d+)\.({'|'.join(names.file_matrices)})\.weight")
    router = re.compile(rf"(.*\d+\.){module}(\.{re.escape(names.router)}\.weight)")
    result: dict[str, Any] = {}
    layers: dict[str, dict[tuple[int, str], Any]] = {}  # what is before the module's name: matrices by expert and name
    for name, tensor in tensors.items():
        if match := matrix.fullmatch(name):
            layers.setdefault(match[1], {})[int(match[2]), match[3]] = tensor
        else:
            result[router.sub(rf"\1{names.module}\2", name)] = tensor
    gate, up, down = names.file_matrices
    for layer, matrices in layers.items():
        source, target = (f"{layer}{each}.{names.stack}." for each in (names.file_module, names.module))
        result[target + names.gate_up] = stack_of(folder, source, matrices, (gate, up))
        result[target + names.output] = stack_of(folder, source, matrices, (down,))
    return result


def stack_of(folder: Path, source: str, matrices: dict[tuple[int, str], Any], parts: tuple[str, ...]) -> Stacked:
    """Return the `parts` of all experts as one tensor; `source` is what their names in `folder` begin with."""
    experts = range(1 + max(expert for expert, _ in matrices))
    files = {(expert, part): f"{source}{expert}.{part}.weight" for expert in experts for part in parts}
    if missing := [name for key, name in files.items() if key not in matrices]:
        raise UserError(f"{folder} lacks weights: {listed(missing)}")
    first = tuple(matrices[0, parts[0]].shape)
    for key, name in files.items():
        if tuple(matrices[key].shape) != first:
            raise UserError(
                f"{folder}: {name} has shape {tuple(matrices[key].shape)}; expected {first}, as the first expert"
            )
    return Stacked([[matrices[expert, part] for part in parts] for expert in experts])
