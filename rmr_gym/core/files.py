"""Files that are there as a whole or not at all."""

import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rmr_gym.core.errors import RMRError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

AnyPath = str | os.PathLike[str]

_writing = threading.Lock()


class WriteError(RMRError):
    """A file cannot be written; nothing else could be either, so long work should end."""


TEMPORARY = ".tmp"
"""How the names of files end that are not finished; a finished file never has such a name."""


def require_free(folder: AnyPath, overwrite: bool) -> Path:
    """Return a folder that may be written.

    Raises:
        RMRError: Something is there.
    """
    if Path(folder).exists() and not overwrite:
        raise RMRError(
            f"{folder} exists already: choose another one or replace it (--force, overwrite=True)"
        )
    return Path(folder)


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a file with `write_file`, making missing folders.

    Args:
        path: Where the file goes.
        content: Bytes, or text to be stored as UTF-8.

    Returns:
        The path.

    Raises:
        RMRError: If the file cannot be written; what was there before is untouched.
    """
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content.encode() if isinstance(content, str) else content)
    return path


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, and make sure that it outlasts a power loss."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}{TEMPORARY}")
    with _writing:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def end_process(status: int, patience: float = 10.0) -> NoReturn:
    """End this process at once, but not in the middle of a file that another thread writes.

    Args:
        status: What the process ends with.
        patience: Seconds after which it ends even so, for instance where a disk hangs.
    """
    _writing.acquire(timeout=patience)
    os._exit(status)


def sync_folder(folder: Path) -> None:
    """Make sure that renames in a folder, or a file's bytes, outlast a power loss, where it can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool | None:
    """Lock an open file for this process, in the place of a lock that it has.

    Args:
        descriptor: Of the file.
        shared: Whether others may hold such a lock beside this one.
        wait: Wait until no other process is in the way.

    Returns:
        Whether the lock is held; None where the system or the file system has no locks.
    """
    if fcntl is None:
        return None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def alone(path: Path, busy: str | None = None) -> Iterator[None]:
    """Wait until no other process is in here with the same path; a killed one does not count.

    Where the system or the file system has no locks, nobody waits.

    Args:
        path: A file that is made for it, and may be deleted once nobody needs to wait.
        busy: What to say instead of waiting; None: wait.

    Raises:
        RMRError: The file cannot be made, or another process is in here and ``busy`` is given.
    """
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        if lock(descriptor, wait=busy is None) is False:
            raise RMRError(str(busy))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def replacing(final: Path, *, wait: bool = False) -> Iterator[Path]:
    """Give a hidden folder that takes the place of ``final`` when all has been written.

    What a killed process left in it is removed by the next one that writes the same folder.

    Args:
        final: The folder.
        wait: Wait for another process that writes it, rather than refuse.

    Raises:
        RMRError: It cannot be written, or another process writes it.
    """
    hidden, old = (final.with_name(f".{final.name}{end}{TEMPORARY}") for end in ("", ".old"))
    lock_file = hidden.with_name(f"{hidden.name}.lock")
    busy = f"{final} is being written by another process: wait for its end or choose another folder"
    with os_errors(final), alone(lock_file, None if wait else busy):
        try:
            shutil.rmtree(hidden, ignore_errors=True)
            hidden.mkdir()
            yield hidden
            for path in (*hidden.rglob("*"), hidden):
                sync_folder(path)
            shutil.rmtree(old, ignore_errors=True)
            if final.exists():
                final.rename(old)
            hidden.rename(final)
            sync_folder(final.parent)
        finally:
            for leftover in (hidden, old):
                shutil.rmtree(leftover, ignore_errors=True)
            lock_file.unlink(missing_ok=True)


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn what the system refuses while ``path`` is written into one clear error."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror or error}; what was finished is unharmed: make "
            "room or choose a folder that can be written, then run again"
        ) from error
