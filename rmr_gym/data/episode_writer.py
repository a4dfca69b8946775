"""One episode that grows in memory until its file is written."""

import hashlib
import math
import uuid
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import h5py
import hdf5plugin
import numpy as np

from rmr_gym.atomic import os_errors, write_file
from rmr_gym.data.schema import FORMAT, FORMAT_VERSION, ColumnSpec, Manifest, episode_checksum
from rmr_gym.errors import RMRError

BLOCK = 64
"""At least so many observations are kept before they are hashed and compressed together."""

_FRAME_BYTES = 4096
_FRAMES_A_CHUNK = 8
_CHUNK_BYTES = 65536


class EpisodeWriter:
    """One episode that grows in memory, compressed, until `finish` writes its file.

    Call `begin` once, `append` after every step, then `finish`. An episode that is never finished
    leaves nothing behind.
    """

    def __init__(self, final: Path, manifest: Manifest, index: int, seed: int | None, head: str):
        self.length = 0
        self._final, self._manifest = final, manifest
        self._index, self._seed, self._head = index, seed, head
        self._steps: dict[str, list[Any]] = {column.name: [] for column in manifest.steps}
        self._file = h5py.File(
            uuid.uuid4().hex,
            "w",
            driver="core",
            backing_store=False,
            block_size=1 << 20,
            libver=("v110", "v110"),
        )
        self._hasher = ThreadPoolExecutor(1, "rmr-gym-sha256")
        self._columns = {
            column.name: _GrowingColumn(self._file, column, self._hasher)
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
        step = (action, reward, terminated, truncated)
        for column, value in zip(self._steps.values(), step, strict=True):
            column[self.length :] = [value]
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
        digests = {name: column.finish(self.length + 1) for name, column in self._columns.items()}
        for spec in self._manifest.steps:
            digests[spec.name] = self._write_steps(spec)
        self._write_attributes(digests, interrupted)
        self._file.flush()
        content = self._file.id.get_file_image()
        self.abandon()
        with os_errors(self._final):
            write_file(self._final, content)

    def abandon(self) -> None:
        """Forget the episode; may be called twice."""
        self._hasher.shutdown()
        self._file.close()

    def _write_steps(self, spec: ColumnSpec) -> tuple[str, list[int], str]:
        values = np.array(self._steps[spec.name][: self.length])
        rows = _typed(values, spec, (self.length,), casting="same_kind")
        options = _storage(spec, most=self.length)
        dataset = self._file.create_dataset(spec.name, data=rows, **options)
        sha = hashlib.sha256(rows.tobytes()).hexdigest()
        dataset.attrs["sha256"] = sha
        return spec.dtype, [*rows.shape], sha

    def _write_attributes(
        self, columns: dict[str, tuple[str, list[int], str]], interrupted: bool
    ) -> None:
        attributes = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "index": self._index,
            "head": self._head,
            "interrupted": interrupted,
            "length": self.length,
            "total_reward": math.fsum(self._steps["reward"][: self.length]),
            "sha256": episode_checksum(self._index, self._seed, self._head, interrupted, columns),
        }
        if self._seed is not None:
            attributes["seed"] = self._seed
        for name, value in attributes.items():
            self._file.attrs[name] = value


class _GrowingColumn:
    """An observation column: rows are collected, then hashed and compressed a block at a time.

    A block is a number of whole chunks, each of which is written once; HDF5's own cache of chunks
    would only cost time. The newest row stays in the block, so that it can be put again or dropped.
    Another thread hashes a block while the next one is filled.
    """

    def __init__(self, file: h5py.File, spec: ColumnSpec, hasher: Executor):
        storage = _storage(spec)
        rows, dtype = storage["chunks"][0], _little_endian(spec.dtype)
        self._spec, self._hasher = spec, hasher
        self._block, self._spare = np.empty((2, rows * -(-BLOCK // rows), *spec.shape), dtype)
        self._written = 0
        self._sha = hashlib.sha256()
        self._hashed: Future[None] | None = None
        self._dataset = file.create_dataset(
            spec.name,
            (0, *spec.shape),
            dtype,
            maxshape=(None, *spec.shape),
            rdcc_nbytes=1,
            **storage,
        )

    def put(self, row: int, value: Any) -> None:
        if row - self._written == len(self._block):
            self._write(len(self._block))
        array, target = np.asarray(value), self._block[row - self._written, ...]
        if array.size != target.size or array.dtype != target.dtype:
            array = _typed(array, self._spec)
        target[...] = array.reshape(target.shape)

    def finish(self, rows: int) -> tuple[str, list[int], str]:
        self._write(rows - self._written)
        self._wait()
        self._dataset.attrs["sha256"] = self._sha.hexdigest()
        if self._spec.encoding != "raw":
            self._dataset.attrs["encoding"] = self._spec.encoding
        return self._spec.dtype, [*self._dataset.shape], self._sha.hexdigest()

    def _write(self, rows: int) -> None:
        self._wait()
        self._hashed = self._hasher.submit(self._sha.update, self._block[:rows])
        self._dataset.resize(self._written + rows, axis=0)
        self._dataset[self._written :] = self._block[:rows]
        self._written += rows
        self._block, self._spare = self._spare, self._block

    def _wait(self) -> None:
        """Wait until the spare block is hashed and may be filled again."""
        if self._hashed is not None:
            self._hashed.result()


def _storage(spec: ColumnSpec, most: int | None = None) -> dict[str, Any]:
    """Return chunk size, compression and check sums of a column."""
    row_bytes = max(1, math.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    rows = _FRAMES_A_CHUNK if row_bytes >= _FRAME_BYTES else _CHUNK_BYTES // row_bytes
    chunk = (min(rows, most or rows), *spec.shape)
    return {"chunks": chunk, "compression": hdf5plugin.Zstd(clevel=3), "fletcher32": True}


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
