"""Who may write to the folder of a data set."""

from contextlib import suppress
from pathlib import Path

from rmr_gym.core.errors import RMRError

try:
    import fcntl
except ImportError:
    fcntl = None


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
