"""Reading the files of an artifact that may be damaged or hostile: sizes before memory, no code."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from rmr_gym.core.errors import RMRError

CONFIG, WEIGHTS = "config.json", "weights.safetensors"
_JSON_BYTES = 1 << 20
_NEVER_READ = (".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")


def read_config(folder: Path, kinds: Collection[str], newest: int) -> dict[str, Any]:
    """Return the configuration file of an artifact.

    Args:
        folder: Of the artifact.
        kinds: Its ``format`` must be one of them.
        newest: Newest version that can be read.

    Raises:
        RMRError: It is missing, damaged, of another kind or newer.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise RMRError(f"{folder} holds no {CONFIG}: expected the folder of a pretrained encoder")
    record = _json(_bytes_of(path, _JSON_BYTES), path)
    if record.get("format") not in kinds:
        raise RMRError(
            f"{path} is not of a pretrained encoder: expected format "
            f"{' or '.join(map(repr, kinds))}, found {_short(record.get('format'))}"
        )
    found = record.get("version")
    if type(found) is not int or found < 1:
        raise RMRError(f"{path} is damaged: expected a version from 1, found {_short(found)}")
    if found > newest:
        raise RMRError(
            f"{folder} is of version {found}, newer than this rmr-gym reads ({newest}): "
            "upgrade rmr-gym"
        )
    return record


def read_tensors(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the weights, after their header was found to name just the tensors expected.

    Args:
        folder: Of the artifact.
        expected: Tensors of the right shapes by name, on the meta device; all are 32-bit floats.

    Raises:
        RMRError: They are missing, damaged, of other names or shapes, or not finite.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        pickles = [each.name for each in folder.iterdir() if each.suffix in _NEVER_READ]
        never = f"; {', '.join(sorted(pickles))} can run code and is never read" if pickles else ""
        raise RMRError(f"{folder} holds no {WEIGHTS}{never}: write the artifact again")
    length, header = _read_header(path)
    header.pop("__metadata__", None)
    shapes = {name: ["F32", list(tensor.shape)] for name, tensor in expected.items()}
    found = {
        name: [entry.get("dtype"), entry.get("shape")] if isinstance(entry, dict) else None
        for name, entry in header.items()
    }
    if found != shapes:
        wrong = sorted(name for name in found | shapes if found.get(name) != shapes.get(name))
        first = wrong[0]
        raise RMRError(
            f"{path} does not fit {CONFIG}: expected {_short(shapes.get(first))} as {_short(first)}"
            f", found {_short(found.get(first))} ({len(wrong)} tensors differ); nothing was loaded"
        )
    size = 8 + length + sum(4 * tensor.numel() for tensor in expected.values())
    if path.stat().st_size != size:
        raise RMRError(
            f"{path} is damaged: expected {size} bytes, found {path.stat().st_size}; write the "
            "artifact again"
        )
    try:
        tensors = load(_bytes_of(path, size))
    except (SafetensorError, ValueError) as error:
        raise RMRError(f"{path} is damaged ({error}): write the artifact again") from error
    broken = sorted(name for name, part in tensors.items() if not bool(part.isfinite().all()))
    if broken:
        raise RMRError(f"{path} holds numbers that are not finite, in {', '.join(broken[:3])}")
    return tensors


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return length and content of the JSON that a safetensors file begins with."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, _JSON_BYTES))
    except OSError as error:
        raise RMRError(f"cannot read {path}: {error.strerror or error}") from error
    if not 2 <= length <= min(_JSON_BYTES, size - 8):
        raise RMRError(f"{path} is no safetensors file, or damaged: write the artifact again")
    return length, _json(text, path)


def _json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RMRError(
            f"{path} is damaged ({type(error).__name__}): write the artifact again"
        ) from error
    if not isinstance(value, dict):
        raise RMRError(f"{path} is damaged: expected a JSON object")
    return value


def _bytes_of(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise RMRError(f"cannot read {path}: {error.strerror or error}") from error
    if len(content) > limit:
        raise RMRError(f"{path} is damaged: expected at most {limit} bytes")
    return content


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
