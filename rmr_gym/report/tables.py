"""Tables as data: columns say how they are shown; templates make HTML and text of them.

What arms, objectives, probes, models and agents are called stands in names.csv, a row each: the
rows of a kind are in the order of every table and figure. Colours are of Okabe and Ito's palette:
colour-blind readers tell them apart.
"""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rmr_gym.core.files import write_atomically
from rmr_gym.report.runs import Row
from rmr_gym.report.statistics import TOO_FEW

MISSING = "–"

with (files("rmr_gym.report") / "names.csv").open(encoding="utf-8") as _file:
    ROWS = tuple(csv.DictReader(_file))


def labels_of(kind: str) -> dict[str, str]:
    """Return what the names of a kind are called, in order."""
    return {row["name"]: row["label"] for row in ROWS if row["kind"] == kind}


def looks_of(*kinds: str) -> dict[str, dict[str, str]]:
    """Return colour, marker and dashes of the names of some kinds, as far as they have any."""
    styles = {"color": "colour", "marker": "marker", "linestyle": "line"}
    return {
        row["name"]: {style: row[column] for style, column in styles.items() if row[column]}
        for row in ROWS
        if row["kind"] in kinds and row["colour"]
    }


ARM_LABELS, OBJECTIVE_LABELS = labels_of("arm"), labels_of("objective")
PROBE_LABELS, MODEL_LABELS = labels_of("probe"), labels_of("model")
_KINDS = ("question", "crops", "frames", "world", "probe", "model", "arm")
_LABELS = {name: text for kind in _KINDS for name, text in labels_of(kind).items()}


def called(names: Iterable[str], labels: Mapping[str, str]) -> np.ndarray:
    """Return what names are called, as a column."""
    return np.array([labels.get(name, name) for name in names], object)


def label(name: str) -> str:
    """Return what an arm, probe or abstract model is called."""
    return _LABELS.get(name, name)


def objective_label(name: str) -> str:
    """Return what an objective is called."""
    return OBJECTIVE_LABELS.get(name, name)


class Column(NamedTuple):
    """A column of a table that is shown.

    Attributes:
        key: Column of the data; of "spread", "interval" and "test" what the names of several begin
            with, the mean of a spread also by itself.
        title: Above it.
        form: One of `FORMS`, "spread", "interval" or "test", and a number of digits, for instance
            "spread 1".
        look: "quiet" for what stands beside the result, "wrap" for long text.
    """

    key: str
    title: str
    form: str = "text"
    look: str = ""

    def text(self, row: Row) -> str:
        """Return what the column shows of a row."""
        form, *more = self.form.split()
        digits = [int(digit) for digit in more]
        if form == "spread":
            mean = row.get(f"{self.key}_mean", row.get(self.key))
            return spread(mean, row[f"{self.key}_std"], *digits)
        if form == "interval":
            return interval(row[f"{self.key}low"], row[f"{self.key}high"])
        if form == "test":
            parts = ("difference", "pairs", "verdict")
            return tested(*(row[f"{self.key}{part}"] for part in parts))
        return FORMS[form](row[self.key], *digits)


@dataclass(frozen=True)
class Table:
    """Rows, and how they are shown; the first column names its row.

    Attributes:
        rows: The data.
        columns: What is shown of them.
        heading: Above rows of equal values, for instance "{game}, step {checkpoint:,}".
    """

    rows: pd.DataFrame
    columns: Sequence[Column]
    heading: str = ""

    def __bool__(self) -> bool:
        return len(self.rows) > 0

    def blocks(self) -> dict[str, list[list[str]]]:
        """Return the texts of all rows, by heading."""
        found: dict[str, list[list[str]]] = {}
        for row in self.rows.to_dict("records"):
            heading = self.heading.format_map(_Named(row))
            found.setdefault(heading, []).append([column.text(row) for column in self.columns])
        return found

    def lines(self) -> dict[str, list[str]]:
        """Return the rows as lines of aligned plain text under their titles, by heading."""
        titles = [column.title for column in self.columns]
        return {heading: _aligned([titles, *rows]) for heading, rows in self.blocks().items()}


