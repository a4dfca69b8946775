"""Recorded data sets: what is in one, and its columns in memory."""

import hashlib
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int, Int64

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.types import FrameTransform
from rmr_gym.data import schema
from rmr_gym.data.reader import (
    Batch,
    Chosen,
    EpisodeInfo,
    TransitionReader,
    positions,
    read_column,
    read_info,
    transition_rows,
    verify_episode,
)
from rmr_gym.data.schema import Episode

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Loaded:
    columns: Mapping[str, Any]
    current: Any
    episode: Any

    def __getitem__(self, name: str) -> Any:
        if name not in self.columns:
            raise RMRError(
                f"column {name!r} was not loaded, only {', '.join(self.columns)}: name it in "
                "load(columns=...)"
            )
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.current)


@dataclass(frozen=True)
class TensorTransitions(_Loaded):
    """What `Transitions` holds, as tensors of one device."""

    columns: Mapping[str, "torch.Tensor"]
    current: "torch.Tensor"
    episode: "torch.Tensor"


@dataclass(frozen=True)
class Transitions(_Loaded):
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
        steps = np.searchsorted(self.current, rows)
        inside = np.minimum(steps, len(self) - 1)
        if not (len(self) or not rows.size) or (self.current[inside] != rows).any():
            raise RMRError(
                "expected rows that a step leaves, found the last observation of an episode or a "
                "row that is not there: leave out the last row of each window"
            )
        return steps.astype(np.int64)

    def to(self, device: str) -> TensorTransitions:
        """Return everything as torch tensors on a device, for instance ``"cuda"``.

        On the CPU the tensors share their memory with the arrays.

        Raises:
            RMRError: PyTorch cannot use the device.
        """
        import torch  # noqa: PLC0415

        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise RMRError(
                f"expected a device that PyTorch can use, found {device!r} "
                f"({str(error).splitlines()[0]}): choose cpu, or cuda where there is one"
            ) from error
        moved = {name: torch.from_numpy(array).to(device) for name, array in self.columns.items()}
        rows = (torch.from_numpy(array).to(device) for array in (self.current, self.episode))
        return TensorTransitions(moved, *rows)


