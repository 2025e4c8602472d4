"""Section `tune` of params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from stages.common.errors import UserError
from stages.common.params import Positive, Rate, Section, Seed, Share
from stages.models.families import FAMILIES
from stages.tune.schedule import Schedule

# Of every supported model; that it has them, a head of its own included, is checked when it is there.
LINEAR_LAYERS = list(dict.fromkeys(name for family in FAMILIES.values() for name in family.linears))


class SparsityParams(Section):
    """Subsection `tune.sparsity`: gradual pruning, off while `ratio` is null."""

    structure: Literal["weight", "block"]
    ratio: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None
    begin: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    end: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    every: Positive

    @model_validator(mode="after")
    def begins_first(self):
        """The last cut is not before the first."""
        if self.begin > self.end:
            raise ValueError(f"begin = {self.begin:g} is not allowed; expected 0 to end = {self.end:g}")
        return self


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
    sparsity: SparsityParams
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
    def pruned_weights_are_trained(self):
        """Gradual pruning needs the weights themselves to be trained, and time between its cuts.

        Of units also before them: they are chosen by the gradients of the steps so far.
        """
        sparsity = self.sparsity
        if sparsity.ratio is not None and self.method == "lora":
            raise ValueError(f"sparsity.ratio = {sparsity.ratio:g} is not allowed with method = 'lora'; expected full")
        steps = round(sparsity.end * self.steps) - round(sparsity.begin * self.steps)
        if sparsity.ratio is not None and sparsity.every > steps and sparsity.begin < sparsity.end:
            raise ValueError(
                f"sparsity.every = {sparsity.every} is not allowed; expected at most the {steps} steps from begin to "
                "end, or begin = end for a single cut"
            )
        if self.removes_units and round(sparsity.end * self.steps) == 0:
            raise ValueError(
                f"sparsity.end = {sparsity.end:g} is not allowed with sparsity.structure = 'block', whose units are "
                "chosen by the gradients of the steps before a cut; expected one step at least, or prune.ratio for a "
                "cut before the first"
            )
        return self

    @property
    def removes_units(self) -> bool:
        """Whether gradual pruning removes units."""
        return self.sparsity.ratio is not None and self.sparsity.structure == "block"

    @property
    def schedule(self) -> Schedule | None:
        """The schedule of gradual pruning in steps, None without it."""
        sparsity = self.sparsity
        if sparsity.ratio is None:
            return None
        begin, end = (round(share * self.steps) for share in (sparsity.begin, sparsity.end))
        return Schedule(sparsity.ratio, begin, sparsity.every, (end - begin) // sparsity.every)

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
