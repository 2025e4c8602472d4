"""The tables of a thesis: printed, audited, and compared with this pipeline's results."""