def shown(rows: pd.DataFrame, columns: Sequence[tuple[str, ...]], heading: str = "") -> Table:
    """Return a table whose columns are given as plain tuples, as templates have them."""
    return Table(rows, [Column(*column) for column in columns], heading)


NAMED = {"objective": objective_label}
NAMED |= dict.fromkeys(("arm", "model", "probe", "question"), label)
"""Columns of names, and what says what these are called."""


class _Named(dict[Any, Any]):
    """A row whose names are what they are called."""

    def __getitem__(self, key: Any) -> Any:
        value = super().__getitem__(key)
        return NAMED[key](value) if key in NAMED else value


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def plain(value: Any) -> str:
    """Return a name or a count as it is, or a dash for NaN."""
    return MISSING if isinstance(value, float) and math.isnan(value) else str(value)


def number(value: float | int, digits: int = 3) -> str:
    """Return a number with so many decimals, or a dash for NaN."""
    return MISSING if math.isnan(value) else f"{value:,.{digits}f}"


def signed(value: float | int, digits: int = 3) -> str:
    """Return a difference with its sign, a true minus, or a dash for NaN."""
    if math.isnan(value):
        return MISSING
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def spread(mean: float, deviation: float, digits: int = 3) -> str:
    """Return ``mean ± deviation``; the mean alone where one seed has no deviation."""
    if math.isnan(mean) or math.isnan(deviation):
        return number(mean, digits)
    return f"{number(mean, digits)} ± {number(deviation, digits)}"


def interval(low: float, high: float) -> str:
    """Return ``low to high`` with signs, or a dash for NaN."""
    return MISSING if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def tested(difference: float, pairs: int, verdict: str) -> str:
    """Return a difference with its verdict, or its pairs where they are too few for one."""
    if not pairs:
        return MISSING
    return f"{signed(difference)} {f'(n={pairs})' if verdict == TOO_FEW else verdict}"


def p_value(p: float) -> str:
    """Return a p-value to three decimals, or ``<0.001``, or a dash for NaN."""
    return "<0.001" if p < 0.001 else number(p)


def duration(seconds: float | int) -> str:
    """Return seconds as people say them: ``45 s``, ``4 min 12 s``, ``3 h 05 min``."""
    if math.isnan(seconds) or seconds < 10:
        return MISSING if math.isnan(seconds) else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def marked(verdict: str) -> str:
    """Return a verdict, marked where it is better or worse, in few letters where there is none."""
    marks = {"better": "▲ better", "worse": "▼ worse", TOO_FEW: "too few"}
    return marks.get(verdict, verdict or MISSING)


FORMS: dict[str, Callable[..., str]] = {
    "text": plain,
    "number": number,
    "signed": signed,
    "p": p_value,
    "duration": duration,
    "verdict": marked,
    "label": label,
    "objective": objective_label,
}
"""How a value is shown."""


def grouped(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return the rows with those of equal values together, in the order in which they come."""
    place = table.groupby([*columns], sort=False, dropna=False).ngroup()
    return table.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def wide(
    table: pd.DataFrame, keys: Sequence[str], column: str, values: Sequence[str]
) -> pd.DataFrame:
    """Return a row a key, in the order in which they come, with the scores of names side by side.

    Args:
        table: One row a key and name.
        keys: Columns that name a row.
        column: Of the names.
        values: Columns that end in ``_mean`` and ``_std``; they become ``<name>_mean`` and so on.
    """
    side = table.pivot(index=[*keys], columns=column, values=[*values])
    side.columns = [f"{name}_{value.rpartition('_')[2]}" for value, name in side.columns]
    return table[[*keys]].drop_duplicates().merge(side.reset_index(), "left", [*keys])


def save_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write tables as CSV, the same bytes for the same tables, and return their paths.

    Args:
        tables: By the names of their files, without the ending.
        folder: Where.

    Raises:
        RMRError: If a file cannot be written.
    """
    return [
        write_atomically(
            folder / f"{name}.csv",
            table.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        )
        for name, table in tables.items()
    ]
