"""Reading recorded data sets."""

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.types import FrameTransform
from rmr_gym.data.duplicates import DuplicateReport, digests, duplicate_report, duplicate_rows
from rmr_gym.data.episode_reader import EpisodeInfo, read_column, read_info, verify_episode
from rmr_gym.data.random_access import Batch, TransitionReader
from rmr_gym.data.schema import ColumnSpec, Episode, episode_indices, episode_path, read_manifest
from rmr_gym.data.transitions import Transitions, transition_rows

__all__ = ["TransitionDataset", "Transitions", "duplicate_rows"]


class TransitionDataset:
    """A recorded data set, read from its folder.

    Opening it reads the manifest and the attributes of every episode; columns are read by `load`,
    `batch` and `episode`. Episodes that appear later, because a recorder still writes, are not
    seen (`rmr_gym.data.verification.being_written` tells); what was opened stays readable.

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
        return sum(episode_path(self.path, e.index).stat().st_size for e in self.episodes)

    def raw_bytes(self) -> int:
        """Return the size of all columns in memory."""
        return sum(
            math.prod(column.shape, start=np.dtype(column.dtype).itemsize)
            * (len(self) + len(self.episodes) * self._is_observation(name))
            for name, column in self.manifest.columns.items()
        )

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
        self._require(columns)
        chosen = self._chosen(episodes)
        current, episode = transition_rows([info.length for info in chosen])
        arrays = {
            name: self._load_column(name, chosen, transform if name == "pixels" else None)
            for name in dict.fromkeys(columns)
        }
        return Transitions(arrays, current, episode)

    def reader(
        self, columns: Sequence[str], episodes: Sequence[int] | None = None
    ) -> TransitionReader:
        """Return random access to columns of some episodes, for data sets larger than memory.

        Args:
            columns: Names of the columns.
            episodes: Positions in `episodes`; None for all.

        Raises:
            RMRError: There is no such column or episode.
        """
        self._require(columns)
        chosen = self._chosen(episodes)
        paths = [episode_path(self.path, info.index) for info in chosen]
        return TransitionReader(self.manifest, paths, [e.length for e in chosen], columns)

    def batch(self, indices: Int[np.ndarray, " batch"], columns: Sequence[str]) -> Batch:
        """Read transitions of the whole data set from disk; only the chunks that hold them.

        Args:
            indices: Which of the ``len(dataset)`` transitions, in any order.
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
        read = {name: self._load_column(name, [info], None) for name in self.manifest.columns}
        return Episode(
            index=info.index,
            seed=info.seed,
            head=info.head,
            observations={each.name: read[each.name] for each in self.manifest.observations},
            actions=read["action"],
            rewards=read["reward"],
            terminated=read["terminated"],
            truncated=read["truncated"],
            interrupted=info.interrupted,
        )

    def duplicates(
        self, column: str = "pixels", episodes: Sequence[int] | None = None
    ) -> DuplicateReport:
        """Count the observations that are byte-equal to earlier ones, an episode at a time.

        Args:
            column: Name of a column of observations.
            episodes: Positions in `episodes`, in the order wanted; None for all.

        Raises:
            RMRError: There is no such column or episode, or a file is damaged.
        """
        return duplicate_report(self._rows(column, info) for info in self._chosen(episodes))

    def shared_rows(
        self, reference: Sequence[int], episodes: Sequence[int], column: str = "pixels"
    ) -> int:
        """Count the observations of ``episodes`` that also occur in ``reference``.

        For training and test episodes of a split: how many test frames were seen in training.

        Args:
            reference: Positions in `episodes`.
            episodes: Positions in `episodes`.
            column: Name of a column of observations.

        Raises:
            RMRError: There is no such column or episode, or a file is damaged.
        """
        known: set[bytes] = set()
        for info in self._chosen(reference):
            known.update(digests(self._rows(column, info)))
        return sum(
            digest in known
            for info in self._chosen(episodes)
            for digest in digests(self._rows(column, info))
        )

    def verify(self) -> None:
        """Read every column of every episode and compare it with its checksum.

        Raises:
            RMRError: A file does not hold what was written; the message names it.
        """
        for info in self.episodes:
            verify_episode(episode_path(self.path, info.index), info, self.manifest)

    def _require(self, columns: Sequence[str]) -> None:
        for name in columns:
            if name not in self.manifest.columns:
                raise unknown_name("column", name, self.manifest.columns)

    def _rows(self, column: str, info: EpisodeInfo) -> np.ndarray:
        if not self._is_observation(column):
            names = [each.name for each in self.manifest.observations]
            raise unknown_name("column of observations", column, names)
        return self._load_column(column, [info], None)

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
