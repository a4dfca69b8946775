"""Reading episodes: what is known of one, whole columns, and any rows of a column."""

import math
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (lets HDF5 open what is compressed with zstd)
import numpy as np
import xxhash
import zstandard
from jaxtyping import Int, Shaped

from rmr_gym.core.errors import RMRError
from rmr_gym.data.schema import (
    FORMAT,
    ColumnSpec,
    Manifest,
    episode_checksum,
    require_version,
)

_MAPPED_FILES = 256


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of an episode without reading its columns.

    Attributes:
        index: Its number, which is also its file's name.
        seed: What the environment was reset with, or None.
        head: Name of the behaviour head that played.
        length: Its steps; it has one observation more.
        total_reward: Sum of its rewards.
        interrupted: Whether recording stopped before it had ended.
        checksum: Sha256 of all that it holds.
    """

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
    with _episode_file(path) as file:
        attributes: dict[str, Any] = dict(file.attrs)
        if attributes.get("format") != FORMAT:
            raise _damaged(path, f"it has no attribute format = {FORMAT!r}")
        require_version(int(attributes["format_version"]), path)
        info = EpisodeInfo(
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


class ColumnReader:
    """Reads any rows of a column of several episodes, decompressing only the chunks they lie in.

    Rows are numbered through all the episodes, one after another, as in
    `rmr_gym.data.dataset.Transitions`. A file is opened when the first of its rows is asked for.
    Threads, forked processes and copies by pickle may read at the same time.

    Args:
        paths: Files of the episodes.
        spec: The column.
        lengths: Its rows in each of them.

    Example:
        >>> reader = ColumnReader(paths, manifest.columns["pixels"], lengths)  # doctest: +SKIP
        >>> frames = reader.read(np.array([7, 3000]))  # doctest: +SKIP
    """

    def __init__(self, paths: Sequence[Path], spec: ColumnSpec, lengths: Sequence[int]):
        self._paths, self._spec, self._lengths = list(paths), spec, list(lengths)
        self._ends = np.cumsum(self._lengths, dtype=np.int64)
        self._firsts = self._ends - self._lengths
        self._chunks: dict[int, _Chunks] = {}
        self._mapped = lru_cache(_MAPPED_FILES)(_map)

    def __reduce__(self) -> tuple[Any, ...]:
        return ColumnReader, (self._paths, self._spec, self._lengths)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._paths else 0

    def read(
        self, rows: Int[np.ndarray, " rows"], out: Shaped[np.ndarray, "rows ..."] | None = None
    ) -> Shaped[np.ndarray, "rows ..."]:
        """Return the rows in the order wanted, read into ``out`` where there is one.

        Raises:
            RMRError: A row is out of range, or a file is damaged.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise RMRError(f"expected rows from 0 to {len(self) - 1}, found some outside")
        out = _empty(len(rows), self._spec) if out is None else out
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        episodes = np.searchsorted(self._ends, wanted, side="right")
        within = wanted - self._firsts[episodes]
        decompressor = zstandard.ZstdDecompressor()
        last, block = (-1, -1), out
        for position, episode, row in zip(
            order.tolist(), episodes.tolist(), within.tolist(), strict=True
        ):
            chunks = self._chunks.get(episode) or self._locate(episode)
            chunk, at = divmod(row, chunks.rows)
            if (episode, chunk) != last:
                content = self._mapped(chunks.path)
                block = chunks.unpack(content, chunk, self._spec, decompressor)
                last = (episode, chunk)
            out[position] = block[at]
        return out

    def _locate(self, episode: int) -> "_Chunks":
        path = self._paths[episode]
        self._chunks[episode] = _locate(path, self._spec, self._lengths[episode])
        return self._chunks[episode]


