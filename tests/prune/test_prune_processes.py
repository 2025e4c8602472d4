"""Two processes that share the calibration windows prune as one does: every statistic is a sum over windows."""

import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, prune_params, tiny_experts, tiny_llama
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from stages.common import processes
from stages.common.errors import UserError
from stages.models.prunable import block_modules
from stages.prune.activations import Activations
from stages.prune.pruning import prune
from stages.prune.sharing import check_shared

EVERY_LAYER = {"attention_layers": [0, 3], "mlp_layers": [0, 3], "ratio": 0.4}
# Each statistic once: Hessians towards the dense model, moments, shares of zeros, gradients and their squares, cosines,
# the stream's moments, sums over the tokens of an expert.
CASES = {
    "best": {"ratio_of": "parameters"},
    "flap": {"allocation": "uniform"},  # two heads that are standardised tie
    "activity": {},
    "taylor": {"taylor": "param_mix"},
    "layer_taylor": {},
    "sparsegpt": {"pattern": "row"},
    "sparsegpt_realign": {"pattern": "2:4", "ratio": 0.5},
    "adapt": {},
    "channel_norm": {"attention_layers": "auto", "mlp_layers": "auto"},
    "channel_realign": {"attention_layers": "auto", "mlp_layers": "auto"},
    "reap": {},
    "svd_llm": {"allocation": "global", "update": "realign"},
}
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from stages.common import processes
from test_prune_processes import write_pruned
processes.connect()
write_pruned(sys.argv[2])
processes.disconnect()
"""


def write_pruned(file: str) -> None:
    """Prune a model by every case on this process's share of five windows; the first process writes all weights."""
    torch.set_num_threads(1)
    windows = torch.randint(0, 64, (5, 40), generator=torch.Generator().manual_seed(3))
    mine, pruned = windows.tensor_split(processes.size())[processes.rank()], {}
    for method, changes in CASES.items():
        model = tiny_experts("mixtral") if method == "reap" else tiny_llama()
        model, _ = prune(model, mine, prune_params(method=method, **(EVERY_LAYER | changes)))
        pruned |= {f"{method} {name}": weight.contiguous() for name, weight in model.state_dict().items()}
    mixture = tiny_experts("mixtral")
    activations = Activations(mixture, mine)
    for module in block_modules(mixture, range(3), range(3)):  # of single experts: those of the tokens sent to each
        pruned[f"moments of {module.name}"] = torch.stack(activations.inputs(module).moments)
    if processes.is_first():
        save_file(pruned, file)


@pytest.mark.slow
def test_two_processes_prune_as_one(tmp_path):
    write_pruned(str(tmp_path / "one"))
    (tmp_path / "program.py").write_text(PROGRAM)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(tmp_path / "program.py"), str(ROOT / "tests/prune"), str(tmp_path / "two")]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *launcher, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert {name: weight.shape for name, weight in one.items()} == {name: weight.shape for name, weight in two.items()}
    assert_close(two, one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "knapsack"}, "prune.allocation = sensitivity"),
        ({"method": "best", "budget": "12 ms", "ratio_of": "parameters"}, "prune.budget = 12 ms"),
        ({"calibration": {"windows": 1, "length": 16}}, "prune.calibration.windows = 1 is less than run.processes = 2"),
    ],
)
def test_what_processes_cannot_share_is_refused_by_name(changes, named):
    check_shared(prune_params(**changes), 1)
    with pytest.raises(UserError, match=named):
        check_shared(prune_params(**changes), 2)
