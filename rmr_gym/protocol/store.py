"""The only part of the protocol that touches the disk: results found again by what made them."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import alone, os_errors, sync_folder

STAGE_VERSIONS = {
    "pretrain": 2,
    "natural": 2,
    "supervised": 2,
    "probe": 1,
    "balls_pretrain": 2,
    "balls_rollouts": 1,
    "balls_natural": 2,
    "balls_natural_scores": 1,
    "natural_pipeline": 2,
    "ranking": 1,
    "label_probe": 1,
    "memory_probe": 1,
    "copying_task": 2,
    "world_model": 2,
    "world_model_scores": 1,
}
"""Raised by one whenever a stage computes something else, so that old results are not reused."""

_TENSORS, _RECORD = "tensors.safetensors", "record.json"


@dataclass(frozen=True)
class Artifact:
    """What a stage leaves: tensors by name and a JSON record."""

    record: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose name starts with ``prefix.``, without the prefix."""
        start = prefix + "."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def write_artifact(folder: Path, artifact: Artifact, *, overwrite: bool = False) -> Path:
    """Write an artifact folder so that it is there whole or not at all.

    Raises:
        RMRError: If the folder exists and ``overwrite`` is off, or cannot be written.
    """
    if folder.exists() and not overwrite:
        raise RMRError(f"{folder} exists already: choose another folder or overwrite it (--force)")
    with os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _fill(temporary, artifact)
            if overwrite:
                shutil.rmtree(folder, ignore_errors=True)
            _move_into_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_artifact(folder: Path) -> Artifact:
    """Read an artifact folder; nothing in it is executed.

    Raises:
        RMRError: If it is missing, truncated or of another kind.
    """
    if not (folder / _RECORD).is_file():
        raise RMRError(
            f"{folder} holds no {_RECORD}: expected a folder written by `rmr-gym pretrain` or "
            "`rmr-gym train`"
        )
    try:
        record = json.loads((folder / _RECORD).read_text())
        tensors = load_file(folder / _TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise RMRError(f"{folder} is damaged ({error}): write it again") from error
    if not isinstance(record, dict):
        raise RMRError(f"{folder / _RECORD} is not an rmr_gym record: expected a JSON object")
    return Artifact(record, tensors)


class Scratch:
    """Room for the unfinished state of one stage, so that a killed run goes on where it was."""

    def __init__(self, folder: Path):
        self.folder = folder

    def load(self) -> Artifact | None:
        """Return the last saved state, or None; a damaged one counts as none."""
        try:
            return read_artifact(self.folder)
        except RMRError:
            return None

    def save(self, state: Artifact) -> None:
        """Replace the saved state."""
        write_artifact(self.folder, state, overwrite=True)

    def clear(self) -> None:
        """Forget the saved state."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Store:
    """Finished stages under one root folder, found by the hash of what went into them.

    A key is JSON: configuration and inputs. Stage versions and the versions of torch and numpy are
    added to it, so that a result is reused only where it would come out again.

    Raises:
        RMRError: If the root cannot be written.
    """

    def __init__(self, root: Path):
        self.root = root
        with os_errors(root):
            root.mkdir(parents=True, exist_ok=True)

    def folder(self, stage: str, key: dict[str, Any]) -> Path:
        """Return where the result of ``stage`` for ``key`` is or would be."""
        whole = {
            "stage": stage,
            "version": STAGE_VERSIONS[stage],
            "torch": version("torch"),
            "numpy": version("numpy"),
            "key": key,
        }
        text = json.dumps(whole, sort_keys=True, allow_nan=False)
        return self.root / stage / hashlib.sha256(text.encode()).hexdigest()[:20]

    def get_or_run(
        self, stage: str, key: dict[str, Any], run: Callable[[Scratch], Artifact]
    ) -> Artifact:
        """Return the finished result, or compute, keep and return it.

        The wall-clock time of the computation is added to the record as ``seconds``. Who asks for
        what another process is computing waits for it.
        """
        folder = self.folder(stage, key)
        if (folder / _RECORD).is_file():
            return read_artifact(folder)
        lock = folder.with_name(folder.name + ".lock")
        with alone(lock):
            if (folder / _RECORD).is_file():
                return read_artifact(folder)
            scratch = Scratch(folder.with_name(folder.name + ".part"))
            started = time.perf_counter()
            artifact = run(scratch)
            artifact.record["seconds"] = time.perf_counter() - started
            try:
                write_artifact(folder, artifact)
            except RMRError:
                if not (folder / _RECORD).is_file():
                    raise
            scratch.clear()
            lock.unlink(missing_ok=True)
            return artifact


def _fill(folder: Path, artifact: Artifact) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in artifact.tensors.items()}
    save_file(contiguous, folder / _TENSORS)
    text = json.dumps(artifact.record, indent=1, sort_keys=True)
    (folder / _RECORD).write_text(text)
    for name in (_TENSORS, _RECORD):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def _move_into_place(temporary: Path, folder: Path) -> None:
    temporary.chmod(0o755)
    temporary.replace(folder)
    sync_folder(folder.parent)
