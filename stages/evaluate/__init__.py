"""The quality of a model: perplexity, lm-eval's tasks, sample continuations. Runs once for each model."""
