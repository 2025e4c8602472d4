"""Stage tune: recover what pruning lost by training a LoRA adapter on the pruned model, and merge it."""
