"""The log of one cell: what its thread prints and warns, and where it was when it crashed."""

import faulthandler
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from rmr_gym.core.files import os_errors


@contextmanager
def cell_log(path: Path, title: str) -> Iterator[Callable[[str], int]]:
    """Append to a log file what this thread writes to stdout and stderr; others are left alone.

    Warnings count, and so does the stack of Python where a signal such as a segmentation fault ends
    the process. Lines are in the file as soon as they are written.

    Args:
        path: The file; made if missing.
        title: First line.

    Yields:
        A function that writes a text to the log.

    Raises:
        RMRError: The file cannot be opened.
    """
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
    with log:
        write = _ByThread(log, log).write
        write(f"--- {title}\n")
        stdout: Any = _ByThread(log, sys.stdout)
        stderr: Any = _ByThread(log, sys.stderr)
        with (
            redirect_stdout(stdout),
            redirect_stderr(stderr),
            warnings.catch_warnings(),  # so that each cell's log has its warnings, not the first's
            _crash_report(log),
        ):
            yield write


class _ByThread:
    """A stream that goes to the log for the thread that made it, elsewhere for all others."""

    def __init__(self, log: Any, other: Any):
        self._log, self._other, self._thread = log, other, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() != self._thread:
            return self._other.write(text)
        with suppress(OSError):  # a full disk must not fail a cell that only prints
            self._log.write(text)
        return len(text)

    def flush(self) -> None:
        if threading.get_ident() != self._thread:
            self._other.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)


@contextmanager
def _crash_report(log: Any) -> Iterator[None]:
    if faulthandler.is_enabled():
        yield
        return
    faulthandler.enable(log)
    try:
        yield
    finally:
        faulthandler.disable()
