"""Memory that a process keeps: training spares the page faults of tensors that come and go.

PyTorch allocates and frees the same large tensors at every step. By default glibc hands many of
them back to the system, which then clears every page again. For Dask's workers, which are started
with a low trim threshold, that was a third of the time of a natural step on one core
(`benchmarks/memory.py`, `results/memory.txt`). Kept memory changes no result.
"""

import ctypes
from contextlib import suppress

TOP_PAD = 2**28
"""Bytes by which the heap grows at a time."""

KEPT = {
    "MALLOC_ARENA_MAX": 1,
    "MALLOC_MMAP_MAX_": 0,
    "MALLOC_TRIM_THRESHOLD_": 2**40,
    "MALLOC_TOP_PAD_": TOP_PAD,
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What a process that is started with this environment keeps; large pages where there are any."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Let this process keep what it frees; of no effect without glibc.

    Call it before threads begin, for each that has allocated keeps its own part of the heap.
    """
    with suppress(OSError, AttributeError):  # no glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_TRIM_THRESHOLD, -1)
        libc.mallopt(_TOP_PAD, TOP_PAD)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_ARENA_MAX, 1)
