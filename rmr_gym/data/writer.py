"""Writing data sets: one file an episode, there as a whole or not at all."""

import io
import logging
import math
import os
import threading
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin
import numpy as np
import xxhash
import zstandard

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import TEMPORARY, AnyPath, lock, os_errors, write_file
from rmr_gym.core.processes import interrupts_later
from rmr_gym.data import schema
from rmr_gym.data.reader import FRAME_BYTES, read_info, verify_episode
from rmr_gym.data.schema import ColumnSpec, Episode, Manifest

LOCK = ".lock"
_LEVEL = 3

_log = logging.getLogger(__name__)
_proven = threading.Event()
"""Set once this process has read back a file that it wrote: a library may write wrong ones."""


class DatasetWriter(AbstractContextManager["DatasetWriter"]):
    """Adds episodes to the data set in a folder, which it makes if there is none.

    An episode is compressed in memory while it grows; its file is then written under a temporary
    name, flushed to the disk and renamed. A run that is killed at any instant leaves every finished
    episode and at most a temporary file a process, which readers ignore and the next writer removes
    and says so (a warning of the logger ``rmr_gym.data.writer``, which Python shows by default).

    One recorder at a time writes a data set, beside it those that it has started. Where the system
    has no file locks (Windows, some network drives) a writer does not see the others: temporary
    files stay, and nobody is kept from writing what another one writes.

    Args:
        path: Folder of the data set.
        manifest: What holds for the whole data set.
        overwrite: Delete the episodes of the data set that is there.
        beside: Write beside another writer, episodes that it does not write.

    Raises:
        RMRError: The folder holds something else or a data set with another manifest, is being
            written by another recorder, or cannot be written.
    """

    def __init__(
        self, path: AnyPath, manifest: Manifest, *, overwrite: bool = False, beside: bool = False
    ):
        self.path = Path(path)
        self.manifest = manifest
        with os_errors(self.path):
            _check_folder(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        self._release = weakref.finalize(self, os.close, descriptor)
        try:
            with os_errors(self.path):
                alone = None if beside else lock(descriptor)
                if alone is False:
                    raise RMRError(
                        f"{self.path} is being written by another recorder: close it or wait for "
                        "its end, or choose another folder"
                    )
                self._prepare(bool(alone), overwrite)
                lock(descriptor, shared=True, wait=True)
        except BaseException:
            self._release()
            raise

    def episode(self, index: int, seed: int | None, head: str) -> "EpisodeWriter":
        """Begin episode ``index``; its file appears when `EpisodeWriter.finish` is called.

        Raises:
            RMRError: That episode is there already.
        """
        final = schema.episode_path(self.path, index)
        if final.exists():
            raise RMRError(f"{final} exists already: episodes are never overwritten")
        return EpisodeWriter(final, self.manifest, index, seed, head)

    def write(self, episode: Episode) -> None:
        """Write one whole episode.

        Raises:
            RMRError: It is there already, its columns are not those of the manifest, or the folder
                cannot be written.
        """
        wanted, columns = sorted(self.manifest.columns), episode.columns
        if sorted(columns) != wanted:
            raise RMRError(f"expected observations and steps {wanted}, found {sorted(columns)}")
        length = len(episode.actions)
        rows = {name: len(column) for name, column in columns.items()}
        if rows != {name: self.manifest.rows(name, length) for name in rows}:
            raise RMRError(
                f"expected {length} rows a step column and {length + 1} an observation column for "
                f"{length} actions, found {rows}"
            )
        writer = self.episode(episode.index, episode.seed, episode.head)
        writer.fill(episode)
        writer.finish(interrupted=episode.interrupted)

    def finished(self) -> list[int]:
        """Return the numbers of the episodes that are there."""
        return schema.episode_indices(self.path)

    def close(self) -> None:
        """Let other writers in; may be called twice."""
        self._release()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, alone: bool, overwrite: bool) -> None:
        folder, path = self.path / schema.EPISODES, self.path / schema.MANIFEST
        folder.mkdir(exist_ok=True)
        if alone:
            _remove([*self.path.glob(f".*{TEMPORARY}"), *folder.glob(f".*{TEMPORARY}")])
        if overwrite:
            for index in schema.episode_indices(self.path):
                schema.episode_path(self.path, index).unlink()
        if overwrite or not path.exists():
            write_file(path, self.manifest.to_json().encode())
        elif differences := schema.read_manifest(self.path).differences(self.manifest):
            raise RMRError(
                f"{self.path} holds another data set ({'; '.join(differences)}): choose another "
                "folder, or overwrite it"
            )


