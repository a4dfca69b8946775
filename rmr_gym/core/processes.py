"""Processes: the memory that one keeps, and workers that do not outlive who started them.

Kept memory spares training the page faults of tensors that come and go. PyTorch allocates and frees
the same large tensors at every step. By default glibc hands many of them back to the system, which
then clears every page again. For Dask's workers, which are started with a low trim threshold, that
was a third of the time of a natural step on one core (`benchmarks/memory.py`,
`results/memory.txt`). Kept memory changes no result.
"""

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import starmap
from multiprocessing import current_process, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import RMRError, whole_number
from rmr_gym.core.files import end_process


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Let Ctrl-C wait until this ends, in a main thread whose handler is Python's.

    h5py's objects are dropped by weak references, in which Python swallows a KeyboardInterrupt.
    """
    handler, met = signal.getsignal(signal.SIGINT), []
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    signal.signal(signal.SIGINT, lambda *arguments: met.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if met:
            handler(*met[0])


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


def processor_lines(*names: str) -> list[str]:
    """Return the lines of /proc/cpuinfo that begin so; none where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line for line in lines if line.startswith(names)]


def worker_context() -> SpawnContext:
    """Return what starts processes; they do not look for a script that was read from a pipe.

    Raises:
        RMRError: This process is daemonic, and may not start others.
    """
    if current_process().daemon:
        raise RMRError(
            "expected a process that may start others, found a daemonic one, as those of a pool "
            "are: ask for workers=0 here, or start this process with daemon=False"
        )
    main = sys.modules["__main__"]
    if main.__dict__.get("__file__") == "<stdin>":
        del main.__file__
    return get_context("spawn")


def in_processes(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], processes: int, what: str
) -> Iterator[Any]:
    """Call a function of a module once for each of ``calls`` and yield the results as they come.

    Args:
        function: What is called; it and its arguments must be such that processes can pass them.
        calls: The arguments of each call.
        processes: Number of worker processes; of 1, or for one call, this one is it.
        what: What they did, for the message if one dies, for instance "recorded into pong".

    Raises:
        RMRError: A worker died, or there shall be none.
    """
    if min(whole_number("workers", processes, 1), len(calls)) < 2:
        yield from starmap(function, calls)
        return
    context = worker_context()
    lifeline, hold = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(processes, len(calls)), context, initializer=_end_with, initargs=(lifeline,)
    )
    try:
        with _no_interrupt():
            futures = [pool.submit(function, *call) for call in calls]
        for process in pool._processes.values():  # else a pool that broke ends them amid a file
            process.terminate = lambda: None
        for future in as_completed(futures):
            yield future.result()
        pool.shutdown()
    except BrokenProcessPool as error:
        raise RMRError(
            f"a process that {what} died (killed, out of memory, or started by a "
            'script without `if __name__ == "__main__":`); what was finished is kept: run '
            "again to do the rest, with fewer workers if memory was short"
        ) from error
    finally:
        hold.close()
        lifeline.close()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back, also from processes that are started in here.

    One that died of it before `_end_with` would break the pool, which then kills the others in the
    middle of a file.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(lifeline: Connection) -> None:
    """End this process when the one that started it closes its end or dies; leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait_for_the_end() -> None:
        lifeline.poll(None)
        end_process(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
