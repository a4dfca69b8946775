"""Reading one episode's file."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (makes HDF5 read zstd)
import numpy as np

from rmr_gym.data.schema import FORMAT, FORMAT_VERSION, ColumnSpec, Manifest, episode_checksum
from rmr_gym.errors import RMRError


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


@contextmanager
def _episode_file(path: Path) -> Iterator[h5py.File]:
    """Open an episode; what h5py finds wrong with it becomes one clear error."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except RMRError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, what: str) -> RMRError:
    return RMRError(
        f"{path} is truncated, damaged or foreign ({what}): delete it and record again, which "
        "records only the episodes that are missing"
    )


def read_info(path: Path) -> EpisodeInfo:
    """Return what an episode's attributes say.

    Raises:
        RMRError: The file is truncated, damaged, foreign or of a newer format.
    """
    with _episode_file(path) as file:
        attributes: dict[str, Any] = dict(file.attrs)
        if attributes.get("format") != FORMAT:
            raise _damaged(path, f"it has no attribute format = {FORMAT!r}")
        version = int(attributes["format_version"])
        if version > FORMAT_VERSION:
            raise RMRError(
                f"{path} has format version {version}, expected at most {FORMAT_VERSION}: "
                "upgrade rmr-gym to read it"
            )
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


def read_column(
    path: Path, spec: ColumnSpec, rows: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Return a column of an episode, read into ``out`` where there is one.

    Raises:
        RMRError: The column is not there, not as expected, or damaged.
    """
    with _episode_file(path) as file:
        dataset = file.get(spec.name)
        if not isinstance(dataset, h5py.Dataset):
            raise _damaged(path, f"it has no column {spec.name!r}")
        expected = ((rows, *spec.shape), np.dtype(spec.dtype))
        if (dataset.shape, dataset.dtype) != expected:
            found = f"{dataset.dtype}{list(dataset.shape)}"
            wanted = f"{spec.dtype}{list(expected[0])}"
            raise _damaged(path, f"column {spec.name!r} is {found}, expected {wanted}")
        out = np.empty(expected[0], expected[1]) if out is None else out
        dataset.read_direct(out)
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
        sha = hashlib.sha256(rows.tobytes()).hexdigest()
        described[name] = (spec.dtype, rows.shape, sha)
        if name == "reward" and math.fsum(rows.tolist()) != info.total_reward:
            raise _damaged(path, "its rewards do not add up to its total reward")
    checksum = episode_checksum(info.index, info.seed, info.head, info.interrupted, described)
    if checksum != info.checksum:
        raise _damaged(path, "it does not match its checksum")
