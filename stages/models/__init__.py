"""Loading, saving and paging models, the pruned classes, GGUF, and one file per architecture family."""
