"""The processes that run a stage together, each with a share of the data; a single process has nothing to exchange.

Every process makes the same decisions from the same sums. Only the first one writes.
"""

import os
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")
repeated = False  # set once: each process does all the work, since sharded weights take all of them for every pass
PATIENCE = timedelta(hours=2)  # one process may load or save for long while the others wait for it


def connect() -> dist.Store:
    """Join the other processes, as torchrun's environment says; return the store that all of them see."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    store, own, count = next(iter(dist.rendezvous("env://", timeout=PATIENCE)))
    # Without a name: gloo for tensors on the CPU, NCCL for those on a GPU.
    dist.init_process_group(store=store, rank=own, world_size=count, timeout=PATIENCE)
    return store


def size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Return this process's number on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first() -> bool:
    """Return whether this is the process that writes."""
    return rank() == 0


def repeat() -> None:
    """Let every process do all the work from now on: `share` returns everything."""
    global repeated
    repeated = True


def share(items: list[Item]) -> list[Item]:
    """Return this process's items: every size-th, so that neighbours of similar cost are dealt out evenly."""
    return items if repeated else items[rank() :: size()]


def collect(mine: list[Item]) -> list[Item]:
    """Return the items of all processes in the order that `share` took them from; items are pickled in memory only."""
    if size() == 1 or repeated:
        return mine
    shares: list[Any] = [None] * size()
    dist.all_gather_object(shares, mine)
    return [shares[index % size()][index // size()] for index in range(sum(map(len, shares)))]


def add_up(tensor: torch.Tensor) -> torch.Tensor:
    """Replace `tensor` by its sum over the processes, the same bits in each, and return it."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def total(number: int) -> int:
    """Return the sum of a number over the processes."""
    return int(add_up(torch.tensor(number)))


def add_up_gradients(parameters: list[torch.Tensor]) -> None:
    """Replace the gradient of every parameter by its sum over the processes; one without any counts as zero."""
    if size() == 1:
        return
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    whole = add_up(torch.cat([each.flatten() for each in gradients]))
    for parameter, part in zip(parameters, whole.split([each.numel() for each in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)


def disconnect() -> None:
    """Leave the other processes."""
    dist.destroy_process_group()