class EpisodeWriter:
    """One episode that grows in memory, compressed, until `finish` writes its file.

    Call `begin` once, `append` after every step, then `finish`. An episode that is never finished
    leaves nothing behind.
    """

    def __init__(self, final: Path, manifest: Manifest, index: int, seed: int | None, head: str):
        self.length = 0
        self._final, self._manifest = final, manifest
        self._about = {"index": index, "head": head, "seed": seed}
        self._steps: list[tuple[Any, ...]] = []
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._columns = {
            column.name: _GrowingColumn(column, self._compressor)
            for column in manifest.observations
        }

    def begin(self, observation: Mapping[str, Any]) -> None:
        """Take the observation that the reset returned, by column."""
        for name, column in self._columns.items():
            column.put(0, observation[name])

    def append(
        self,
        action: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        observation: Mapping[str, Any],
    ) -> None:
        """Take one step: what was done, and what it led to.

        A step that raises, or that Ctrl-C cuts, leaves the episode as it was before.
        """
        self._steps[self.length :] = [(action, reward, terminated, truncated)]
        for name, column in self._columns.items():
            column.put(self.length + 1, observation[name])
        self.length += 1

    def fill(self, episode: Episode) -> None:
        """Take a whole episode, of the columns of the manifest."""
        for name, column in self._columns.items():
            column.put_all(episode.observations[name])
        parts = (episode.rewards, episode.terminated, episode.truncated)
        self._steps = list(zip(episode.actions, *(part.tolist() for part in parts), strict=True))
        self.length = len(self._steps)

    def finish(self, *, interrupted: bool = False) -> None:
        """Write the file; the episode is on the disk when this returns.

        Raises:
            RMRError: It cannot be written, for instance because the disk is full.
        """
        if self.length == 0:
            raise RMRError(
                f"expected an episode of at least one step, found none for {self._final}"
            )
        steps = zip(*self._steps[: self.length], strict=True)
        for spec, values in zip(self._manifest.steps, steps, strict=True):
            self._columns[spec.name] = _GrowingColumn(spec, self._compressor)
            self._columns[spec.name].put_all(np.array(values), casting="same_kind")
        content = self._file_image(interrupted)
        self.abandon()
        with os_errors(self._final):
            write_file(self._final, content)
        if not _proven.is_set():
            self._read_back()

    @interrupts_later()
    def _read_back(self) -> None:
        try:
            verify_episode(read_info(self._final), self._manifest)
        except RMRError as error:
            self._final.unlink()
            raise RMRError(
                f"expected to read back what was written, found that h5py {h5py.__version__} (HDF5 "
                f"{h5py.version.hdf5_version}) wrote a damaged file, which is deleted: upgrade h5py"
            ) from error
        _proven.set()

    def abandon(self) -> None:
        """Forget the episode; may be called twice."""
        self._columns = {}

    @interrupts_later()
    def _file_image(self, interrupted: bool) -> bytes:
        """Return the bytes of the file."""
        image = io.BytesIO()
        with h5py.File(image, "w", libver=("v110", "v110")) as file:
            described = {
                name: column.store(file, self._manifest.rows(name, self.length))
                for name, column in self._columns.items()
            }
            file.attrs.update(self._attributes(described, interrupted))
        return image.getvalue()

    def _attributes(self, columns: dict[str, list[Any]], interrupted: bool) -> dict[str, Any]:
        about = {**self._about, "interrupted": interrupted}
        attributes = {
            "format": schema.FORMAT,
            "format_version": schema.FORMAT_VERSION,
            **about,
            "seed": schema.stored_seed(self._about["seed"]),
            "length": self.length,
            "total_reward": schema.total_reward(step[1] for step in self._steps[: self.length]),
            "sha256": schema.episode_checksum(columns, **about),
        }
        return {name: value for name, value in attributes.items() if value is not None}


