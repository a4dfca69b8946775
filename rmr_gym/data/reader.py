"""Reading episodes: what is known of one, whole columns, any rows of a column, any transitions."""

import math
import mmap
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (lets HDF5 open what is compressed with zstd)
import numpy as np
import xxhash
import zstandard
from jaxtyping import Bool, Int, Int64, Shaped

from rmr_gym.core.errors import RMRError, whole_number
from rmr_gym.core.processes import interrupts_later
from rmr_gym.data import schema
from rmr_gym.data.schema import ColumnSpec, Manifest

_MAPPED_FILES = 128
"""Files that all readers of a process together keep open: half of what the strictest systems let
a process open."""

FRAME_BYTES = 4096
"""From this size on, a row is a frame: few lie in a chunk."""

MEMORY = 2**28
"""Bytes that the reader of a column keeps of what it has read, by default."""

Chosen = Sequence[int] | np.ndarray
Drawn = Int[np.ndarray, " batch"] | Bool[np.ndarray, " transitions"]
"""Positions, or a mask of all that there are; and those of a batch."""


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of an episode without reading its columns.

    Attributes:
        path: Its file.
        index: Its number, which is also its file's name.
        seed: What the environment was reset with, or None.
        head: Name of the player.
        length: Its steps; it has one observation more.
        total_reward: Sum of its rewards.
        interrupted: Whether recording stopped before it had ended.
        checksum: Sha256 of all that it holds.
    """

    path: Path = field(compare=False)
    index: int
    seed: int | None
    head: str
    length: int
    total_reward: float
    interrupted: bool
    checksum: str


def read_info(path: Path) -> EpisodeInfo:
    """Return what an episode's attributes say.

    Raises:
        RMRError: The file is truncated, damaged, foreign or of another version of the format.
    """
    with _reading(path), interrupts_later(), h5py.File(path, "r", locking=False) as file:
        attributes: dict[str, Any] = dict(file.attrs)
        if attributes.get("format") != schema.FORMAT:
            raise _damaged(path, f"it has no attribute format = {schema.FORMAT!r}")
        schema.require_version(int(attributes["format_version"]), path)
        info = EpisodeInfo(
            path=path,
            index=int(attributes["index"]),
            seed=int(attributes["seed"]) if "seed" in attributes else None,
            head=str(attributes["head"]),
            length=int(attributes["length"]),
            total_reward=float(attributes["total_reward"]),
            interrupted=bool(attributes["interrupted"]),
            checksum=str(attributes["sha256"]),
        )
    if info.index != int(path.stem):
        raise _damaged(path, f"it is episode {info.index} under another name")
    return info


def read_column(
    path: Path, spec: ColumnSpec, rows: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Return a column of an episode, read into ``out`` where there is one.

    Raises:
        RMRError: The column is not there, not as expected, or damaged.
    """
    chunks = _locate(path, spec, rows)
    out = np.empty((rows, *spec.shape), spec.stored) if out is None else out
    decompressor = zstandard.ZstdDecompressor()
    with _map(path) as content:
        for chunk in range(len(chunks.places)):
            part = out[chunk * chunks.rows : (chunk + 1) * chunks.rows]
            part[...] = chunks.unpack(content, chunk, decompressor)[: len(part)]
    return out


def verify_episode(info: EpisodeInfo, manifest: Manifest) -> None:
    """Read a whole episode and compare it with its checksum.

    Raises:
        RMRError: The file does not hold what was written.
    """
    described = {}
    for name, spec in manifest.columns.items():
        rows = read_column(info.path, spec, manifest.rows(name, info.length))
        described[name] = [spec.dtype, *rows.shape, xxhash.xxh3_128_hexdigest(rows.data)]
        if name == "reward" and not np.array_equal(
            schema.total_reward(rows.tolist()), info.total_reward, equal_nan=True
        ):
            raise _damaged(info.path, "its rewards do not add up to its total reward")
    about = {name: getattr(info, name) for name in ("index", "seed", "head", "interrupted")}
    if schema.episode_checksum(described, **about) != info.checksum:
        raise _damaged(info.path, "it does not match its checksum")


