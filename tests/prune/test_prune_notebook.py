"""README's lines of Python: a model in memory is pruned with the params of the project, changed."""

import torch
from helpers import ROOT, tiny_llama

from stages.common.params import read_params_file
from stages.prune.params import PruneParams
from stages.prune.pruning import prune


def test_a_model_in_memory_is_pruned_in_a_few_lines():
    model = tiny_llama(layers=6, mlp=48)
    before = sum(weight.numel() for weight in model.parameters())
    windows = torch.randint(model.config.vocab_size, (8, 32), generator=torch.Generator().manual_seed(0))
    params = PruneParams.model_validate(read_params_file(ROOT / "params.yaml")["prune"] | {"ratio": 0.1})
    assert params.mlp_layers == "auto"
    pruned, metrics = prune(model, windows, params)
    kept = sum(weight.numel() for weight in pruned.parameters()) / before
    assert abs(kept - 0.9) < 0.02 and abs(metrics["ratio_actual"] - (1 - kept)) < 1e-6
    assert torch.isfinite(pruned(windows).logits).all()
