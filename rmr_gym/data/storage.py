"""Files that are there as a whole or not at all, and who may write to a folder."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rmr_gym.errors import RMRError

try:
    import fcntl
except ImportError:
    fcntl = None

TEMPORARY = ".tmp"
"""How the names of files end that are not finished; a finished file never has such a name."""


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, and make sure that it outlasts a power loss."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def lock(descriptor: int, path: Path, *, must_be_alone: bool) -> bool:
    """Lock the data set in ``path`` for a writer by its lock file.

    Args:
        descriptor: Of the lock file.
        path: Folder of the data set.
        must_be_alone: Whether to refuse to write beside others.

    Returns:
        Whether no other writer is there; False also where the system has no file locks.

    Raises:
        RMRError: Another writer is there and does not allow it.
    """
    if fcntl is None:
        return False
    try:
        if _locked(descriptor, fcntl.LOCK_EX):
            return True
        beside_others = not must_be_alone and _locked(descriptor, fcntl.LOCK_SH)
    except OSError:
        return False
    if not beside_others:
        raise RMRError(
            f"{path} is being written by another recorder: close it or wait for its end, or choose "
            "another folder"
        )
    return False


def share(descriptor: int) -> None:
    """Let other writers in beside the one that holds the lock."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)


def _locked(descriptor: int, kind: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn what the system refuses while ``path`` is written into one clear error."""
    try:
        yield
    except OSError as error:
        raise RMRError(
            f"cannot write {path}: {error.strerror or error}; finished episodes are unharmed: "
            "make room or choose a folder that can be written, then run again"
        ) from error
