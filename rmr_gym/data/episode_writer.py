"""One episode that grows in memory until its file is written."""

import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin
import numpy as np
import xxhash
import zstandard

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import os_errors, write_file
from rmr_gym.data.schema import FORMAT, FORMAT_VERSION, ColumnSpec, Manifest, episode_checksum

_LEVEL = 3
_FRAME_BYTES = 4096
_FRAMES_A_CHUNK = 4
_CHUNK_BYTES = 65536


class EpisodeWriter:
    """One episode that grows in memory, compressed, until `finish` writes its file.

    Call `begin` once, `append` after every step, then `finish`. An episode that is never finished
    leaves nothing behind.
    """

    def __init__(self, final: Path, manifest: Manifest, index: int, seed: int | None, head: str):
        self.length, self._begun = 0, False
        self._final, self._manifest = final, manifest
        self._index, self._seed, self._head = index, seed, head
        self._steps: list[tuple[Any, ...]] = []
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._columns = {
            column.name: _GrowingColumn(column, self._compressor)
            for column in manifest.observations
        }

    def rows(self) -> dict[str, np.ndarray]:
        """Return, by column, the row that the next observation will be.

        Who fills these arrays and passes them to `begin` or `append` saves a copy. They hold until
        the observation after the next one.
        """
        at = self.length + 1 if self._begun else 0
        return {name: column.row(at) for name, column in self._columns.items()}

    def begin(self, observation: Mapping[str, Any]) -> None:
        """Take the observation that the reset returned, by column."""
        for name, column in self._columns.items():
            column.put(0, observation[name])
        self._begun = True

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
            self._columns[spec.name] = self._step_column(spec, values)
        content = self._file_image(interrupted)
        self.abandon()
        with os_errors(self._final):
            write_file(self._final, content)

    def abandon(self) -> None:
        """Forget the episode; may be called twice."""
        self._columns = {}

    def _step_column(self, spec: ColumnSpec, values: tuple[Any, ...]) -> "_GrowingColumn":
        column = _GrowingColumn(spec, self._compressor)
        column.put_all(_typed(np.array(values), spec, (self.length,), casting="same_kind"))
        return column

    def _file_image(self, interrupted: bool) -> bytes:
        """Return the bytes of the file."""
        steps = {spec.name for spec in self._manifest.steps}
        with h5py.File(
            uuid.uuid4().hex,
            "w",
            driver="core",
            backing_store=False,
            block_size=1 << 20,
            libver=("v110", "v110"),
        ) as file:
            described = {
                name: column.store(file, self.length + (name not in steps))
                for name, column in self._columns.items()
            }
            for name, value in self._attributes(described, interrupted).items():
                file.attrs[name] = value
            file.flush()
            return file.id.get_file_image()

    def _attributes(
        self, columns: dict[str, tuple[str, list[int], str]], interrupted: bool
    ) -> dict[str, Any]:
        attributes = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "index": self._index,
            "head": self._head,
            "interrupted": interrupted,
            "length": self.length,
            "total_reward": math.fsum(step[1] for step in self._steps[: self.length]),
            "sha256": episode_checksum(self._index, self._seed, self._head, interrupted, columns),
        }
        return attributes if self._seed is None else {**attributes, "seed": self._seed}


class _GrowingColumn:
    """A column in the making: rows are collected, then hashed and compressed a chunk at a time.

    The newest row stays among those that are collected, so that it can be put again or dropped.
    HDF5 sees only finished chunks, at the end: its own pipeline costs three times what zstd does.
    """

    def __init__(self, spec: ColumnSpec, compressor: zstandard.ZstdCompressor):
        self._spec, self._compressor = spec, compressor
        self._block = np.zeros((_rows_a_chunk(spec), *spec.shape), _little_endian(spec.dtype))
        self._chunks: list[bytes] = []
        self._packed = (xxhash.xxh3_128(), 0)
        self._given = -1

    def put(self, row: int, value: Any) -> None:
        """Take ``value`` as row ``row``: the newest one again, or the one after it."""
        if self._given == row and getattr(value, "base", None) is self._block:
            return
        array, target = np.asarray(value), self._place(row)
        if array.shape != target.shape or array.dtype != target.dtype:
            array = _typed(array, self._spec)
        target[...] = array

    def row(self, row: int) -> np.ndarray:
        """Return the place of row ``row``, to be filled and then put."""
        self._given = row
        return self._place(row)

    def _place(self, row: int) -> np.ndarray:
        at = row - self._packed[1]
        if at == len(self._block):
            self._pack(at)
            at = 0
        return self._block[at, ...]

    def put_all(self, rows: np.ndarray) -> None:
        """Take all rows of a column that has none yet."""
        most = len(self._block)
        for first in range(0, len(rows), most):
            if first > 0:
                self._pack(most)
            part = rows[first : first + most]
            self._block[: len(part)] = part

    def store(self, file: h5py.File, rows: int) -> tuple[str, list[int], str]:
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
        return self._spec.dtype, [rows, *self._spec.shape], self._packed[0].hexdigest()

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
    return _FRAMES_A_CHUNK if row_bytes >= _FRAME_BYTES else _CHUNK_BYTES // row_bytes


def _little_endian(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _typed(
    array: np.ndarray,
    spec: ColumnSpec,
    rows: tuple[int, ...] = (),
    casting: Literal["safe", "same_kind"] = "safe",
) -> np.ndarray:
    """Return ``array`` as the column stores it; refuse what casting would change."""
    stored = _little_endian(spec.dtype)
    shape = (*rows, *spec.shape)
    if not np.can_cast(array.dtype, stored, casting):
        raise RMRError(f"expected {spec.dtype} in column {spec.name!r}, found {array.dtype}")
    if array.size != math.prod(shape):
        raise RMRError(f"expected shape {shape} in column {spec.name!r}, found {array.shape}")
    return array.astype(stored, copy=False).reshape(shape)
