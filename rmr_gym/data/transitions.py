"""Columns of some episodes in memory, and where their transitions and windows lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from rmr_gym.core.errors import RMRError

if TYPE_CHECKING:
    from rmr_gym.data.tensors import TensorTransitions


@dataclass(frozen=True)
class Transitions:
    """Columns of some episodes, each in one array, and where its transitions lie in them.

    ``transitions[name]`` is the column ``name``: observations have T + 1 rows an episode of T
    steps, one episode after another; actions, rewards and flags have T.

    Attributes:
        columns: The columns that were loaded.
        current: For each transition, the row of the observation before it; the one after it is in
            the next row.
        episode: For each transition, the position of its episode among those that were loaded.

    Example:
        >>> before = transitions["ram"][transitions.current]  # doctest: +SKIP
        >>> after = transitions["ram"][transitions.current + 1]  # doctest: +SKIP
    """

    columns: Mapping[str, np.ndarray]
    current: Int64[np.ndarray, " transitions"]
    episode: Int64[np.ndarray, " transitions"]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise RMRError(
                f"column {name!r} was not loaded, only {', '.join(self.columns)}: name it in "
                "load(columns=...)"
            )
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.current)

    def __repr__(self) -> str:
        shapes = (
            f"{name}: {array.dtype}{list(array.shape)}" for name, array in self.columns.items()
        )
        episodes = len(np.unique(self.episode))
        return f"Transitions({len(self)} of {episodes} episodes, {', '.join(shapes)})"

    def windows(self, length: int, stride: int = 1) -> Int64[np.ndarray, "windows {length}"]:
        """Return the rows of every ``length`` successive observations of one episode.

        None crosses an episode; an episode that is too short has none. Three past frames and one
        to predict are ``windows(4)``: ``frames = transitions["pixels"][windows]``.

        Args:
            length: Observations in a window, 1 or more.
            stride: Rows from the start of a window to that of the next in the same episode.

        Raises:
            RMRError: ``length`` or ``stride`` is below 1.
        """
        for name, value in (("length", length), ("stride", stride)):
            if value < 1:
                raise RMRError(f"expected windows of a {name} of 1 or more, found {value}")
        rows = np.bincount(self.episode) + 1
        firsts = np.cumsum(rows) - rows
        starts = [
            np.arange(first, first + count - length + 1, stride)
            for first, count in zip(firsts, rows, strict=True)
        ]
        joined = np.concatenate([np.empty(0, np.int64), *starts]).astype(np.int64)
        return joined[:, None] + np.arange(length)

    def steps(self, rows: Int64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
        """Return the transition that leaves each row: where its action, reward and flags are.

        ``transitions["action"][transitions.steps(windows[:, :-1])]`` are the actions between the
        observations of windows.

        Raises:
            RMRError: A row is the last of its episode, which no step leaves, or is not there.
        """
        found = np.searchsorted(self.current, rows)
        inside = np.minimum(found, len(self) - 1)
        if not (len(self) or not rows.size) or (self.current[inside] != rows).any():
            raise RMRError(
                "expected rows that a step leaves, found the last observation of an episode or a "
                "row that is not there: leave out the last row of each window"
            )
        return found.astype(np.int64)

    def to(self, device: str) -> "TensorTransitions":
        """Return everything as torch tensors on a device, for instance ``"cuda"``.

        On the CPU the tensors share their memory with the arrays.

        Raises:
            RMRError: PyTorch cannot use the device.
        """
        from rmr_gym.data.tensors import to_device  # noqa: PLC0415

        return to_device(self, device)


def transition_rows(
    lengths: Sequence[int],
) -> tuple[Int64[np.ndarray, " transitions"], Int64[np.ndarray, " transitions"]]:
    """Return `Transitions.current` and `Transitions.episode` of episodes of so many steps."""
    steps = np.array(lengths, dtype=np.int64)
    episode = np.repeat(np.arange(len(steps), dtype=np.int64), steps)
    return np.arange(steps.sum(), dtype=np.int64) + episode, episode
