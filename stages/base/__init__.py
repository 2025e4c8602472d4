"""The base model: what is pruned."""
