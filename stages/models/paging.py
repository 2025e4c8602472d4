"""Models larger than memory: of a paged model one part, a decoder layer or an embedding matrix, is in memory at a time.

The other weights are on the meta device, where shapes, counts and dtypes can be had of them all. `bring_in(part)` reads
a part and lets go of the one before, which is first written to a file of its own if it has changed. Every function here
takes a model that is in memory as a whole too, and has nothing to bring in then.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from stages.models import checkpoint
from stages.models.config import check_not_quantised, read_config
from stages.models.parts import Parts
from stages.models.safetensors_file import unread
from stages.models.tensors import model_tensors

SHARD = "model-{:05}-of-{:05}.safetensors"


class OfLayer(Protocol):
    """Anything that belongs to one layer."""

    @property
    def layer(self) -> int:
        """The layer's index."""


OfLayerT = TypeVar("OfLayerT", bound=OfLayer)


def bring_in(part: nn.Module) -> None:
    """Have the weights of `part`, a layer or an embedding matrix, in memory, and of its paged model no other part's."""
    if pages := pages_of(part):
        pages.bring_in(part)


def each_in_memory(model: PreTrainedModel, modules: list[OfLayerT]) -> Iterator[OfLayerT]:
    """Yield `modules`, each with its layer's weights in memory."""
    for module in modules:
        bring_in(Parts(model).layers[module.layer])
        yield module


def parts_in_memory(model: PreTrainedModel) -> Iterator[nn.Module]:
    """Yield the parts of `model` that together hold each parameter once, each while it is in memory."""
    for part in (*paged_parts(model), *Parts(model).small.values()):
        bring_in(part)
        yield part


def paged_parts(model: PreTrainedModel) -> list[nn.Module]:
    """Return what is brought in one by one: the embeddings, the layers, and the head unless it is the embeddings."""
    head = [] if model.config.tie_word_embeddings else [model.get_output_embeddings()]
    return [model.get_input_embeddings(), *Parts(model).layers, *head]


