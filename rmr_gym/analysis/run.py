"""A run folder read back: its tables, its description, its frames, and the order of its arms."""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from rmr_gym.errors import RMRError

SLOTS = 128
"""RAM bytes, and so slots, of the machine."""

ARM_LABELS = {
    "rmr": "RMR (frozen P)",
    "cswm": "C-SWM (P trained)",
    "random_p": "frozen random P",
    "shuffled_p": "weight-shuffled P",
    "no_p": "no P",
    "untrained": "untrained encoder",
    "supervised": "supervised on RAM (ceiling)",
    "pca": "pixels through PCA",
}
"""Arms in the order in which every table and figure shows them."""

MODEL_LABELS = {
    "copy": "copy baseline",
    "mlp": "MLP",
    "deep_sets": "Deep Sets",
    "mpnn": "MPNN",
}
"""Abstract models in the order of the paper's Table 2."""

OBJECTIVE_LABELS = {"cswm": "C-SWM hinge", "infonce": "InfoNCE"}

PROBE_LABELS = {
    "ridge": "ridge",
    "adam_raw": "Adam on raw features",
    "adam_std": "Adam on standardised features",
}
"""Probes, the headline first."""

REFERENCE_ARMS = ("untrained", "supervised", "pca")
"""Arms that depend on no objective; without a row at the step asked for, their last one counts."""

SEEDLESS_ARMS = ("pca",)
"""Arms without randomness: noted once, they stand beside every seed."""

_TEXT = ("game", "model", "objective", "arm", "probe", "stage")
_WHOLE = ("seed", "step")
_ABSTRACT_KEY = ("game", "model", "seed", "step")
_NATURAL_KEY = ("game", "objective", "arm", "seed", "step")
_BITS = ("slot_accuracy", "bit_f1", "bit_accuracy", "mask_accuracy")
_PROBED = ("micro_f1", "macro_f1", "slot_accuracy", "effective_rank", "dead_slots")
KEYS: dict[str, tuple[str, ...]] = {
    "abstract": _ABSTRACT_KEY,
    "abstract_curves": _ABSTRACT_KEY,
    "natural": (*_NATURAL_KEY, "probe"),
    "natural_curves": _NATURAL_KEY,
    "timings": (),
}
"""Columns that name a row of each table; a name stands once, except in the timings."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "abstract": (*_ABSTRACT_KEY, *_BITS, "loss"),
    "abstract_curves": (*_ABSTRACT_KEY, "loss"),
    "natural": (*KEYS["natural"], *_PROBED),
    "natural_curves": (*_NATURAL_KEY, "loss", "positive_energy", "negative_energy"),
    "timings": ("game", "stage", "arm", "seed", "seconds"),
}
"""Columns of each table."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder in memory; a table that is missing there is empty here.

    Attributes:
        folder: Where it was read from.
        info: What run.json says: command, preset, versions, machine, data sets.
        abstract: Scores of the abstract models, one row a (game, model, seed, step).
        abstract_curves: Their training losses.
        natural: Probe scores, one row a (game, objective, arm, seed, step, probe).
        natural_curves: Training losses and energies of the arms.
        timings: Seconds a stage took, by game, arm and seed.
        frames: ``<Game>_rgb`` uint8[k, height, width, 3] and ``<Game>_ram`` uint8[k, 128].
    """

    folder: Path
    info: dict[str, Any]
    abstract: pd.DataFrame
    abstract_curves: pd.DataFrame
    natural: pd.DataFrame
    natural_curves: pd.DataFrame
    timings: pd.DataFrame
    frames: dict[str, UInt8[np.ndarray, "..."]]

    @property
    def games(self) -> list[str]:
        """Games of the run: in run.json's order, then those that only the tables name."""
        named = self.info.get("games")
        listed = [str(game) for game in named] if isinstance(named, list) else []
        tables = (self.abstract, self.abstract_curves, self.natural, self.natural_curves)
        found = {str(game) for table in tables for game in table["game"]}
        return [game for game in listed if game in found] + sorted(found - set(listed))

    @property
    def probes(self) -> list[str]:
        """Probes of the natural table, the headline first."""
        return in_order(self.natural["probe"], PROBE_LABELS)


