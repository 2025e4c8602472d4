"""Section `evaluate` of params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stages.common.params import Positive, Section, Seed


class EvaluateParams(Section):
    """What is measured, on how much, in what portions."""

    seed: Seed
    sequence_length: Annotated[int, Field(ge=2)]
    tasks: Literal["all"] | list[str]
    limit: Positive | None
    num_fewshot: Annotated[int, Field(ge=0)]
    batch_tokens: Positive
    prompts: list[Annotated[str, Field(min_length=1)]]
    new_tokens: Positive

    @field_validator("tasks", mode="before")
    @classmethod
    def check_tasks(cls, tasks: Any) -> Any:
        """Answer in one line where pydantic would report every member of the union."""
        names = isinstance(tasks, list) and tasks and all(isinstance(name, str) for name in tasks)
        if tasks != "all" and not names:
            raise ValueError("is not allowed; allowed: all, or a list of names from data/tasks")
        return tasks
