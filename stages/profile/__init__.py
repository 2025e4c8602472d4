"""The cost of a model: parameters, MACs, memory, tokens per second. Runs once for each model."""
