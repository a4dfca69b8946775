"""The files of a run folder, read strictly: what is damaged is named, and how to mend it."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from rmr_gym.core.errors import RMRError

_TEXT = (
    *("game", "recipient", "donor", "model", "objective", "arm", "probe", "stage"),
    *("key", "state", "error", "category", "label", "test"),
)
_WHOLE = ("seed", "step", "dim", "attempts")
_AGAIN = "delete it and run the command that wrote it again"


def read_table(path: Path, columns: Sequence[str], key: Sequence[str]) -> pd.DataFrame:
    """Read a table of a run; one that is not there, or has no header yet, is empty.

    Args:
        path: The CSV file.
        columns: What it should hold: text as text, numbers as float (NaN if not noted), seeds,
            steps and sizes whole (-1 if not noted). Further columns are kept as they are.
        key: Columns that must be there and that together name a row; none: rows have no name.

    Raises:
        RMRError: If it is damaged, lacks a column of its key, or has two rows of one name.
    """
    key = list(key)
    frame = _read_csv(path) if path.is_file() else None
    frame = pd.DataFrame(columns=list(columns)) if frame is None else frame
    missing = [column for column in (key or columns) if column not in frame]
    if missing:
        raise RMRError(
            f"{path} lacks the columns {', '.join(missing)}: expected {', '.join(columns)}; it may "
            f"be another program's file: {_AGAIN}"
        )
    others = [column for column in frame if column not in columns]
    frame = pd.DataFrame(
        {column: _typed(frame, column, path) for column in columns}
        | {column: frame[column] for column in others}
    )
    if key and frame.duplicated(key).any():
        first = frame.to_dict("records")[int(np.argmax(frame.duplicated(key)))]
        raise RMRError(
            f"{path} has two rows for {', '.join(f'{name} {first[name]}' for name in key)}: "
            f"expected one; {_AGAIN}"
        )
    return frame


def _read_csv(path: Path) -> pd.DataFrame | None:
    """Return a table; None for a file without as much as a header."""
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str))
    except pd.errors.EmptyDataError:
        return None
    except (ValueError, OSError) as error:
        raise RMRError(f"{path} cannot be read as CSV ({error}): {_AGAIN}") from error


def _typed(frame: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """Text as text, numbers as float (NaN if not there), seeds and steps whole (-1: not noted)."""
    if column not in frame:
        return np.full(len(frame), np.nan)
    found = frame[column].to_numpy(object)
    if column in _TEXT:
        return np.array(["" if pd.isna(value) else str(value) for value in found], object)
    try:
        numbers = np.array([float(value) for value in found])
    except (ValueError, TypeError) as error:
        raise RMRError(
            f"{path}, column {column}: expected numbers, found {error}; {_AGAIN}"
        ) from error
    return np.where(np.isnan(numbers), -1, numbers).astype(int) if column in _WHOLE else numbers


def read_info(folder: Path) -> dict[str, Any]:
    """Read run.json; nothing where it is missing.

    Raises:
        RMRError: If it is no JSON object.
    """
    path = folder / "run.json"
    if not path.is_file():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RMRError(f"{path} is not JSON ({error}): {_AGAIN}") from error
    if not isinstance(info, dict):
        raise RMRError(f"{path}: expected a JSON object, found {type(info).__name__}")
    return info


def read_frames(folder: Path) -> dict[str, UInt8[np.ndarray, "..."]]:
    """Read the byte arrays of frames.npz; nothing where it is missing.

    Raises:
        RMRError: If it is damaged, or holds pickled objects.
    """
    path = folder / "frames.npz"
    arrays = read_arrays(path) if path.is_file() else {}
    return {name: array for name, array in arrays.items() if array.dtype == "u1"}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an NPZ file.

    Raises:
        RMRError: If it is damaged, or holds pickled objects.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise RMRError(f"{path} cannot be read ({error}): {_AGAIN}") from error
