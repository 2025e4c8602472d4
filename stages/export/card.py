"""The model card of an exported folder, in the hub's format."""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from tabulate import tabulate

from stages.export.verify import Metrics

MISSING = "-"
TRANSFORMERS = """\
transformers:

    AutoModelForCausalLM.from_pretrained("{folder}"{trust})
    AutoTokenizer.from_pretrained("{folder}")"""
TORCHAO = "\n\nIt needs torchao {version}, which computes with the 8-bit matrices and their scales."
REMOTE_CODE = (
    "\n\nThe layers differ in width or rank, so the folder contains its own model class, modeling_pruned.py; "
    "read it before you trust it."
)
PLAIN = "\n\nIt is a plain {architecture}, which other engines should load too; it was tested with transformers."
LLAMA_CPP = """\
llama.cpp:

    llama-cli -m {folder}/model.gguf

llama-cpp-python:

    llama_cpp.Llama("{folder}/model.gguf")

With config.json and the tokenizer in this folder, Espalier evaluates and profiles it with dequantised weights."""
OBJECTIVES = {"next_token": "next-token training", "distillation": "distillation from the base"}
RECOVERED = {"lora": "with LoRA, merged", "full": "of every weight"}
MEANINGS = {
    "ppl": "perplexity on the compared windows",
    "ppl_ratio": "the same, divided by that of the model before the export",
    "logits_relative_error": "largest difference of the logits from the model's, divided by the largest logit",
    "llama_cpp_logits_relative_error": "the same in llama.cpp, against transformers with the same weights",
    "llama_cpp_ppl_ratio": "perplexity in llama.cpp, divided by that of transformers with the same weights",
    "llama_cpp_greedy_tokens_equal": "equal greedy tokens in llama.cpp, of 64, or of two thirds of the context",
    "lines_encoded_otherwise": "held-out lines with a leading space or added tokens, where llama.cpp and "
    "transformers place spaces differently",
    "llama_cpp_lines_encoded_equal": "held-out lines that llama.cpp's tokenizer encodes equally",
    "llama_cpp_lines_decoded_equal": "held-out lines that it decodes equally",
    "mib": "size of the weight file (MiB)",
}


@dataclass(frozen=True)
class Facts:
    """The facts that all cards of a run share."""

    params: dict[str, Any]  # params.yaml
    evaluate: dict[str, Metrics]  # by model: base, pruned, tuned
    prune: Metrics
    base_card: dict[str, Any] = field(default_factory=dict)  # metadata of the base's own card