def read_column(
    path: Path, spec: ColumnSpec, rows: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Return a column of an episode, read into ``out`` where there is one.

    Raises:
        RMRError: The column is not there, not as expected, or damaged.
    """
    chunks = _locate(path, spec, rows)
    content = path.read_bytes()
    out = _empty(rows, spec) if out is None else out
    decompressor = zstandard.ZstdDecompressor()
    for chunk in range(len(chunks.starts)):
        part = out[chunk * chunks.rows : (chunk + 1) * chunks.rows]
        part[...] = chunks.unpack(content, chunk, spec, decompressor)[: len(part)]
    return out


def verify_episode(path: Path, info: EpisodeInfo, manifest: Manifest) -> None:
    """Read a whole episode and compare it with its checksum.

    Raises:
        RMRError: The file does not hold what was written.
    """
    described = {}
    observations = {column.name for column in manifest.observations}
    for name, spec in manifest.columns.items():
        rows = read_column(path, spec, info.length + (name in observations))
        described[name] = (spec.dtype, rows.shape, xxhash.xxh3_128_hexdigest(rows.data))
        if name == "reward" and math.fsum(rows.tolist()) != info.total_reward:
            raise _damaged(path, "its rewards do not add up to its total reward")
    checksum = episode_checksum(info.index, info.seed, info.head, info.interrupted, described)
    if checksum != info.checksum:
        raise _damaged(path, "it does not match its checksum")


@dataclass(frozen=True)
class _Chunks:
    """Where the compressed chunks of a column lie in its file, and what they hash to."""

    path: Path
    rows: int
    starts: list[int]
    ends: list[int]
    sums: list[int]

    def unpack(
        self,
        content: bytes | mmap.mmap,
        chunk: int,
        spec: ColumnSpec,
        decompressor: zstandard.ZstdDecompressor,
    ) -> np.ndarray:
        """Return the rows of a chunk; those after the end of the column are zero."""
        packed = content[self.starts[chunk] : self.ends[chunk]]
        if xxhash.xxh3_64_intdigest(packed) != self.sums[chunk]:
            raise _damaged(self.path, f"chunk {chunk} of column {spec.name!r} has changed")
        flat = np.frombuffer(decompressor.decompress(packed), _little_endian(spec))
        return flat.reshape(self.rows, *spec.shape)


def _locate(path: Path, spec: ColumnSpec, rows: int) -> _Chunks:
    """Return where the chunks of a column lie, after a look at its type and shape."""
    found: dict[int, tuple[int, int]] = {}
    with _episode_file(path) as file:
        dataset = file.get(spec.name)
        if not isinstance(dataset, h5py.Dataset):
            raise _damaged(path, f"it has no column {spec.name!r}")
        expected = ((rows, *spec.shape), np.dtype(spec.dtype))
        if (dataset.shape, dataset.dtype) != expected:
            described = f"{dataset.dtype}{list(dataset.shape)}"
            wanted = f"{spec.dtype}{list(expected[0])}"
            raise _damaged(path, f"column {spec.name!r} is {described}, expected {wanted}")
        if dataset.chunks is None:
            raise _damaged(path, f"column {spec.name!r} is not stored in chunks")
        first = dataset.chunks[0]
        dataset.id.chunk_iter(
            lambda chunk: found.update(
                {chunk.chunk_offset[0] // first: (chunk.byte_offset, chunk.size)}
            )
        )
        sums: list[int] = np.asarray(dataset.attrs["chunks_xxh3_64"]).tolist()
    if sorted(found) != list(range(-(-rows // first))) or len(sums) != len(found):
        raise _damaged(path, f"chunks of column {spec.name!r} are missing")
    places = [found[chunk] for chunk in range(len(found))]
    starts, ends = [start for start, _ in places], [start + size for start, size in places]
    return _Chunks(path, first, starts, ends, sums)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _empty(rows: int, spec: ColumnSpec) -> np.ndarray:
    return np.empty((rows, *spec.shape), _little_endian(spec))


def _little_endian(spec: ColumnSpec) -> np.dtype[Any]:
    return np.dtype(spec.dtype).newbyteorder("<")


@contextmanager
def _episode_file(path: Path) -> Iterator[h5py.File]:
    """Open an episode; what h5py finds wrong with it becomes one clear error."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except RMRError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, what: str) -> RMRError:
    return RMRError(
        f"{path} is truncated, damaged or foreign ({what}): delete it and record again, which "
        "records only the episodes that are missing"
    )
