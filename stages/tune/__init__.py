"""Stage tune: recover what pruning lost by training the pruned model, as a LoRA adapter that is merged or in full."""