class _GrowingColumn:
    """A column in the making: rows are collected, then hashed and compressed a chunk at a time.

    The newest row stays among those that are collected, so that it can be put again or dropped.
    HDF5 sees only finished chunks, at the end: its own pipeline costs three times what zstd does.
    """

    def __init__(self, spec: ColumnSpec, compressor: zstandard.ZstdCompressor):
        self._spec, self._compressor = spec, compressor
        self._block = np.zeros((_rows_a_chunk(spec), *spec.shape), spec.stored)
        self._shape, self._size = spec.shape, math.prod(spec.shape)
        self._chunks: list[bytes] = []
        # Hash and number of the rows in the chunks: one tuple, so that Ctrl-C parts neither.
        self._packed = (xxhash.xxh3_128(), 0)

    def put(self, row: int, value: Any) -> None:
        """Take ``value`` as row ``row``: the newest one again, or the one after it."""
        array, at = np.asarray(value), row - self._packed[1]
        if at == len(self._block):
            self._pack(at)
            at = 0
        if array.dtype != self._block.dtype or array.size != self._size:
            array = _typed(array, self._spec)
        self._block[at] = array if array.shape == self._shape else array.reshape(self._shape)

    def put_all(self, rows: np.ndarray, casting: Literal["safe", "same_kind"] = "safe") -> None:
        """Take all rows of a column that has none yet."""
        rows, most = _typed(rows, self._spec, rows.shape[:1], casting), len(self._block)
        for first in range(0, len(rows), most):
            if first > 0:
                self._pack(most)
            part = rows[first : first + most]
            self._block[: len(part)] = part

    def store(self, file: h5py.File, rows: int) -> list[Any]:
        """Write the first ``rows`` rows to the file; return their type, shape and checksum."""
        self._block = self._block[:rows]
        rest, most = rows - self._packed[1], len(self._block)
        if rest > 0:
            self._block[rest:] = 0
            self._pack(rest)
        dataset = file.create_dataset(
            self._spec.name,
            (rows, *self._spec.shape),
            self._block.dtype,
            chunks=self._block.shape,
            compression=hdf5plugin.Zstd(clevel=_LEVEL),
        )
        for i, chunk in enumerate(self._chunks):
            dataset.id.write_direct_chunk((i * most, *[0] * len(self._spec.shape)), chunk)
        sums = [xxhash.xxh3_64_intdigest(chunk) for chunk in self._chunks]
        dataset.attrs["chunks_xxh3_64"] = np.array(sums, "<u8")
        if self._spec.encoding != "raw":
            dataset.attrs["encoding"] = self._spec.encoding
        return [self._spec.dtype, rows, *self._spec.shape, self._packed[0].hexdigest()]

    def _pack(self, rows: int) -> None:
        """Compress the block, of which ``rows`` count; what Ctrl-C cuts here can be repeated."""
        digest, packed = self._packed
        digest = digest.copy()
        digest.update(self._block[:rows].data)
        self._chunks[packed // len(self._block) :] = [self._compressor.compress(self._block.data)]
        self._packed = digest, packed + rows


def _rows_a_chunk(spec: ColumnSpec) -> int:
    """Return 4 rows for frames, of which one alone is read, and about 64 KiB for small rows."""
    row_bytes = max(1, math.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    return 4 if row_bytes >= FRAME_BYTES else 65_536 // row_bytes


def _typed(
    array: np.ndarray,
    spec: ColumnSpec,
    rows: tuple[int, ...] = (),
    casting: Literal["safe", "same_kind"] = "safe",
) -> np.ndarray:
    """Return ``array`` as the column stores it; refuse what casting would change."""
    shape = (*rows, *spec.shape)
    if not np.can_cast(array.dtype, spec.stored, casting):
        raise RMRError(f"expected {spec.dtype} in column {spec.name!r}, found {array.dtype}")
    if array.size != math.prod(shape):
        raise RMRError(
            f"expected shape {spec.shape} in column {spec.name!r}, found {array.shape[len(rows) :]}"
        )
    return array.astype(spec.stored, copy=False).reshape(shape)


def _remove(leftovers: list[Path]) -> None:
    """Delete what a killed recorder had not finished, and say so."""
    for leftover in leftovers:
        leftover.unlink()
        _log.warning(
            "dropped %s, which a recorder that was killed had not finished; finished episodes are "
            "unharmed, and recording again with the same arguments records the one that is missing",
            leftover,
        )


def _check_folder(path: Path) -> None:
    """Refuse a folder that holds anything but a data set or the beginning of one."""
    if not path.exists():
        return
    names = {entry.name for entry in path.iterdir()} - {schema.MANIFEST, schema.EPISODES, LOCK}
    foreign = sorted(name for name in names if not name.endswith(TEMPORARY))
    torn = schema.episode_indices(path) and not (path / schema.MANIFEST).exists()
    if foreign or torn:
        found = f"{foreign[0]!r} in it" if foreign else "episodes without a manifest"
        raise RMRError(
            f"{path} is not an rmr_gym data set: expected an empty or new folder, or one of an "
            f"earlier recording, found {found}; choose another folder"
        )
