"""Section `prune` of params.yaml."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stages.common.params import Positive, Section, Seed, Share, one_of
from stages.prune.block import budget
from stages.prune.methods import METHODS, Method
from stages.prune.ranges import auto_range
from stages.prune.structures import STRUCTURES, check_combination, every
from stages.prune.weight.patterns import check_pattern


def check_layers(value: object) -> object:
    """Return `value` if it names layers to prune; ValueError if it does not."""
    bounds = isinstance(value, list) and len(value) == 2 and all(type(each) is int and each >= 0 for each in value)
    if not (value in (None, "auto") or bounds):
        raise ValueError("is not allowed; expected auto, null, or a half-open range of layers, such as [2, 28]")
    return value


Layers = Annotated[list[int] | Literal["auto"] | None, BeforeValidator(check_layers)]


class CalibrationParams(Section):
    """Subsection `prune.calibration`: the text windows that criteria look at."""

    windows: Positive
    length: Annotated[int, Field(ge=2)]


class PruneParams(Section):
    """Section `prune`."""

    method: Annotated[str, one_of(list(METHODS))]
    structure: Annotated[str, one_of(list(STRUCTURES))] | None
    criterion: Annotated[str, one_of(every("criterion"))] | None
    allocation: Annotated[str, one_of(every("allocation"))] | None
    update: Annotated[str, one_of(every("update"))] | None
    pattern: Annotated[str, AfterValidator(check_pattern)] | None
    ratio: Share
    ratio_of: Literal["groups", "parameters"]
    budget: Annotated[str, AfterValidator(budget.checked)] | None
    budget_length: Positive
    attention_layers: Layers
    mlp_layers: Layers
    grouping: Literal["sum", "mean", "max", "prod", "first"]
    taylor: Literal["param_first", "param_second", "param_mix", "vectorize"]
    iterative_steps: Positive
    round_to: Literal[1, 8, 32, 64, 256]
    layout: Literal["free", "uniform"]
    streaming: bool
    seed: Seed
    calibration: CalibrationParams

    @model_validator(mode="after")
    def some_layer(self):
        """At least one of the two layer ranges is given."""
        if self.attention_layers is None and self.mlp_layers is None:
            raise ValueError("attention_layers and mlp_layers are both null; expected a range for one of them at least")
        return self

    @model_validator(mode="after")
    def choices_go_together(self):
        """The structure takes the other choices, and the keys that it has no use for are at rest."""
        check_combination(self)
        return self

    def with_ranges(self, layers: int) -> Self:
        """Return these params for a model with `layers` layers: `auto` becomes the range that it stands for there.

        With `layout: uniform`, which prunes all layers alike, that is every layer; with structure expert too, so that
        uniform allocation gives a plain class.
        """
        everywhere = self.layout == "uniform" or self.chosen.structure == "expert"
        stands_for = [0, layers] if everywhere else auto_range(layers)
        keys = ("attention_layers", "mlp_layers")
        return self.model_copy(update={key: stands_for for key in keys if getattr(self, key) == "auto"})

    @property
    def joint(self) -> bool:
        """Whether all modules share one budget."""
        return self.budget is not None or self.ratio_of == "parameters"

    @property
    def chosen(self) -> Method:
        """The method with its overrides."""
        preset = METHODS[self.method]
        return Method(*(getattr(self, choice) or getattr(preset, choice) for choice in Method._fields))
