"""Studies: many variants of the pipeline, run as DVC experiments and compared on one page."""
