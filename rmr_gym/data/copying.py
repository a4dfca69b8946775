"""Writing episodes that come from elsewhere: again after an interruption, never over others."""

import os
from collections.abc import Callable, Sequence

import numpy as np

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Episode, Manifest
from rmr_gym.data.writer import DatasetWriter

Progress = Callable[[int, int], None]


def copy_episodes(
    path: str | os.PathLike[str],
    manifest: Manifest,
    indices: Sequence[int],
    read: Callable[[int], Episode],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransitionDataset:
    """Write episodes to a data set, one at a time; go on where an earlier run was interrupted.

    Each appears as a whole or not at all. Those that are there already stay, and must be the same.

    Args:
        path: Folder of the data set.
        manifest: Of the data set.
        indices: Numbers of the episodes.
        read: Returns the episode of a number; one at a time is held in memory.
        overwrite: Delete the data set that is there first.
        progress: Called with (episodes that are there, episodes that shall be).

    Raises:
        RMRError: The folder holds something else or other episodes, or cannot be written.
    """
    with DatasetWriter(path, manifest, overwrite=overwrite, exclusive=True) as writer:
        there = TransitionDataset(path)
        for position, info in enumerate(there.episodes):
            if info.index not in indices or not _same(read(info.index), there.episode(position)):
                raise RMRError(
                    f"{there.path} holds another episode {info.index} than would be written: "
                    "choose another folder, or overwrite it with --force"
                )
        missing = sorted(set(indices) - {info.index for info in there.episodes})
        for done, index in enumerate(missing, len(there.episodes) + 1):
            writer.write(read(index))
            if progress is not None:
                progress(done, len(indices))
    return TransitionDataset(path)


def _same(one: Episode, other: Episode) -> bool:
    names = ("seed", "head", "interrupted")
    here, there = _columns(one), _columns(other)
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and here.keys() == there.keys()
        and all(here[name].tobytes() == there[name].tobytes() for name in here)
    )


def _columns(episode: Episode) -> dict[str, np.ndarray]:
    return {
        **episode.observations,
        "action": episode.actions,
        "reward": episode.rewards,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
    }
