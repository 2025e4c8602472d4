"""What the figures of a run and of a study share: their style, their axes, and how they are saved."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

# Okabe and Ito's palette, distinct for every kind of colour vision; markers distinguish without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, LIGHT, GRID = "#555555", "#C8C8C8", "#EEEEEE"
STYLE: Any = {
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 130,
    "svg.hashsalt": "espalier",
}


def save(figures: dict[str, Figure], folder: Path, svg: bool = False) -> list[str]:
    """Write the figures as PNG and, if asked, SVG into `folder`, and return their names. Same numbers, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        # matplotlib's version and the date would otherwise be in the files.
        figure.savefig(folder / f"{name}.png", metadata={"Software": None})
        if svg:
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return list(figures)


def plain_log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, also where it spans less than a decade."""
    low, high = axis.get_view_interval()
    subdivisions = (1, 2, 5) if high / low < 1000 else (1,)
    axis.set_major_locator(MaxNLocator(6) if high / low < 10 else LogLocator(subs=subdivisions))
    axis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(plt.NullLocator())
