"""Files that are either whole or not there."""

import os
from pathlib import Path

from rmr_gym.errors import RMRError


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a file beside its final name, flush it to the disk and rename it into place.

    Args:
        path: Where the file goes; missing folders are made.
        content: Bytes, or text to be stored as UTF-8.

    Returns:
        The path.

    Raises:
        RMRError: If the file cannot be written; what was there before is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise RMRError(
            f"cannot write {path}: {error.strerror or error}; give an output folder that can be "
            "written to and has room"
        ) from error
    return path