class TransitionDataset:
    """A recorded data set, read from its folder.

    Opening it reads the manifest and the attributes of every episode; columns are read by `load`,
    `batch` and `episode`. Episodes that appear later, because a recorder still writes, are not
    seen (`rmr_gym.data.verify.being_written` tells); what was opened stays readable.

    Args:
        path: Folder of the data set.
        verify: Read everything and compare it with its checksums.

    Raises:
        RMRError: There is no data set, its format is newer, or a file is truncated, foreign or
            damaged.

    Example:
        >>> dataset = TransitionDataset("pong")  # doctest: +SKIP
        >>> loaded = dataset.load(columns=("pixels", "action"))  # doctest: +SKIP
        >>> loaded["pixels"][loaded.current[0]].shape  # doctest: +SKIP
        (210, 160)
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = False):
        self.path = Path(path)
        self.manifest = schema.read_manifest(self.path)
        there = schema.episode_indices(self.path)
        self.episodes = [read_info(schema.episode_path(self.path, index)) for index in there]
        if missing := schema.missing_indices(there):
            _log.warning("%s has no episode %s", self.path, ", ".join(map(str, missing)))
        self._readers: dict[tuple[str, ...], TransitionReader] = {}
        if verify:
            self.verify()

    @property
    def fingerprint(self) -> str:
        """Sha256, in hex, of the checksums of all episodes in order."""
        return hashlib.sha256("".join(e.checksum for e in self.episodes).encode()).hexdigest()

    def __len__(self) -> int:
        return sum(episode.length for episode in self.episodes)

    def stored_bytes(self) -> int:
        """Return the size of the episodes' files."""
        return sum(e.path.stat().st_size for e in self.episodes)

    def raw_bytes(self) -> int:
        """Return the size of all columns in memory."""
        return sum(
            math.prod(column.shape, start=column.stored.itemsize)
            * sum(self.manifest.rows(name, episode.length) for episode in self.episodes)
            for name, column in self.manifest.columns.items()
        )

    def __repr__(self) -> str:
        title = self.manifest.game or self.manifest.env_id or "unregistered environment"
        heads = len({episode.head for episode in self.episodes})
        lines = [
            f"TransitionDataset({str(self.path)!r}): {title}, {len(self.episodes)} episodes "
            f"by {heads} {'head' if heads == 1 else 'heads'}, {len(self)} transitions"
        ]
        for name, column in self.manifest.columns.items():
            shape = ", ".join(
                ["T" if name in schema.STEP_COLUMNS else "T + 1", *map(str, column.shape)]
            )
            encoding = "" if column.encoding == "raw" else f" {column.encoding}"
            lines.append(f"  {name:<12}{column.dtype}[{shape}]{encoding}")
        return "\n".join(lines)

    def require_game(self, game: str) -> None:
        """Make sure that the data set is of a game, named as in `rmr_gym.envs.atari.games.GAMES`.

        Raises:
            RMRError: It is of another one, or of none.
        """
        if self.manifest.game != game:
            raise RMRError(
                f"expected a data set of {game}, found one of "
                f"{self.manifest.game or 'no Atari game'} in {self.path}: record {game}, or choose "
                "another folder"
            )

    def load(
        self,
        columns: Sequence[str],
        episodes: Chosen | None = None,
        *,
        transform: FrameTransform | None = None,
    ) -> Transitions:
        """Read columns of some episodes into memory; nothing else is read from the files.

        Args:
            columns: Names of the columns.
            episodes: Positions in `episodes`, in the order wanted, or a mask of them; None for all.
            transform: Applied to the pixels of each episode as they are read, uint8[T + 1, height,
                width] to an array of as many rows, for instance palette indices to small gray
                frames. The frames of one episode at a time are held in full size.

        Raises:
            RMRError: There is no such column or episode, or a file is damaged.
        """
        self._require(columns)
        chosen = self._chosen(episodes)
        arrays = {
            name: self._load_column(name, chosen, transform if name == "pixels" else None)
            for name in dict.fromkeys(columns)
        }
        return Transitions(arrays, *transition_rows([info.length for info in chosen]))

    def reader(self, columns: Sequence[str], episodes: Chosen | None = None) -> TransitionReader:
        """Return random access to columns of some episodes, for data sets larger than memory.

        Args:
            columns: Names of the columns.
            episodes: Positions in `episodes`, or a mask of them; None for all.

        Raises:
            RMRError: There is no such column or episode.
        """
        self._require(columns)
        return TransitionReader(self.manifest, self._chosen(episodes), columns)

    def batch(
        self,
        indices: Int[np.ndarray, " batch"] | Bool[np.ndarray, " transitions"],
        columns: Sequence[str],
    ) -> Batch:
        """Read transitions of the whole data set from disk; only the chunks that hold them.

        Args:
            indices: Which of the ``len(dataset)`` transitions, in any order, or a mask of them.
            columns: Names of the columns.

        Raises:
            RMRError: There is no such column or transition, or a file is damaged.
        """
        key = tuple(columns)
        if key not in self._readers:
            self._readers[key] = self.reader(columns)
        return self._readers[key].batch(indices)

    def episode(self, position: int) -> Episode:
        """Read one whole episode.

        Args:
            position: Its position in `episodes`.

        Raises:
            RMRError: There is no such episode, or its file is damaged.
        """
        (info,) = self._chosen([position])
        columns = {name: self._load_column(name, [info], None) for name in self.manifest.columns}
        steps = [columns.pop(name) for name in schema.STEP_COLUMNS]
        return Episode(
            info.index, info.seed, info.head, columns, *steps, interrupted=info.interrupted
        )

    def by_episode(self, column: str, episodes: Chosen | None = None) -> Iterator[np.ndarray]:
        """Return a column of one episode after the other; one at a time is in memory.

        Args:
            column: Its name.
            episodes: Positions in `episodes`, in the order wanted, or a mask of them; None for all.

        Raises:
            RMRError: There is no such column or episode, or a file is damaged.
        """
        self._require([column])
        return (self._load_column(column, [info], None) for info in self._chosen(episodes))

    def verify(self) -> None:
        """Read every column of every episode and compare it with its checksum.

        Raises:
            RMRError: A file does not hold what was written; the message names it.
        """
        for info in self.episodes:
            verify_episode(info, self.manifest)

    def _require(self, columns: Sequence[str]) -> None:
        for name in columns:
            if name not in self.manifest.columns:
                raise unknown_name("column", name, self.manifest.columns)

    def _chosen(self, episodes: Chosen | None) -> list[EpisodeInfo]:
        if episodes is None:
            return self.episodes
        mend = f" in {self.path}: record more episodes or ask for fewer"
        chosen = positions(episodes, len(self.episodes), "positions of episodes", mend)
        return [self.episodes[position] for position in chosen]

    def _load_column(
        self, name: str, chosen: Sequence[EpisodeInfo], transform: FrameTransform | None
    ) -> np.ndarray:
        spec = self.manifest.columns[name]
        lengths = [self.manifest.rows(name, info.length) for info in chosen]
        out = None if transform and chosen else np.empty((sum(lengths), *spec.shape), spec.dtype)
        for info, length, end in zip(chosen, lengths, np.cumsum(lengths), strict=True):
            if transform:
                rows = _transformed(read_column(info.path, spec, length), transform)
                out = np.empty((sum(lengths), *rows.shape[1:]), rows.dtype) if out is None else out
                out[end - length : end] = rows
            elif out is not None:
                read_column(info.path, spec, length, out[end - length : end])
        assert out is not None
        return out


def _transformed(frames: np.ndarray, transform: FrameTransform) -> np.ndarray:
    rows = transform(frames)
    if len(rows) != len(frames):
        raise RMRError(
            f"expected a transform that keeps the {len(frames)} frames of an episode, got "
            f"{len(rows)} rows"
        )
    return rows
