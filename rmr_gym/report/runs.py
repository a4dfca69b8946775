"""A run folder read back, strictly: what is damaged is named, and how to mend it."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from rmr_gym.core.errors import RMRError

Row = Mapping[Any, Any]
"""A row of a table, by column."""

JOB_STATES = ("done", "failed", "waiting")
"""States of a sweep's jobs, in order."""

_TEXT = (
    *("game", "recipient", "donor", "model", "objective", "arm", "probe", "stage", "env"),
    *("algorithm", "features", "key", "state", "error", "category", "label", "test", "similarity"),
    *("core", "predict", "aggregation"),
)
_WHOLE = ("seed", "step", "dim", "attempts")
_AGAIN = "delete it and run the command that wrote it again"


class Schema(NamedTuple):
    """Columns of a table.

    Attributes:
        key: Those that must be there and that together name a row; none: rows have no name.
        values: Further ones; NaN where they are not noted.
        text: Those of them that hold text and stand in no other run's tables.
    """

    key: tuple[str, ...]
    values: tuple[str, ...]
    text: tuple[str, ...] = ()


EVERY_RUN = {
    "timings": Schema((), ("game", "stage", "arm", "seed", "seconds")),
    "jobs": Schema(("key",), ("state", "seconds", "attempts", "error")),
}
"""Tables that runs of every kind write."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder in memory; a table that is missing there is empty here.

    Attributes:
        folder: Where it was read from.
        info: What run.json says: command, preset, versions, machine, data sets.
        tables: The tables by name, those of `EVERY_RUN` too.
    """

    folder: Path
    info: dict[str, Any]
    tables: dict[str, pd.DataFrame]

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self.tables[name]

    def named(self, *lists: str, table: str, column: str) -> list[str]:
        """Return what the run is about, in its order: whether or not it has scores yet.

        Args:
            lists: Lists of run.json to look for; the first that is there counts.
            table: Where further names are found.
            column: Its column.
        """
        known = [self.info[name] for name in lists if isinstance(self.info.get(name), list)]
        scored = sorted({str(name) for name in self[table][column]} - {""})
        return list(dict.fromkeys([*map(str, known[0] if known else []), *scored]))

    @property
    def games(self) -> list[str]:
        """Games that a table has, in run.json's order, then those that it does not list."""
        tables = [table for name, table in self.tables.items() if name not in EVERY_RUN]
        scored = {str(game) for table in tables if "game" in table for game in table["game"]}
        listed = self.info.get("games")
        return in_order(scored, map(str, listed) if isinstance(listed, list) else ())


def in_order(names: Iterable[Any], labels: Iterable[Any]) -> list[Any]:
    """Return the distinct names, known ones in the order of ``labels``, others sorted after."""
    present = set(names)
    known = [name for name in labels if name in present]
    return [*known, *sorted(present - set(known))]


def where(table: pd.DataFrame, mask: Any = None, **wanted: Any) -> pd.DataFrame:
    """Return the rows in which each named column has the value, or one of the values, wanted.

    Args:
        table: The rows.
        mask: Which of them are looked at; None: all.
        wanted: A value, or a list, tuple or set of them, for each column.
    """
    chosen = np.ones(len(table), bool) if mask is None else np.array(mask, bool)
    for column, value in wanted.items():
        options = list(value) if isinstance(value, list | tuple | set) else [value]
        chosen &= table[column].isin(options).to_numpy(bool)
    return pd.DataFrame(table[chosen])


def records(table: pd.DataFrame, mask: Any = None, **wanted: Any) -> list[dict[Any, Any]]:
    """Return the rows of `where` as dictionaries."""
    return where(table, mask, **wanted).to_dict("records")


def groups(table: pd.DataFrame, *columns: str) -> Any:
    """Return the rows grouped by the values of the columns, in the order in which they come."""
    return table.groupby([*columns], sort=False, dropna=False)


def parts(table: pd.DataFrame, *columns: str) -> dict[tuple[Any, ...], pd.DataFrame]:
    """Return the rows put together by the values of the columns, in the order in which they come.

    Without columns, all rows are one part; an empty table has none.
    """
    if table.empty or not columns:
        return {} if table.empty else {(): table}
    return {
        name if isinstance(name, tuple) else (name,): pd.DataFrame(rows)
        for name, rows in groups(table, *columns)
    }


def blocks(table: pd.DataFrame, *columns: str) -> dict[tuple[Any, ...], list[dict[Any, Any]]]:
    """Return `parts` with their rows as records."""
    return {name: records(part) for name, part in parts(table, *columns).items()}


def run_kind(folder: Path | str) -> str:
    """Return the kind of a run folder: what run.json says, else what its tables are of.

    Raises:
        RMRError: If run.json is damaged.
    """
    older = [kind for kind in ("transfer", "bottleneck") if Path(folder, f"{kind}.csv").is_file()]
    kind = str(read_run_json(Path(folder)).get("kind", (*older, "compare")[0]))
    return kind.replace("-", "_")


