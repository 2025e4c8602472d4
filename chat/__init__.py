"""Read what base, pruned and tuned write: in the terminal, or side by side. No stage of the pipeline."""