def in_order(names: Iterable[str], labels: dict[str, str]) -> list[str]:
    """Return the distinct names, known ones in the order of ``labels``, others sorted after."""
    present = set(names)
    return [name for name in labels if name in present] + sorted(present - set(labels))


def where(frame: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Return the rows in which each named column has the value, or one of the values, wanted."""
    mask = np.ones(len(frame), bool)
    for column, value in wanted.items():
        options = list(value) if isinstance(value, list | tuple | set) else [value]
        mask &= frame[column].isin(options).to_numpy(bool)
    return pd.DataFrame(frame[mask])


def values(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column as an array."""
    return np.asarray(frame[column])


def blocks(frame: pd.DataFrame, *columns: str) -> dict[tuple[Any, ...], list[dict[Any, Any]]]:
    """Return the rows as records, put together by the values of the columns, in order."""
    found: dict[tuple[Any, ...], list[dict[Any, Any]]] = {}
    for row in frame.to_dict("records"):
        found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def load_run(folder: Path | str) -> Run:
    """Read a run folder; tables that are not there yet become empty tables.

    Args:
        folder: A folder written by ``rmr-gym demo`` or ``rmr-gym compare``.

    Raises:
        RMRError: If it is no run folder, or a file in it is damaged.
    """
    folder = Path(folder)
    expected = ["run.json", *(f"{name}.csv" for name in COLUMNS)]
    if not any((folder / name).is_file() for name in expected):
        found = "a folder with none of them" if folder.is_dir() else "no folder"
        raise RMRError(
            f"{folder} is not a run: expected a folder with run.json and natural.csv, found "
            f"{found}; make one with `rmr-gym demo` or `rmr-gym compare`"
        )
    tables = {name: _read_table(folder / f"{name}.csv", name) for name in COLUMNS}
    return Run(folder=folder, info=_read_info(folder), frames=_read_frames(folder), **tables)


def _read_table(path: Path, name: str) -> pd.DataFrame:
    columns, key = COLUMNS[name], list(KEYS[name])
    frame = _read_csv(path) if path.is_file() else None
    frame = pd.DataFrame(columns=list(columns)) if frame is None else frame
    missing = [column for column in (key or columns) if column not in frame]
    if missing:
        raise RMRError(
            f"{path} lacks the columns {', '.join(missing)}: expected {', '.join(columns)}; it may "
            "be another program's file: delete it and run `rmr-gym compare` again"
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
            "expected one; delete it and run `rmr-gym compare` again"
        )
    return frame


def _read_csv(path: Path) -> pd.DataFrame | None:
    """Return a table; None for a file without as much as a header."""
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str))
    except pd.errors.EmptyDataError:
        return None
    except (ValueError, OSError) as error:
        raise RMRError(
            f"{path} cannot be read as CSV ({error}): delete it and run `rmr-gym compare` again"
        ) from error


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
            f"{path}, column {column}: expected numbers, found {error}; delete the file and run "
            "`rmr-gym compare` again"
        ) from error
    return np.where(np.isnan(numbers), -1, numbers).astype(int) if column in _WHOLE else numbers


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.is_file():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RMRError(f"{path} is not JSON ({error}): run `rmr-gym compare` again") from error
    if not isinstance(info, dict):
        raise RMRError(f"{path}: expected a JSON object, found {type(info).__name__}")
    return info


def _read_frames(folder: Path) -> dict[str, np.ndarray]:
    path = folder / "frames.npz"
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if archive[name].dtype == "u1"}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise RMRError(
            f"{path} cannot be read ({error}): delete it and run `rmr-gym compare` again"
        ) from error