class ColumnReader:
    """Reads any rows of a column of several episodes, decompressing only the chunks they lie in.

    Rows are numbered through all the episodes, one after another, as in
    `rmr_gym.data.dataset.Transitions`. A file is opened when the first of its rows is asked for.
    What was read stays in memory: small rows by whole episodes, frames as what differs from one
    much like them. Damage is noticed when bytes are decompressed. Threads, forked processes and
    copies by pickle may read at the same time.

    Args:
        paths: Files of the episodes.
        spec: The column.
        lengths: Its rows in each of them.
        memory: Bytes that may stay in memory; 0 for none.

    Example:
        >>> reader = ColumnReader(paths, manifest.columns["pixels"], lengths)  # doctest: +SKIP
        >>> frames = reader.read(np.array([7, 3000]))  # doctest: +SKIP
    """

    def __init__(
        self, paths: Sequence[Path], spec: ColumnSpec, lengths: Sequence[int], memory: int = MEMORY
    ):
        self._paths, self._spec, self._lengths = list(paths), spec, list(lengths)
        self._memory = memory
        self._ends = np.cumsum(self._lengths, dtype=np.int64)
        self._chunks: dict[int, _Chunks] = {}
        size = math.prod(spec.shape) * spec.stored.itemsize
        self._small = size < FRAME_BYTES and size * len(self) <= memory
        whole, frames = (len(self), 0) if self._small else (0, len(self))
        self._whole = np.empty((whole, *spec.shape), spec.stored)
        self._frames = _KnownFrames(size, frames, memory if size >= FRAME_BYTES else 0)
        self._known: set[int] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return ColumnReader, (self._paths, self._spec, self._lengths, self._memory)

    def __len__(self) -> int:
        return sum(self._lengths)

    def read(self, rows: Int[np.ndarray, " rows"]) -> Shaped[np.ndarray, "rows ..."]:
        """Return the rows in the order wanted.

        Raises:
            RMRError: A row is out of range, or a file is damaged.
        """
        rows = positions(rows, len(self), "rows")
        if self._small:
            self._read_episodes(rows)
            return np.take(self._whole, rows, axis=0, mode="clip")
        out = np.empty((len(rows), *self._spec.shape), self._spec.stored)
        unknown = self._frames.put(rows, out)
        if unknown.size:
            self._decompress(rows, unknown, out)
        return out

    def _read_episodes(self, rows: Int64[np.ndarray, " rows"]) -> None:
        """Read the episodes of some rows whole, those that were not read before."""
        episodes = np.searchsorted(self._ends, rows, side="right")
        for episode in set(episodes.tolist()) - self._known:
            length, end = self._lengths[episode], self._ends[episode]
            rows_of_it = self._whole[end - length : end]
            read_column(self._paths[episode], self._spec, length, rows_of_it)
            self._known.add(episode)

    def _decompress(
        self, rows: Int64[np.ndarray, " rows"], wanted: Int64[np.ndarray, " few"], out: np.ndarray
    ) -> None:
        """Read those rows whose positions are wanted into their places in ``out``."""
        order = wanted[np.argsort(rows[wanted], kind="stable")]
        episodes = np.searchsorted(self._ends, rows[order], side="right")
        within = rows[order] - (self._ends - self._lengths)[episodes]
        decompressor = zstandard.ZstdDecompressor()
        last, block = (-1, -1), out
        for position, episode, row in zip(
            order.tolist(), episodes.tolist(), within.tolist(), strict=True
        ):
            if episode not in self._chunks:
                where = self._paths[episode], self._spec, self._lengths[episode]
                self._chunks[episode] = _locate(*where)
            chunks = self._chunks[episode]
            chunk, at = divmod(row, chunks.rows)
            if (episode, chunk) != last:
                content = _mapped(chunks.path, chunks.stamp)
                block = chunks.unpack(content, chunk, decompressor)
                last = (episode, chunk)
                first = int(rows[position]) - at
                self._frames.add(episode, first, block[: self._ends[episode] - first])
            out[position] = block[at]


