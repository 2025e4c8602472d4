"""Structure block: units are MLP channels and key/value heads, with the query heads that read them."""

from pathlib import Path

from stages.prune.choices import names
from stages.prune.structure import Structure

HERE = Path(__file__).parent
BLOCK = Structure(
    takes={
        "criterion": sorted([*names(HERE.parent / "criteria"), *names(HERE / "criteria")]),
        "allocation": names(HERE / "allocation"),
        "update": names(HERE / "update"),
    },
    idle={"pattern": None},
    unstreamed={"criterion": ["taylor"], "allocation": ["fisher", "sensitivity", "search"]},
)
