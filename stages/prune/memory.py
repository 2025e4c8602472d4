"""Return freed memory to the operating system."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
LARGE = 2**20  # bytes


def return_freed_memory() -> None:
    """Return what is free, and from now on let every large tensor have memory mapped for it alone, unmapped with it.

    glibc raises the threshold for that to 32 MiB once such tensors are freed. The gradient of a matrix of TinyLlama in
    bfloat16 is 22 MiB: its memory would stay with the process, in holes that others do not fill. A few small tensors'
    memory is kept, or the blocks of one loop would be given back and asked for again at every turn. Elsewhere than on
    glibc nothing is done.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
        library.mallopt(M_TRIM_THRESHOLD, 8 * LARGE)