class _KnownFrames:
    """Frames that were read before, each as the words that differ from a frame much like it.

    A game changes little of its screen: of 33,600 bytes about 2,000 are kept, and the frame is put
    together in less time than it is decompressed. What frames are compared with is their ground.
    Where more than a quarter differs (another room, other colours) the frame is kept whole, as the
    ground of those to come.

    Args:
        size: Bytes of a frame.
        rows: Frames of the column.
        room: Bytes that they may take; once these are taken, no more frames are added.
    """

    def __init__(self, size: int, rows: int, room: int):
        self._word = np.dtype(f"u{math.gcd(size, 8)}")
        self._width = size // self._word.itemsize
        most = min(room // (self._word.itemsize + 4), rows * self._width)
        self._places, self._words = np.empty(most, np.int32), np.empty(most, self._word)
        self._used, self._adding = 0, threading.Lock()
        self._grounds = [np.zeros(self._width, self._word)]
        self._latest: dict[int, int] = {}
        self._spans, self._ground = np.empty((rows, 2), np.int64), np.full(rows, -1)

    def add(self, episode: int, first: int, block: Shaped[np.ndarray, "rows ..."]) -> None:
        """Keep successive frames of an episode, of which the first is row ``first``.

        They are passed over while another thread adds frames.
        """
        full = len(self._words) - self._used < len(block) * self._width
        if full or not self._adding.acquire(blocking=False):
            return
        try:
            for row, frame in enumerate(block.reshape(len(block), -1).view(self._word), first):
                ground = self._latest.get(episode, len(self._grounds) - 1)
                self._latest[episode] = self._add(row, frame, ground)
        finally:
            self._adding.release()

    def _add(self, row: int, frame: Shaped[np.ndarray, " words"], ground: int) -> int:
        """Keep a frame; return the number of its ground."""
        places = (frame != self._grounds[ground]).nonzero()[0]
        if len(places) > self._width // 4:
            ground = len(self._grounds)
            self._grounds.append(frame.copy())
            self._used += self._width
            places = places[:0]
        span = slice(self._used, self._used + len(places))
        self._places[span], self._words[span] = places, frame[places]
        self._spans[row], self._used = (span.start, len(places)), span.stop
        self._ground[row] = ground
        return ground

    def put(self, rows: Int64[np.ndarray, " rows"], out: np.ndarray) -> Int64[np.ndarray, " few"]:
        """Put the frames that are known into their places; return the positions of the others."""
        numbers = self._ground[rows]
        known = numbers >= 0
        unknown = np.flatnonzero(~known)
        if len(unknown) == len(rows):
            return unknown
        frames = out if not unknown.size else np.empty((known.sum(), *out.shape[1:]), out.dtype)
        flat = frames.reshape(-1).view(self._word)
        np.concatenate([self._grounds[number] for number in numbers[known].tolist()], out=flat)
        starts, counts = self._spans[rows[known]].T
        ends = np.cumsum(counts)
        changes = np.arange(ends[-1]) + np.repeat(starts - ends + counts, counts)
        at = np.repeat(np.arange(0, len(flat), self._width), counts) + self._places[changes]
        flat[at] = self._words[changes]
        if unknown.size:
            out[known] = frames
        return unknown


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


class Timeline:
    """Where the transitions of some episodes lie in rows of observations, one after another.

    Attributes:
        current: int64 [transitions]: the row of the observation before each transition; the one
            after it is in the next row.
        episode: int64 [transitions], ascending: the position of the episode of each transition.
    """

    current: Any
    episode: Any

    def __len__(self) -> int:
        return len(self.current)

    def windows(
        self, length: int, stride: int = 1, needed: str = ""
    ) -> Int64[np.ndarray, "windows {length}"]:
        """Return the rows of every ``length`` successive observations of one episode.

        None crosses an episode; an episode that is too short has none. Three past frames and one
        to predict are ``windows(4)``: ``frames = transitions["pixels"][windows]``.

        Args:
            length: Observations in a window, 1 or more.
            stride: Rows from the start of a window to that of the next in the same episode.
            needed: What observations are called where there must be a window; "": there need not.

        Raises:
            RMRError: ``length`` or ``stride`` is below 1, or there is no window where one is
                needed.
        """
        whole_number("length of windows", length, 1)
        whole_number("stride of windows", stride, 1)
        rows = np.bincount(self.episode) + 1
        if needed and (longest := max(rows, default=0)) < length:
            raise RMRError(
                f"expected an episode of {length} {needed} or more, found at most {longest}: "
                "record longer episodes or ask for shorter ones"
            )
        ends = np.cumsum(rows)
        starts = [
            np.r_[end - count : end - length + 1 : stride]
            for end, count in zip(ends, rows, strict=True)
        ]
        return np.concatenate([np.empty(0, np.int64), *starts])[:, None] + np.arange(length)

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


class TransitionReader(Timeline):
    """Random access to the transitions of some episodes, made by `TransitionDataset.reader`.

    It has the ``current`` and ``episode`` of a `Transitions`, so that
    `rmr_gym.data.sampling.batch_indices` can draw from it. Data loader workers may use it, forked
    or spawned.

    Args:
        manifest: Of the data set.
        episodes: The episodes.
        columns: Names of the columns to read.
        memory: Bytes of each column that may stay in memory.

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
        episodes: Sequence[EpisodeInfo],
        columns: Sequence[str],
        memory: int = MEMORY,
    ):
        self.current, self.episode = transition_rows([info.length for info in episodes])
        paths = [info.path for info in episodes]
        self._observations, self._steps = {}, {}
        for name in dict.fromkeys(columns):
            rows = [manifest.rows(name, info.length) for info in episodes]
            part = self._steps if name in schema.STEP_COLUMNS else self._observations
            part[name] = ColumnReader(paths, manifest.columns[name], rows, memory)

    def batch(self, indices: Drawn) -> Batch:
        """Read transitions; only the chunks that hold them are decompressed.

        Args:
            indices: Which transitions, in any order, or a mask of all of them.

        Raises:
            RMRError: There is no such transition, or a file is damaged.
        """
        indices = positions(indices, len(self), "transitions")
        first, count = self.current[indices], len(indices)
        both = np.concatenate([first, first + 1])
        pairs = {name: reader.read(both) for name, reader in self._observations.items()}
        return Batch(
            before={name: rows[:count] for name, rows in pairs.items()},
            after={name: rows[count:] for name, rows in pairs.items()},
            steps={name: reader.read(indices) for name, reader in self._steps.items()},
        )

    def read(self, windows: Int[np.ndarray, "batch length"]) -> dict[str, np.ndarray]:
        """Read the observations of windows, and the actions, rewards and flags between them.

        Args:
            windows: Rows of successive observations, as `Timeline.windows` returns them.

        Returns:
            By column: [batch, length, ...] of observations, [batch, length - 1, ...] of steps.

        Raises:
            RMRError: There is no such row, or a file is damaged.
        """
        steps = self.steps(windows[:, :-1])
        columns = {name: (reader, windows) for name, reader in self._observations.items()}
        columns |= {name: (reader, steps) for name, reader in self._steps.items()}
        return {
            name: (rows := reader.read(at.ravel())).reshape(*at.shape, *rows.shape[1:])
            for name, (reader, at) in columns.items()
        }


def transition_rows(
    lengths: Sequence[int],
) -> tuple[Int64[np.ndarray, " transitions"], Int64[np.ndarray, " transitions"]]:
    """Return `Transitions.current` and `Transitions.episode` of episodes of so many steps."""
    steps = np.array(lengths, dtype=np.int64)
    episode = np.repeat(np.arange(len(steps), dtype=np.int64), steps)
    return np.arange(steps.sum(), dtype=np.int64) + episode, episode


def positions(chosen: Chosen, count: int, things: str, mend: str = "") -> Int64[np.ndarray, " _"]:
    """Return the positions that are chosen of ``count`` things, which may also be a mask of them.

    Raises:
        RMRError: One is out of range, or the mask is of another length.
    """
    array = np.asarray(chosen)
    if array.dtype == bool:
        if array.shape != (count,):
            raise RMRError(f"expected a mask of {count} {things}, found one of {len(array)}{mend}")
        return np.flatnonzero(array)
    outside = array[(array < 0) | (array >= count)]
    if outside.size:
        raise RMRError(f"expected {things} from 0 to {count - 1}, found {outside[0]}{mend}")
    return array.astype(np.int64)


@dataclass(frozen=True)
class _Chunks:
    """Where the compressed chunks of a column lie in its file, and what they hash to.

    Attributes:
        path: The file.
        spec: The column.
        rows: Of each chunk.
        places: By chunk, the bytes of the file that hold it.
        sums: By chunk, the XXH3 (64 bits) of these bytes.
        stamp: Tells the file from another one that takes its place later.
    """

    path: Path
    spec: ColumnSpec
    rows: int
    places: list[slice]
    sums: list[int]
    stamp: tuple[int, ...]

    def unpack(
        self, content: mmap.mmap, chunk: int, decompressor: zstandard.ZstdDecompressor
    ) -> np.ndarray:
        """Return the rows of a chunk; those after the end of the column are zero."""
        packed = content[self.places[chunk]]
        if xxhash.xxh3_64_intdigest(packed) != self.sums[chunk]:
            raise _damaged(self.path, f"chunk {chunk} of column {self.spec.name!r} has changed")
        flat = np.frombuffer(decompressor.decompress(packed), self.spec.stored)
        return flat.reshape(self.rows, *self.spec.shape)


def _locate(path: Path, spec: ColumnSpec, rows: int) -> _Chunks:
    """Return where the chunks of a column lie, after a look at its type and shape."""
    places: dict[int, slice] = {}
    with _reading(path), interrupts_later(), h5py.File(path, "r", locking=False) as file:
        dataset = _dataset(file, path, spec, (rows, *spec.shape))
        rows_a_chunk = dataset.chunks[0]

        def note(chunk: Any) -> None:
            start = chunk.byte_offset
            places[chunk.chunk_offset[0] // rows_a_chunk] = slice(start, start + chunk.size)

        dataset.id.chunk_iter(note)
        sums: list[int] = np.asarray(dataset.attrs["chunks_xxh3_64"]).tolist()
        stat = path.stat()
    if sorted(places) != list(range(-(-rows // rows_a_chunk))) or len(sums) != len(places):
        raise _damaged(path, f"chunks of column {spec.name!r} are missing")
    stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    in_order = [places[chunk] for chunk in range(len(places))]
    return _Chunks(path, spec, rows_a_chunk, in_order, sums, stamp)


def _dataset(file: h5py.File, path: Path, spec: ColumnSpec, shape: tuple[int, ...]) -> Any:
    dataset = file.get(spec.name)
    if not isinstance(dataset, h5py.Dataset):
        raise _damaged(path, f"it has no column {spec.name!r}")
    if (dataset.shape, dataset.dtype) != (shape, np.dtype(spec.dtype)):
        described = f"{dataset.dtype}{list(dataset.shape)}, expected {spec.dtype}{list(shape)}"
        raise _damaged(path, f"column {spec.name!r} is {described}")
    if dataset.chunks is None:
        raise _damaged(path, f"column {spec.name!r} is not stored in chunks")
    return dataset


def _map(path: Path) -> mmap.mmap:
    with _reading(path), path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@lru_cache(_MAPPED_FILES)
def _mapped(path: Path, stamp: tuple[int, ...]) -> mmap.mmap:
    """Return a file as it was when ``stamp`` was taken; those read lately stay open."""
    return _map(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what is wrong with an episode's file into one clear error."""
    try:
        yield
    except RMRError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise RMRError(f"cannot read {path}: {os.strerror(error.errno)}") from error
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, what: str) -> RMRError:
    return RMRError(
        f"{path} is truncated, damaged or foreign ({what}): delete it and record again, which "
        "records only the episodes that are missing"
    )
