"""Reading recorded data sets."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from rmr_gym.data.episode_reader import EpisodeInfo, read_column, read_info, verify_episode
from rmr_gym.data.schema import ColumnSpec, episode_indices, episode_path, read_manifest
from rmr_gym.errors import RMRError, unknown_name
from rmr_gym.types import FrameTransform


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


class TransitionDataset:
    """A recorded data set, read from its folder.

    Opening it reads the manifest and the attributes of every episode; columns are read by `load`.
    Episodes that appear later, because a recorder still writes, are not seen.

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
        self.manifest = read_manifest(self.path)
        self.episodes = [
            read_info(episode_path(self.path, index)) for index in episode_indices(self.path)
        ]
        if verify:
            self.verify()

    @property
    def fingerprint(self) -> str:
        """Sha256, in hex, of the checksums of all episodes in order."""
        return hashlib.sha256("".join(e.checksum for e in self.episodes).encode()).hexdigest()

    def __len__(self) -> int:
        return sum(episode.length for episode in self.episodes)

    def __repr__(self) -> str:
        title = self.manifest.game or self.manifest.env_id or "unregistered environment"
        heads = len({episode.head for episode in self.episodes})
        rows = [
            f"  {name:<12}{column.dtype}{_shape_text(column, self._is_observation(name))}"
            for name, column in self.manifest.columns.items()
        ]
        return "\n".join(
            [
                f"TransitionDataset({str(self.path)!r}): {title}, {len(self.episodes)} episodes "
                f"by {heads} {'head' if heads == 1 else 'heads'}, {len(self)} transitions",
                *rows,
            ]
        )

    def require_game(self, game: str) -> None:
        """Make sure that the data set is of a game, named as in `rmr_gym.envs.games.GAMES`.

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
        episodes: Sequence[int] | None = None,
        *,
        transform: FrameTransform | None = None,
    ) -> Transitions:
        """Read columns of some episodes into memory; nothing else is read from the files.

        Args:
            columns: Names of the columns.
            episodes: Positions in `episodes`, in the order wanted; None for all.
            transform: Applied to the pixels of each episode as they are read, uint8[T + 1, height,
                width] to an array of as many rows, for instance palette indices to small gray
                frames. The frames of one episode at a time are held in full size.

        Raises:
            RMRError: There is no such column or episode, or a file is damaged.
        """
        for name in columns:
            if name not in self.manifest.columns:
                raise unknown_name("column", name, self.manifest.columns)
        chosen = self._chosen(episodes)
        lengths = np.array([info.length for info in chosen], dtype=np.int64)
        arrays = {
            name: self._load_column(name, chosen, transform if name == "pixels" else None)
            for name in dict.fromkeys(columns)
        }
        firsts = np.cumsum(lengths + 1) - (lengths + 1)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return Transitions(
            columns=arrays,
            current=(np.repeat(firsts, lengths) + within).astype(np.int64),
            episode=np.repeat(np.arange(len(chosen)), lengths).astype(np.int64),
        )

    def verify(self) -> None:
        """Read every column of every episode and compare it with its checksum.

        Raises:
            RMRError: A file does not hold what was written; the message names it.
        """
        for info in self.episodes:
            verify_episode(episode_path(self.path, info.index), info, self.manifest)

    def _is_observation(self, name: str) -> bool:
        return any(column.name == name for column in self.manifest.observations)

    def _chosen(self, episodes: Sequence[int] | None) -> list[EpisodeInfo]:
        if episodes is None:
            return self.episodes
        count = len(self.episodes)
        outside = [position for position in episodes if not 0 <= position < count]
        if outside:
            raise RMRError(
                f"expected positions of episodes from 0 to {count - 1} in {self.path}, found "
                f"{outside[0]}: record more episodes or ask for fewer"
            )
        return [self.episodes[position] for position in episodes]

    def _load_column(
        self, name: str, chosen: Sequence[EpisodeInfo], transform: FrameTransform | None
    ) -> np.ndarray:
        spec, extra = self.manifest.columns[name], int(self._is_observation(name))
        total = sum(info.length + extra for info in chosen)
        out = None if transform and chosen else np.empty((total, *spec.shape), spec.dtype)
        at = 0
        for info in chosen:
            path, length = episode_path(self.path, info.index), info.length + extra
            if transform:
                rows = _transformed(read_column(path, spec, length), transform)
                out = np.empty((total, *rows.shape[1:]), rows.dtype) if out is None else out
                out[at : at + length] = rows
            elif out is not None:
                read_column(path, spec, length, out[at : at + length])
            at += length
        assert out is not None
        return out


def duplicate_rows(
    reference_frames: Shaped[np.ndarray, "reference ..."], frames: Shaped[np.ndarray, "rows ..."]
) -> Bool[np.ndarray, " rows"]:
    """Return which of ``frames`` are byte-equal to any of ``reference_frames``.

    Source: Anand et al. (2019), their code: test frames that occur in training are dropped.
    Differs: none.

    Raises:
        RMRError: The frames differ in type or size, so that none could be equal.
    """
    if (reference_frames.dtype, reference_frames.shape[1:]) != (frames.dtype, frames.shape[1:]):
        raise RMRError(
            f"expected frames of one type and size, found {reference_frames.dtype}"
            f"{list(reference_frames.shape[1:])} and {frames.dtype}{list(frames.shape[1:])}"
        )
    known = {_digest(frame) for frame in reference_frames}
    return np.fromiter((_digest(frame) in known for frame in frames), dtype=bool, count=len(frames))


def _digest(frame: np.ndarray) -> bytes:
    return hashlib.sha256(frame.tobytes()).digest()


def _transformed(frames: np.ndarray, transform: FrameTransform) -> np.ndarray:
    rows = transform(frames)
    if len(rows) != len(frames):
        raise RMRError(
            f"expected a transform that keeps the {len(frames)} frames of an episode, got "
            f"{len(rows)} rows"
        )
    return rows


def _shape_text(column: ColumnSpec, is_observation: bool) -> str:
    shape = ", ".join(["T + 1" if is_observation else "T", *map(str, column.shape)])
    return f"[{shape}]" + ("" if column.encoding == "raw" else f" {column.encoding}")
