"""Write a page: data as JSON in the template of `assets/`, with its style, its scripts and Vega-Lite in one file.

Vega-Lite, nine tenths of a run's page, is compressed.
"""

import base64
import gzip
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import vl_convert
from markupsafe import Markup

from stages.common.outputs import staged

ASSETS = Path(__file__).with_name("assets")
TEMPLATE, STYLE = "page.html.j2", "style.css"
SCRIPTS = ("dom.js", "charts.js", "front.js", "table.js", "compare.js", "run.js", "page.js")
SNIPPET = "window.vegaEmbed = vegaEmbed;"  # what the bundle gives to the page's own scripts
# What HTML reads inside a script element, and line ends that older JavaScript has no strings with.
ESCAPED = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def write_page(path: Path, data: dict[str, Any]) -> None:
    """Write the page of `data`, as `run_data` and `study_data` return it; equal data give equal bytes."""
    with staged(path) as file:
        file.write_text(render(data), encoding="utf-8")


def render(data: dict[str, Any]) -> str:
    """Return the page as HTML. Nothing in it is loaded from elsewhere."""
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(ASSETS), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(TEMPLATE).render(
        title=data["title"],
        kind=data["kind"],
        data=Markup(script_json(data)),
        style=asset(STYLE),
        scripts=[asset(name) for name in SCRIPTS],
        library=chart_library(),
    )


def asset(name: str) -> Markup:
    """Return a file of `assets/` as it is."""
    return Markup(ASSETS.joinpath(name).read_text(encoding="utf-8"))


@cache  # a second's work, the same for every page
def chart_library() -> str:
    """Return Vega-Lite as Base64 of gzip, without a time: equal scripts give equal bytes."""
    script = vl_convert.javascript_bundle(SNIPPET)
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


def script_json(data: dict[str, Any]) -> str:
    """Return JSON that no text in it can end the script element of: `<`, `>` and `&` are escaped."""
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(ESCAPED.get(character, character) for character in text)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: a number that is not finite is null."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)
