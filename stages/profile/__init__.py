"""What a model costs: parameters, MACs, memory, tokens per second. Run once for each model of a study."""
