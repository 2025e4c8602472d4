"""Section `export` of params.yaml."""

from typing import Literal

from stages.common.params import Section

Format = Literal[
    "padded",
    "safetensors-float32",
    "safetensors-float16",
    "safetensors-bfloat16",
    "gguf-f32",
    "gguf-f16",
    "gguf-q8_0",
    "gguf-q4_0",
    "torchao-int8",
]

WITHOUT_RANK = ("gguf", "padded")  # formats that do not hold matrices of low rank


class ExportParams(Section):
    """Which models are written for other engines, and in which formats."""

    models: list[Literal["base", "pruned", "tuned"]]
    formats: list[Format]
