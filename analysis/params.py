"""Section `report` of params.yaml, and what the report reads of other sections."""

from typing import Annotated

from pydantic import ConfigDict, Field

from stages.common.params import Positive, Section, Seed, Share


class ReportParams(Section):
    """How the uncertainty of a difference is measured and judged."""

    bootstrap_samples: Positive
    seed: Seed
    confidence: Annotated[float, Field(gt=0, lt=1)]

    @property
    def level(self) -> float:
        """The level of significance."""
        return round(1 - self.confidence, 10)


class Pruning(Section):
    """The keys of section `prune` that name a study."""

    model_config = ConfigDict(extra="ignore")

    method: str
    ratio: Share
    ratio_of: str
    budget: str | None

    @property
    def goal(self) -> str:
        """How far the model was to be pruned."""
        return self.budget or f"{100 * self.ratio:g} %"


class Window(Section):
    """The key of sections `evaluate` and `profile` that says over how many tokens was measured."""

    model_config = ConfigDict(extra="ignore")

    sequence_length: Positive
