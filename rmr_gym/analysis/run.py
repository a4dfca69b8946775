"""A run folder read back: its tables, its description, its frames, and the order of its arms."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from rmr_gym.analysis.run_files import read_frames, read_info, read_table
from rmr_gym.core.errors import RMRError

SWEEP_KINDS = ("transfer", "bottleneck")
"""Kinds of run whose scores need more columns than a comparison's."""

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

OBJECTIVE_LABELS = {
    "cswm": "C-SWM hinge",
    "infonce": "InfoNCE",
    "infonce_slow": "InfoNCE, lower rate",
    "infonce_current": "InfoNCE, the state itself a negative",
    "infonce_3step": "InfoNCE, 3 steps",
    "cswm_aligned": "C-SWM hinge, aligned start",
    "infonce_aligned": "InfoNCE, aligned start",
}

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

CELL_STATES = ("done", "failed", "waiting")
"""States of a sweep's cells, in order."""

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
    "cells": ("key",),
}
"""Columns that name a row of each table; a name stands once, except in the timings."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "abstract": (*_ABSTRACT_KEY, *_BITS, "loss"),
    "abstract_curves": (*_ABSTRACT_KEY, "loss"),
    "natural": (*KEYS["natural"], *_PROBED),
    "natural_curves": (*_NATURAL_KEY, "loss", "positive_energy", "negative_energy"),
    "timings": ("game", "stage", "arm", "seed", "seconds"),
    "cells": ("key", "state", "seconds", "attempts", "error"),
}
"""Columns of each table."""


_FILES = {"cells": "jobs"}


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
        cells: What became of each cell of a sweep: state (done, failed, waiting), error.
        frames: ``<Game>_rgb`` uint8[k, height, width, 3] and ``<Game>_ram`` uint8[k, 128].
    """

    folder: Path
    info: dict[str, Any]
    abstract: pd.DataFrame
    abstract_curves: pd.DataFrame
    natural: pd.DataFrame
    natural_curves: pd.DataFrame
    timings: pd.DataFrame
    cells: pd.DataFrame
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


def in_order(names: Iterable[str], labels: Iterable[str]) -> list[str]:
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


def run_kind(folder: Path) -> str:
    """Return the kind of a run folder: what run.json says, else what its tables are of.

    Raises:
        RMRError: If run.json is damaged.
    """
    found = [kind for kind in SWEEP_KINDS if (folder / f"{kind}.csv").is_file()]
    return str(read_info(folder).get("kind", (*found, "compare")[0]))


def load_run(folder: Path | str) -> Run:
    """Read the run folder of a comparison; tables that are not there yet become empty tables.

    Args:
        folder: A folder written by ``rmr-gym demo`` or ``rmr-gym compare``.

    Raises:
        RMRError: If it is no such run folder, or a file in it is damaged.
    """
    folder = Path(folder)
    expected = ["run.json", *(f"{name}.csv" for name in COLUMNS)]
    if not any((folder / name).is_file() for name in expected):
        found = "a folder with none of them" if folder.is_dir() else "no folder"
        raise RMRError(
            f"{folder} is not a run: expected a folder with run.json and natural.csv, found "
            f"{found}; make one with `rmr-gym demo` or `rmr-gym compare`"
        )
    if (kind := run_kind(folder)) in SWEEP_KINDS:
        raise RMRError(
            f"{folder} is a run of the kind {kind}: expected a comparison; read it with "
            "rmr_gym.analysis.sweep_run.load_sweep_run"
        )
    return read_run(folder)


def read_run(folder: Path) -> Run:
    """Read what a comparison writes from any folder; what is not there is empty.

    Raises:
        RMRError: If a file is damaged.
    """
    tables = {
        name: read_table(folder / f"{_FILES.get(name, name)}.csv", columns, KEYS[name])
        for name, columns in COLUMNS.items()
    }
    return Run(folder=folder, info=read_info(folder), frames=read_frames(folder), **tables)
