"""The tables of a thesis: as printed, audited, and beside what this pipeline measures."""
