"""Section `base` of params.yaml."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common.params import Positive, Rate, Section, Seed

NEEDED = {
    "hub": {"model": "a model id on the hub, organisation/name", "revision": "a commit, branch or tag"},
    "path": {"path": "a Hugging Face model folder"},
    "gguf": {"path": "a GGUF file"},
    "package": {"package": "the name of an installed Python distribution", "sha256": "the SHA-256 of its GGUF file"},
    "shape": {"path": "a folder with a config.json"},
}


class BaseParams(Section):
    """Where the base model comes from and, for `train`, its shape and its training."""

    source: Literal["package", "gguf", "path", "hub", "train", "shape"]
    model: str | None
    revision: str | None
    path: str | None
    package: str | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    dtype: Literal["float32", "bfloat16", "float16"]
    seed: Seed
    vocab_size: Annotated[int, Field(ge=257)]
    hidden_size: Positive
    intermediate_size: Positive
    layers: Positive
    heads: Positive
    kv_heads: Positive
    tie_embeddings: bool
    window: Annotated[int, Field(ge=2)]
    batch_size: Positive
    steps: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    learning_rate: Rate

    @model_validator(mode="after")
    def check_source(self) -> Self:
        for key, expected in NEEDED.get(self.source, {}).items():
            if not getattr(self, key):
                raise ValueError(f"{key} = {getattr(self, key)!r}; expected {expected}, since source = {self.source!r}")
        return self

    @model_validator(mode="after")
    def check_heads(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads = {self.kv_heads}; expected a divisor of heads = {self.heads}")
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"heads = {self.heads}; expected a divisor of half of hidden_size = {self.hidden_size}")
        return self