def model_card(name: str, kind: str, architecture: str, plain: bool, measured: Metrics, facts: Facts) -> ModelCard:
    """Return the card of model `name` (base, pruned, tuned) in format `kind`; `measured`: the results of its checks."""
    base = facts.params["base"]
    data = ModelCardData(
        base_model=base["model"] if base["source"] == "hub" else None,
        library_name="gguf" if kind.startswith("gguf") else "transformers",
        license=facts.base_card.get("license"),
        license_name=facts.base_card.get("license_name"),
        license_link=facts.base_card.get("license_link"),
        language=facts.base_card.get("language"),
        pipeline_tag="text-generation",
        tags=["espalier", *(["pruned"] if name != "base" else [])],
    )
    sections = [
        f"# {name}, as {kind}",
        origin(name, facts),
        f"## Measured\n\n{quality(facts.evaluate)}\n\nAccuracy in percent ± one standard error; perplexity over "
        f"windows of {facts.params['evaluate']['sequence_length']} tokens. Measured before the export.",
        f"## This export\n\n{checks(measured)}",
        f"## Loading\n\n{loading(f'{name}-{kind}', kind, architecture, plain)}",
        f"## Licence\n\n{licence(facts)}",
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def origin(name: str, facts: Facts) -> str:
    """Return where the model comes from: base and revision, method and params, parameters before and after."""
    base, prune = facts.params["base"], facts.params["prune"]
    origins = {
        "hub": f"[{base['model']}](https://huggingface.co/{base['model']}) at revision `{base['revision']}`",
        "path": f"the model in `{base['path']}`",
        "gguf": f"the GGUF file `{base['path']}`, dequantised",
        "package": f"the GGUF file of the Python package `{base['package']}`, dequantised",
        "shape": f"random weights in the shape of `{base['path']}`",
        "train": "a Llama trained from scratch by this pipeline",
    }
    text = f"Base model: {origins[base['source']]}."
    if name == "base":
        return text
    text += (
        f" Pruned by Espalier, {method(prune)}, {goal(prune)}: "
        f"{facts.prune['parameters_before']:,} parameters before, {facts.prune['parameters']:,} after."
    )
    sections = ["prune", *(["tune"] if name == "tuned" else [])]
    if name == "tuned":
        tune = facts.params["tune"]
        text += f" Recovered by {OBJECTIVES[tune['objective']]} {RECOVERED[tune['method']]}."
    rows = [(f"{section}.{key}", f"`{value}`") for section in sections for key, value in facts.params[section].items()]
    return f"{text}\n\n{tabulate(rows, ['param', 'value'], tablefmt='pipe', disable_numparse=True)}"


def method(prune: dict[str, Any]) -> str:
    """Return the preset of section `prune`, and the choices that override it."""
    choices = ("structure", "criterion", "allocation", "update")
    return ", ".join([f"method `{prune['method']}`", *(f"{key} `{prune[key]}`" for key in choices if prune.get(key))])


def goal(prune: dict[str, Any]) -> str:
    """Return the target of section `prune`: a budget or a pattern n:m replaces the ratio."""
    if prune["budget"]:
        return f"budget {prune['budget']}"
    if ":" in (prune["pattern"] or ""):
        return f"pattern {prune['pattern']}"
    return f"ratio {prune['ratio']:g} of {prune['ratio_of']}"


def quality(evaluate: dict[str, Metrics]) -> str:
    """Return perplexities and accuracies of base, pruned and tuned as a table, with standard errors."""
    names = sorted({key for metrics in evaluate.values() for key in metrics if key.endswith(("_ppl", "_acc"))})
    rows = [[name, *(cell(metrics, name) for metrics in evaluate.values())] for name in names]
    return tabulate(rows, ["", *evaluate], tablefmt="pipe", disable_numparse=True)


def cell(metrics: Metrics, name: str) -> str:
    """Return one metric, formatted."""
    if name not in metrics:
        return MISSING
    if name.endswith("_ppl"):
        return f"{metrics[name]:.2f}"
    error = metrics.get(f"{name}_stderr")
    return f"{100 * metrics[name]:.2f}" + ("" if error is None else f" ± {100 * error:.2f}")


def checks(measured: Metrics) -> str:
    """Return the results of the comparison of the export with the model, as a table."""
    rows = [(MEANINGS[key], f"{value:.6g}") for key, value in measured.items()]
    return tabulate(rows, ["check", "found"], tablefmt="pipe", disable_numparse=True)


def loading(folder: str, kind: str, architecture: str, plain: bool) -> str:
    """Return how each engine loads the folder."""
    if kind.startswith("gguf"):
        return LLAMA_CPP.format(folder=folder)
    text = TRANSFORMERS.format(folder=folder, trust="" if plain else ", trust_remote_code=True")
    if kind.startswith("torchao"):
        return text + TORCHAO.format(version=version("torchao")) + ("" if plain else REMOTE_CODE)
    return text + (PLAIN.format(architecture=architecture) if plain else REMOTE_CODE)


def licence(facts: Facts) -> str:
    """Return the licence, which is the base's."""
    name = facts.base_card.get("license_name") or facts.base_card.get("license")
    if name:
        return f"Inherited from the base model: {name}."
    return "The base model names no licence." if facts.params["base"]["source"] != "train" else (
        "The weights were trained by this pipeline and inherit no licence; the text they were trained on keeps its own."
    )  # fmt: skip


def base_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of the card in the base's folder, an empty dict where there is none."""
    card = folder / "README.md"
    return ModelCard.load(card, ignore_metadata_errors=True).data.to_dict() if card.is_file() else {}