def load_paged(
    folder: str | Path, changed: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """Return the model in `folder` with no part in memory; parts that change are put into folder `changed`.

    Its dtype is `dtype`, or else that of config.json, or else that of the weights; each weight is converted once, from
    what is stored. Raises UserError for a folder that is no complete checkpoint; bringing a part in does for values
    that are not finite.
    """
    folder = Path(folder)
    config = read_config(folder)
    config.name_or_path = str(folder)
    check_not_quantised(config)
    model, stored = model_tensors(folder, config, dtype)
    model = model.requires_grad_(False).eval()
    parts = Parts(model)
    if parts.rotary is not None:
        parts.rotary = type(parts.rotary)(config).to(device)  # it has no weights
    parts.embedding_scale = config.hidden_size**0.5
    checkpoint.note_origin(model, folder)
    Pages(model, folder, stored, changed, torch.device(device))
    return model


def hand_over(model: PreTrainedModel, rebuilt: PreTrainedModel) -> None:
    """Let `rebuilt`, whose parts are those of `model` in their order, page the weights of `model` from now on."""
    if pages := pages_of(model):
        pages.hand_over(model, rebuilt)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write what checkpoint.save_checkpoint does; of a paged model, which is not to be used then, a file for each part.

    Parts that have changed are moved there: `folder` is on the same disk as they are, or is where they are.
    """
    pages = pages_of(model)
    if pages is None:
        return checkpoint.save_checkpoint(model, tokenizer, folder)
    pages.save(model, folder)
    tokenizer.save_pretrained(folder)


def pages_of(module: nn.Module) -> "Pages | None":
    """Return what pages a model or a part of one, None for what is in memory as a whole."""
    return module.__dict__.get("pages")


@dataclass
class Place:
    """Where a part lies while it is not in memory."""

    name: str  # of the part in the model
    stored: dict[str, Any]  # its weights, still to be read, by their names in the part
    file: Path | None = None  # that holds the part alone, once it has changed


class Pages:
    """The parts of one model; only `resident` is in memory."""

    def __init__(
        self, model: PreTrainedModel, folder: Path, stored: dict[str, Any], changed: Path, device: torch.device
    ):
        """Page `model`, all on the meta device, whose weights are `stored`, by name, in the base's `folder`."""
        self.folder, self.changed, self.device = folder, changed, device
        self.resident: nn.Module | None = None
        self.absent: dict[str, nn.Parameter] = {}  # what stands on the meta device for the resident's weights
        names, self.places = names_of_modules(model), {}
        for part in paged_parts(model):
            weights = {name: stored[f"{names[part]}.{name}"] for name, _ in part.named_parameters()}
            self.places[part] = Place(names[part], weights)
        for name, part in Parts(model).small.items():  # too small to page
            for key, absent in list(part.named_parameters()):
                setattr(part, key, self.read(Place(name, {key: stored[f"{name}.{key}"]}), key, absent.dtype))
        self.attach(model)

    def attach(self, model: PreTrainedModel) -> None:
        """Make the model and its parts known as paged."""
        for module in (model, *self.places):
            module.__dict__["pages"] = self

    def read(self, place: Place, name: str, dtype: torch.dtype) -> nn.Parameter:
        """Return one weight of a part in `dtype`, read from its file; UserError if the base's is not finite."""
        tensor = place.stored[name][...].to(self.device, dtype)
        if place.file is None:
            checkpoint.check_finite(self.folder, f"{place.name}.{name}", tensor)
        weight: Any = nn.Parameter(tensor, requires_grad=False)
        weight.as_read = weight._version
        return weight

    def bring_in(self, part: nn.Module) -> None:
        """Read `part`, once the part before it is out."""
        if part is self.resident:
            return
        self.let_go()
        place = self.places[part]
        self.absent = dict(part.named_parameters())
        for name, absent in self.absent.items():
            replace(part, name, self.read(place, name, absent.dtype))
        self.resident = part

    def let_go(self) -> None:
        """Put the resident part out, into a file of its own if a weight was replaced, added or written to."""
        part, self.resident = self.resident, None
        if part is None:
            return
        weights = dict(part.named_parameters())
        if any(getattr(weight, "as_read", None) != weight._version for weight in weights.values()):
            place = self.places[part]
            self.changed.mkdir(parents=True, exist_ok=True)
            place.file = self.changed / f"{place.name}.safetensors"
            save_part(place.name, weights, place.file)
            place.stored = {name.removeprefix(f"{place.name}."): weight for name, weight in unread(place.file).items()}
            self.absent = {name: meta_weight(weight) for name, weight in weights.items()}
        for name, weight in self.absent.items():
            replace(part, name, weight)
        self.absent = {}

    def hand_over(self, model: PreTrainedModel, rebuilt: PreTrainedModel) -> None:
        """Page `rebuilt` instead of `model`."""
        self.let_go()
        names = names_of_modules(rebuilt)
        pairs = zip(paged_parts(model), paged_parts(rebuilt), strict=True)
        self.places = {new: Place(names[new], self.places[old].stored, self.places[old].file) for old, new in pairs}
        self.attach(rebuilt)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Write config, weights and index to `folder`: a changed part's file as it is, a new one for the others."""
        self.let_go()
        files = len(self.places) + 1
        # transformers writes the weights that are there, the config and what belongs to it; it removes other shards.
        parts = Parts(model).small.items()
        small = {f"{name}.{key}": weight for name, part in parts for key, weight in part.named_parameters()}
        model.save_pretrained(folder, state_dict=dict(small))
        shard = folder / SHARD.format(files, files)
        (folder / SAFE_WEIGHTS_NAME).rename(shard)
        weight_map = dict.fromkeys(small, shard.name)
        for number, (part, place) in enumerate(self.places.items(), 1):
            shard = folder / SHARD.format(number, files)
            weight_map |= {f"{place.name}.{name}": shard.name for name in place.stored}
            if place.file is None:
                self.bring_in(part)
                save_part(place.name, dict(part.named_parameters()), shard)
            else:  # nothing both changes layers and removes some, so its names are still the model's
                place.file.rename(shard)
        self.let_go()
        size = sum(weight.nbytes for weight in model.parameters())
        index = {"metadata": {"total_size": size, "total_parameters": model.num_parameters()}, "weight_map": weight_map}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def names_of_modules(model: PreTrainedModel) -> dict[nn.Module, str]:
    """Return the names of all modules of `model` as its state dict has them."""
    return {module: name for name, module in model.named_modules()}


def replace(part: nn.Module, name: str, weight: nn.Parameter) -> None:
    """Set the weight called `name` of `part`."""
    owner, _, own = name.rpartition(".")
    setattr(part.get_submodule(owner), own, weight)


def meta_weight(weight: nn.Parameter) -> nn.Parameter:
    """Return the shape and dtype of `weight` without its values."""
    return nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)


def save_part(prefix: str, weights: dict[str, nn.Parameter], file: Path) -> None:
    """Write the weights of a part by their names in the model."""
    tensors = {f"{prefix}.{name}": weight.detach().contiguous() for name, weight in weights.items()}
    save_file(tensors, file, metadata={"format": "pt"})
