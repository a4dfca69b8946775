"""Worker processes, none of which outlives the process that started them."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import end_process


def in_processes(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], processes: int, what: str
) -> Iterator[Any]:
    """Call a function of a module once for each of ``calls`` and yield the results as they come.

    Args:
        function: What is called; it and its arguments must be such that processes can pass them.
        calls: The arguments of each call.
        processes: Number of worker processes.
        what: What they did, for the message if one dies, for instance "recorded into pong".

    Raises:
        RMRError: A worker died.
    """
    context = get_context("spawn")
    lifeline, hold = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_end_with, initargs=(lifeline,)
    )
    try:
        with _no_interrupt():
            futures = [pool.submit(function, *call) for call in calls]
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
