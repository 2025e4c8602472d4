"""Read what base, pruned and tuned generate: in the terminal, or side by side. Not part of the pipeline."""
