"""Recorded data sets: what is in one, its columns in memory; damage, repeated rows, merging."""

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.core.files import AnyPath, lock
from rmr_gym.data import reader as reading
from rmr_gym.data import schema
from rmr_gym.data.reader import MEMORY, Batch, Chosen, EpisodeInfo, Timeline, TransitionReader
from rmr_gym.data.schema import Episode, Manifest
from rmr_gym.data.writer import LOCK, DatasetWriter

_log = logging.getLogger(__name__)

FrameTransform = Callable[[UInt8[np.ndarray, "time height width"]], np.ndarray]
"""A function of one episode's frames that keeps their number, for instance shrinking them."""


@dataclass(frozen=True)
class Transitions(Timeline):
    """Columns of some episodes, each in one array, and where its transitions lie in them.

    ``transitions[name]`` is the column ``name``: observations have T + 1 rows an episode of T
    steps, one episode after another; actions, rewards and flags have T.

    Attributes:
        columns: The columns that were loaded, arrays, or tensors after `to`.
        current: int64 [transitions]: the row of the observation before each transition; the one
            after it is in the next row.
        episode: int64 [transitions], ascending: the position of the episode of each transition
            among those that were loaded.

    Example:
        >>> before = transitions["ram"][transitions.current]  # doctest: +SKIP
        >>> after = transitions["ram"][transitions.current + 1]  # doctest: +SKIP
    """

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

    def __repr__(self) -> str:
        shapes = (
            f"{name}: {array.dtype}{list(array.shape)}" for name, array in self.columns.items()
        )
        episodes = len(np.unique(self.episode))
        return f"Transitions({len(self)} of {episodes} episodes, {', '.join(shapes)})"

    def to(self, device: str) -> "Transitions":
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
        return Transitions(moved, *rows)


class TransitionDataset:
    """A recorded data set, read from its folder.

    Opening it reads the manifest and the attributes of every episode; columns are read by `load`,
    `batch` and `episode`. Episodes that appear later, because a recorder still writes, are not
    seen (`rmr_gym.data.dataset.being_written` tells); what was opened stays readable.

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

    def __init__(self, path: AnyPath, *, verify: bool = False):
        self.path = Path(path)
        self.manifest = schema.read_manifest(self.path)
        there = schema.episode_indices(self.path)
        self.episodes = [
            reading.read_info(schema.episode_path(self.path, index)) for index in there
        ]
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
        chosen = self._chosen(episodes, columns)
        arrays = {
            name: self._load_column(name, chosen, transform if name == "pixels" else None)
            for name in dict.fromkeys(columns)
        }
        return Transitions(arrays, *reading.transition_rows([info.length for info in chosen]))

    def reader(
        self, columns: Sequence[str], episodes: Chosen | None = None, *, memory: int = MEMORY
    ) -> TransitionReader:
        """Return random access to columns of some episodes, for data sets larger than memory.

        Args:
            columns: Names of the columns.
            episodes: Positions in `episodes`, or a mask of them; None for all.
            memory: Bytes of each column that may stay in memory once they were read, compressed in
                a way that costs no time; a frame of a game takes about 2,000. 0 for none.

        Raises:
            RMRError: There is no such column or episode.
        """
        return TransitionReader(self.manifest, self._chosen(episodes, columns), columns, memory)

    def batch(self, indices: reading.Drawn, columns: Sequence[str]) -> Batch:
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
        chosen = self._chosen(episodes, [column])
        return (self._load_column(column, [info], None) for info in chosen)

    def verify(self) -> None:
        """Read every column of every episode and compare it with its checksum.

        Raises:
            RMRError: A file does not hold what was written; the message names it.
        """
        for info in self.episodes:
            reading.verify_episode(info, self.manifest)

    def _chosen(self, episodes: Chosen | None, columns: Sequence[str] = ()) -> list[EpisodeInfo]:
        for name in columns:
            known_name("column", name, self.manifest.columns)
        if episodes is None:
            return self.episodes
        mend = f" in {self.path}: record more episodes or ask for fewer"
        chosen = reading.positions(episodes, len(self.episodes), "positions of episodes", mend)
        return [self.episodes[position] for position in chosen]

    def _load_column(
        self, name: str, chosen: Sequence[EpisodeInfo], transform: FrameTransform | None
    ) -> np.ndarray:
        spec = self.manifest.columns[name]
        lengths = [self.manifest.rows(name, info.length) for info in chosen]
        out = None if transform and chosen else np.empty((sum(lengths), *spec.shape), spec.dtype)
        for info, length, end in zip(chosen, lengths, np.cumsum(lengths), strict=True):
            if transform:
                rows = _transformed(reading.read_column(info.path, spec, length), transform)
                out = np.empty((sum(lengths), *rows.shape[1:]), rows.dtype) if out is None else out
                out[end - length : end] = rows
            elif out is not None:
                reading.read_column(info.path, spec, length, out[end - length : end])
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


def find_problems(path: AnyPath, progress: Progress | None = None) -> list[str]:
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
    manifest, there = schema.read_manifest(root), schema.episode_indices(root)
    problems = {
        index: f"{schema.episode_path(root, index)} is missing: episode {index} was not recorded, "
        "or its file was lost; recording again with the same arguments adds it"
        for index in schema.missing_indices(there)
    }
    for done, index in enumerate(there, 1):
        try:
            reading.verify_episode(reading.read_info(schema.episode_path(root, index)), manifest)
        except RMRError as error:
            problems[index] = f"episode {index}: {error}"
        if progress is not None:
            progress(done, len(there))
    return [problems[index] for index in sorted(problems)]


def being_written(path: AnyPath) -> bool:
    """Return whether a recorder has the data set open, so that episodes may still appear.

    Always False where the system has no file locks, and of a folder without a lock file.
    """
    with suppress(OSError), (Path(path) / LOCK).open("rb") as file:
        return lock(file.fileno()) is False
    return False


def duplicate_report(episodes: Iterable[Shaped[np.ndarray, "rows ..."]]) -> dict[str, int]:
    """Count the repeated rows of episodes, which are looked at one after another.

    Returns:
        ``rows`` that were looked at; of these, how many are byte-equal to an earlier row
        ``within an episode``, to a row of an earlier episode (``across episodes``), and to any
        earlier row (``repeated``).

    Example:
        >>> duplicate_report(dataset.by_episode("pixels"))  # doctest: +SKIP
    """
    counts: dict[str, int] = dict.fromkeys(
        ("rows", "repeated", "within an episode", "across episodes"), 0
    )
    known: set[bytes] = set()
    for episode in episodes:
        listed = list(_digests(episode))
        counts["rows"] += len(listed)
        counts["repeated"] += len(listed) - len(set(listed) - known)
        counts["within an episode"] += len(listed) - len(set(listed))
        counts["across episodes"] += sum(digest in known for digest in listed)
        known.update(listed)
    return counts


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
    known = set(_digests(reference_frames))
    return np.fromiter((row in known for row in _digests(frames)), dtype=bool, count=len(frames))


def _digests(rows: Shaped[np.ndarray, "rows ..."]) -> Iterator[bytes]:
    """Yield the sha256 of each row's bytes."""
    return (hashlib.sha256(row.tobytes()).digest() for row in rows)