def load_run(folder: Path | str, tables: Mapping[str, Schema], kind: str | None = None) -> Run:
    """Read a run folder; tables that are not there yet become empty tables.

    Args:
        folder: A folder written by ``rmr-gym run``.
        tables: What to read besides `EVERY_RUN`, by the name of the file without its ending.
        kind: What the run has to be; None: whatever it is.

    Raises:
        RMRError: If it is no such run folder, or a file in it is damaged.
    """
    folder, schemas = Path(folder), {**tables, **EVERY_RUN}
    files = ["run.json", *(f"{name}.csv" for name in schemas)]
    if not any((folder / name).is_file() for name in files):
        found = "a folder with none of them" if folder.is_dir() else "no folder"
        raise RMRError(
            f"{folder} is not a run: expected a folder with {' or '.join(files)}, found {found}; "
            "make one with `rmr-gym run`"
        )
    if kind is not None and (there := run_kind(folder)) != kind:
        raise RMRError(
            f"{folder} is a run of the kind {there}: expected the kind {kind}; `rmr-gym report` "
            "finds the page of its kind"
        )
    read = {name: read_table(folder / f"{name}.csv", schema) for name, schema in schemas.items()}
    return Run(folder, read_run_json(folder), read)


def read_table(path: Path, schema: Schema) -> pd.DataFrame:
    """Read a table of a run; one that is not there, or has no header yet, is empty.

    Text is text, numbers are float (NaN if not noted), seeds, steps and sizes whole (-1 if not
    noted). Further columns are kept as they are.

    Raises:
        RMRError: If it is damaged, lacks a column of its key, or has two rows of one name.
    """
    key, columns = list(schema.key), [*schema.key, *schema.values]
    text = (*_TEXT, *schema.text)
    table = _read_csv(path, columns, text)
    missing = [column for column in (key or columns) if column not in table]
    if missing:
        raise RMRError(
            f"{path} lacks the columns {', '.join(missing)}: expected {', '.join(columns)}; it may "
            f"be another program's file: {_AGAIN}"
        )
    table = table.assign(**{column: _typed(table, column, text, path) for column in columns})
    if key and table.duplicated(key).any():
        first = records(table, table.duplicated(key))[0]
        raise RMRError(
            f"{path} has two rows for {', '.join(f'{name} {first[name]}' for name in key)}: "
            f"expected one; {_AGAIN}"
        )
    return pd.DataFrame(table[[*columns, *(name for name in table if name not in columns)]])


def _read_csv(path: Path, columns: Sequence[str], text: Sequence[str]) -> pd.DataFrame:
    """Return a table; an empty one where there is no file, or none with as much as a header."""
    with _undamaged(path, "cannot be read as CSV"):
        try:
            return pd.read_csv(path, dtype=dict.fromkeys(text, str))
        except (pd.errors.EmptyDataError, FileNotFoundError):
            return pd.DataFrame(columns=list(columns))


@contextmanager
def _undamaged(path: Path, damage: str) -> Iterator[None]:
    """Turn what a reader says of a damaged file into one sentence."""
    try:
        yield
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise RMRError(f"{path} {damage} ({error}): {_AGAIN}") from error


def _typed(table: pd.DataFrame, column: str, text: Sequence[str], path: Path) -> np.ndarray:
    if column not in table:
        return np.full(len(table), np.nan)
    if column in text:
        return table[column].fillna("").astype(str).to_numpy(object)
    try:
        numbers = table[column].to_numpy(object).astype(float)
    except (ValueError, TypeError) as error:
        raise RMRError(
            f"{path}, column {column}: expected numbers, found {error}; {_AGAIN}"
        ) from error
    return np.nan_to_num(numbers, nan=-1).astype(int) if column in _WHOLE else numbers


def read_run_json(folder: Path) -> dict[str, Any]:
    """Read run.json; nothing where it is missing.

    Raises:
        RMRError: If it is no JSON object.
    """
    path = folder / "run.json"
    if not path.is_file():
        return {}
    with _undamaged(path, "is not JSON"):
        info = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(info, dict):
        raise RMRError(f"{path}: expected a JSON object, found {type(info).__name__}")
    return info


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an NPZ file; none where there is no file.

    Raises:
        RMRError: If it is damaged, or holds pickled objects.
    """
    if not path.is_file():
        return {}
    with (
        _undamaged(path, "cannot be read"),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as archive,
    ):
        return {name: archive[name] for name in archive.files}


def read_frames(folder: Path) -> dict[str, UInt8[np.ndarray, "..."]]:
    """Read the byte arrays of frames.npz; nothing where it is missing.

    Raises:
        RMRError: If it is damaged, or holds pickled objects.
    """
    arrays = read_arrays(folder / "frames.npz")
    return {name: array for name, array in arrays.items() if array.dtype == "u1"}
