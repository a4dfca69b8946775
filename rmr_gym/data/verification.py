"""Looking over a whole data set: what is damaged, what is missing, who is writing."""

import os
from collections.abc import Callable
from pathlib import Path

from rmr_gym.core.errors import RMRError
from rmr_gym.data.episode_reader import read_info, verify_episode
from rmr_gym.data.schema import Manifest, episode_indices, episode_path, read_manifest
from rmr_gym.data.storage import lock
from rmr_gym.data.writer import LOCK


def find_problems(
    path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Read a whole data set against its checksums and return what is wrong, one text an episode.

    An episode is missing where one with a higher number is there. While a recorder writes, episodes
    may be missing only because it has not finished them yet.

    Args:
        path: Folder of the data set.
        progress: Called with (episodes that were read, episodes that are there).

    Raises:
        RMRError: There is no data set, or its manifest cannot be read.
    """
    root = Path(path)
    manifest, there = read_manifest(root), episode_indices(root)
    problems = {
        index: f"{episode_path(root, index)} is missing: episode {index} was not recorded, or its "
        "file was lost; recording again with the same arguments adds it"
        for index in set(range(max(there, default=-1))) - set(there)
    }
    for done, index in enumerate(there, 1):
        problem = _problem(root, index, manifest)
        if problem is not None:
            problems[index] = f"episode {index}: {problem}"
        if progress is not None:
            progress(done, len(there))
    return [problems[index] for index in sorted(problems)]


def being_written(path: str | os.PathLike[str]) -> bool:
    """Return whether a recorder has the data set open, so that episodes may still appear.

    Always False where the system has no file locks, and of a folder without a lock file.
    """
    try:
        descriptor = os.open(Path(path) / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        lock(descriptor, Path(path), must_be_alone=True)
    except RMRError:
        return True
    finally:
        os.close(descriptor)
    return False


def _problem(root: Path, index: int, manifest: Manifest) -> str | None:
    path = episode_path(root, index)
    try:
        verify_episode(path, read_info(path), manifest)
    except RMRError as error:
        return str(error)
    return None
