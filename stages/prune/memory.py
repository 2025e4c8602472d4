"""Memory that a pruned model no longer needs goes back to the system."""

import ctypes

M_MMAP_THRESHOLD = -3  # malloc.h of glibc
LARGE = 2**20  # bytes


def return_freed_memory() -> None:
    """Let every large tensor have memory mapped for it alone, which is unmapped when it is freed.

    glibc raises the threshold for that to 32 MiB once such tensors are freed. A matrix of TinyLlama in bfloat16 is 22
    MiB: its memory would stay with the process, in holes that the smaller matrix does not fill. Elsewhere than on glibc
    nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
