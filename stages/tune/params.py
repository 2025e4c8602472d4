"""Section `tune` of params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from stages.common.errors import UserError
from stages.common.params import Positive, Rate, Section, Seed, Share
from stages.models.families import FAMILIES

# Of every supported model; that it has them, a head of its own included, is checked when it is there.
LINEAR_LAYERS = list(dict.fromkeys(name for family in FAMILIES.values() for name in family.linears))


class TuneParams(Section):
    """Section `tune`.

    The thesis (LLM-Pruner's post_training.py) used data: instructions (alpaca-cleaned, 2 epochs), objective:
    next_token, method: lora, lora_rank: 8, lora_alpha: 16, lora_dropout: 0.05, all seven target_modules, window: 256,
    batch_size: 64, micro_batch_size: 4, warmup_steps: 100, learning_rate: 0.0001, validation_sequences: 2000.
    """

    data: Literal["instructions", "text", "both"]
    template: Literal["auto", "alpaca", "chat"]
    objective: Literal["next_token", "distillation"]
    temperature: Rate
    hidden_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    method: Literal["lora", "full"]
    control: bool
    seed: Seed
    lora_rank: Positive
    lora_alpha: Positive
    lora_dropout: Share
    target_modules: Literal["all-linear"] | list[str]
    window: Annotated[int, Field(ge=2)]
    batch_size: Positive
    micro_batch_size: Positive
    gradient_checkpointing: bool
    steps: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    learning_rate: Rate
    validate_every: Positive
    validation_sequences: Positive

    @field_validator("target_modules", mode="before")
    @classmethod
    def check_target_modules(cls, targets: Any) -> Any:
        """Answer in one line where pydantic would report every member of the union."""
        names = isinstance(targets, list) and targets and all(name in LINEAR_LAYERS for name in targets)
        if targets != "all-linear" and not names:
            raise ValueError(f"is not allowed; expected all-linear, or a list of: {', '.join(LINEAR_LAYERS)}")
        return targets

    @model_validator(mode="after")
    def warm_up_fits(self):
        """The warm-up ends before the training does."""
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps = {self.warmup_steps} is not allowed; expected 0 to steps = {self.steps}")
        return self

    @model_validator(mode="after")
    def control_has_something_to_learn(self):
        """The base as its own teacher has nothing to teach: its rounding errors would be all that is learnt."""
        if self.control and self.objective == "distillation":
            raise ValueError(
                "control = true is not allowed with objective = 'distillation', which would distil the base from "
                "itself; set control: false or objective: next_token"
            )
        return self


def check_shares(params: TuneParams, count: int) -> None:
    """Raise UserError unless a step's micro-batches can be dealt out evenly to `count` processes."""
    parts = -(-params.batch_size // params.micro_batch_size)
    if parts % count:
        raise UserError(
            f"run.processes = {count} does not divide the {parts} micro-batches of a step (tune.batch_size = "
            f"{params.batch_size}, tune.micro_batch_size = {params.micro_batch_size}); expected a number that does"
        )
