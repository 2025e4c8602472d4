"""Stage export: models/{base,pruned,merged} -> models/export/<model>-<format>, metrics/details/export.json."""

import json
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from stages.common.errors import UserError
from stages.common.outputs import staged, write_details
from stages.common.params import Positive, RunParams, Section, load_section, read_params_file
from stages.common.stage import run_stage
from stages.export.params import ExportParams

FOLDERS = {"base": Path("models/base"), "pruned": Path("models/pruned"), "tuned": Path("models/merged")}
EVALUATE, DETAILS, TEXT = Path("metrics/evaluate"), Path("metrics/details"), Path("data/perplexity")


class Window(Section):
    """The key of section `evaluate` for the length of the compared windows."""

    model_config = ConfigDict(extra="ignore")

    sequence_length: Positive


def main() -> None:
    """Write every model in every format, check each, and describe it in a card."""
    params = load_section("export", ExportParams)
    metrics: dict[str, int | float] = {"exports": len(params.models) * len(params.formats)}
    with staged("models/export") as folder:
        folder.mkdir()
        if metrics["exports"]:
            metrics |= export_all(params, folder)
        else:
            print("export.formats or export.models is empty: nothing to export")
    write_details(DETAILS / "export.json", metrics)


def export_all(params: ExportParams, target: Path) -> dict[str, int | float]:
    """Write the folders <model>-<format> into `target` and return the measurements of each, prefixed by its name."""
    # Imported here, so that a run that exports nothing takes no time.
    from stages.common.torch_setup import setup_torch
    from stages.export.card import Facts, base_metadata, model_card
    from stages.export.formats import weights_mib, write
    from stages.export.held_out import read_held_out
    from stages.export.verify import verify
    from stages.models.checkpoint import load_model, load_tokenizer

    run = load_section("run", RunParams)
    device = setup_torch(run)
    evaluate = {
        name: read_json(EVALUATE / f"{name}.json") | read_json(DETAILS / "evaluate" / f"{name}.json")
        for name in FOLDERS
    }
    prune = read_json(DETAILS / "prune.json")
    facts = Facts(read_params_file(), evaluate, prune, base_metadata(FOLDERS["base"]))
    length = load_section("evaluate", Window).sequence_length
    metrics: dict[str, int | float] = {}
    for name in params.models:
        tokenizer = load_tokenizer(FOLDERS[name])
        held_out = read_held_out(TEXT, tokenizer, length)
        for kind in params.formats:
            folder = target / f"{name}-{kind}"
            try:
                write(load_model(FOLDERS[name]), tokenizer, kind, folder)
            except UserError as error:
                raise UserError(f"{name} as {kind}: {error}") from None
            measured = verify(load_model(FOLDERS[name], device), tokenizer, folder, kind, held_out, run.threads)
            measured["mib"] = weights_mib(folder)
            config = read_json(folder / "config.json")
            plain = not list(folder.glob("*.py"))
            model_card(name, kind, config["architectures"][0], plain, measured, facts).save(folder / "README.md")
            prefix = f"{name}_{kind}".replace("-", "_")
            metrics |= {f"{prefix}_{key}": value for key, value in measured.items()}
    return metrics


def read_json(file: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_stage("export", main)
