"""Batches of transitions read from disk, where a data set does not fit in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from rmr_gym.core.errors import RMRError
from rmr_gym.data.episode_reader import ColumnReader
from rmr_gym.data.schema import Manifest
from rmr_gym.data.transitions import transition_rows


@dataclass(frozen=True)
class Batch:
    """Some transitions, one a row, in the order that was asked for.

    Attributes:
        before: By column, the observations before the steps.
        after: By column, the observations after the steps.
        steps: By column, the actions, rewards and flags.
    """

    before: Mapping[str, np.ndarray]
    after: Mapping[str, np.ndarray]
    steps: Mapping[str, np.ndarray]


class TransitionReader:
    """Random access to the transitions of some episodes, made by `TransitionDataset.reader`.

    It has the ``current`` and ``episode`` of a `Transitions`, so that
    `rmr_gym.data.sampling.batch_indices` can draw from it. Data loader workers may use it, forked
    or spawned.

    Args:
        manifest: Of the data set.
        paths: Files of the episodes.
        lengths: Their steps.
        columns: Names of the columns to read.

    Example:
        >>> reader = dataset.reader(("pixels", "action"), episodes=train)  # doctest: +SKIP
        >>> indices = batch_indices(reader, 50, seed=0, stream="natural", step=0)  # doctest: +SKIP
        >>> batch = reader.batch(indices)  # doctest: +SKIP
        >>> batch.before["pixels"].shape  # doctest: +SKIP
        (50, 210, 160)
    """

    def __init__(
        self,
        manifest: Manifest,
        paths: Sequence[Path],
        lengths: Sequence[int],
        columns: Sequence[str],
    ):
        self.current, self.episode = transition_rows(lengths)
        rows = [length + 1 for length in lengths]
        self._observations = {
            spec.name: ColumnReader(paths, spec, rows)
            for spec in manifest.observations
            if spec.name in columns
        }
        self._steps = {
            spec.name: ColumnReader(paths, spec, lengths)
            for spec in manifest.steps
            if spec.name in columns
        }

    def __len__(self) -> int:
        return len(self.current)

    def batch(self, indices: Int[np.ndarray, " batch"]) -> Batch:
        """Read transitions; only the chunks that hold them are decompressed.

        Raises:
            RMRError: There is no such transition, or a file is damaged.
        """
        count = len(indices)
        if count and not 0 <= indices.min() <= indices.max() < len(self):
            raise RMRError(f"expected transitions from 0 to {len(self) - 1}, found some outside")
        first = self.current[indices]
        both = np.concatenate([first, first + 1])
        pairs = {name: reader.read(both) for name, reader in self._observations.items()}
        return Batch(
            before={name: rows[:count] for name, rows in pairs.items()},
            after={name: rows[count:] for name, rows in pairs.items()},
            steps={name: reader.read(indices) for name, reader in self._steps.items()},
        )