def copy_episodes(
    path: AnyPath,
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
    with DatasetWriter(path, manifest, overwrite=overwrite) as writer:
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
    def content(episode: Episode) -> tuple[object, ...]:
        columns = {name: rows.tobytes() for name, rows in episode.columns.items()}
        return episode.seed, episode.head, episode.interrupted, columns

    return content(one) == content(other)


def merge_datasets(
    out: AnyPath,
    sources: Sequence[AnyPath],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransitionDataset:
    """Write the episodes of several data sets to a new one, numbered from 0 in the order given.

    The sources must be alike in everything but the seed and the heads: environment, ROM, columns,
    settings, version of the simulator. Each episode is compared with its checksum before it is
    copied. After an interruption the same call goes on where it was.

    Args:
        out: Folder of the new data set; its manifest says under ``settings["merged"]`` what it is
            made of.
        sources: Folders of the data sets, at least two.
        overwrite: Delete the data set that is in ``out`` first.
        progress: Called with (episodes that are there, episodes that shall be).

    Raises:
        RMRError: A source is damaged, differs from the first or has an episode in common with
            another one; ``out`` is a source, holds something else, or cannot be written.
    """
    if len(sources) < 2:
        raise RMRError(f"expected at least two data sets to merge, found {len(sources)}")
    if Path(out).resolve() in [Path(source).resolve() for source in sources]:
        raise RMRError(f"expected a new folder to merge into, found {out}, which is a source")
    datasets = [TransitionDataset(source) for source in sources]
    manifest = _joined(datasets)
    _require_different_episodes(datasets)
    places = [(dataset, at) for dataset in datasets for at in range(len(dataset.episodes))]

    def read(index: int) -> Episode:
        dataset, at = places[index]
        reading.verify_episode(dataset.episodes[at], dataset.manifest)
        return replace(dataset.episode(at), index=index)

    return copy_episodes(
        out, manifest, range(len(places)), read, overwrite=overwrite, progress=progress
    )


def _joined(datasets: Sequence[TransitionDataset]) -> Manifest:
    first, heads = _without_seed(datasets[0].manifest), dict[str, None]()
    for dataset in datasets:
        heads.update(dict.fromkeys(dataset.manifest.heads))
        if differences := "; ".join(first.differences(_without_seed(dataset.manifest))):
            raise RMRError(
                f"expected data sets that differ in seeds and heads only, found that {dataset.path}"
                f" differs from {datasets[0].path} ({differences}): keep them apart"
            )
    merged = [
        {
            "seed": dataset.manifest.settings.get("seed"),
            "episodes": len(dataset.episodes),
            "fingerprint": dataset.fingerprint,
        }
        for dataset in datasets
    ]
    return replace(first, heads=tuple(heads), settings={**first.settings, "merged": merged})


def _without_seed(manifest: Manifest) -> Manifest:
    kept = {k: v for k, v in manifest.settings.items() if k not in ("seed", "merged", "policy")}
    return replace(manifest, heads=(), settings=kept)


def _require_different_episodes(datasets: Sequence[TransitionDataset]) -> None:
    for one, other in combinations(datasets, 2):
        common = {e.checksum for e in one.episodes} & {e.checksum for e in other.episodes}
        if common:
            index = min(e.index for e in one.episodes if e.checksum in common)
            raise RMRError(
                f"expected data sets with episodes of their own, found episode {index} in both "
                f"{one.path} and {other.path}: record one of them with another seed"
            )
