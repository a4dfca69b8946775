"""Tables as data: columns say how they are shown; templates make HTML and text of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from rmr_gym.core.files import write_atomically
from rmr_gym.report.runs import Row

MISSING = "–"
Shown = Callable[[Row, str], str]


@dataclass(frozen=True)
class Column:
    """A column of a table that is shown.

    Attributes:
        key: Column of the data, or what the names of several begin with.
        title: Above it.
        shown: From a row and the key to its text.
        look: "quiet" for what stands beside the result, "wrap" for long text.
    """

    key: str
    title: str
    shown: Shown = lambda row, key: str(row[key])
    look: str = ""


@dataclass(frozen=True)
class Table:
    """Rows, and how they are shown; the first column names its row.

    Attributes:
        rows: The data.
        columns: What is shown of them.
        group: From a row to the heading that it stands under; neighbours share one.
    """

    rows: pd.DataFrame
    columns: Sequence[Column]
    group: Callable[[Row], str] = lambda _: ""

    def __bool__(self) -> bool:
        return len(self.rows) > 0

    def blocks(self) -> dict[str, list[list[str]]]:
        """Return the texts of all rows, by heading."""
        found: dict[str, list[list[str]]] = {}
        for row in self.rows.to_dict("records"):
            texts = [column.shown(row, column.key) for column in self.columns]
            found.setdefault(self.group(row), []).append(texts)
        return found

    def lines(self) -> dict[str, list[str]]:
        """Return the rows as lines of aligned plain text under their titles, by heading."""
        titles = [column.title for column in self.columns]
        return {heading: _aligned([titles, *rows]) for heading, rows in self.blocks().items()}


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many decimals, or a dash for NaN."""
    return MISSING if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """Return a difference with its sign, a true minus, or a dash for NaN."""
    if math.isnan(value):
        return MISSING
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def spread(mean: float, deviation: float, digits: int = 3) -> str:
    """Return ``mean ± deviation``; the mean alone where one seed has no deviation."""
    if math.isnan(mean) or math.isnan(deviation):
        return number(mean, digits)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def interval(low: float, high: float) -> str:
    """Return ``low to high`` with signs, or a dash for NaN."""
    return MISSING if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def p_value(p: float) -> str:
    """Return a p-value to three decimals, or ``<0.001``, or a dash for NaN."""
    return "<0.001" if p < 0.001 else number(p)


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``45 s``, ``4 min 12 s``, ``3 h 05 min``."""
    if math.isnan(seconds) or seconds < 10:
        return MISSING if math.isnan(seconds) else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def marked(found: str) -> str:
    """Return a verdict, marked where it is better or worse."""
    return {"better": "▲ better", "worse": "▼ worse"}.get(found, found or MISSING)


def by(function: Callable[..., str], *more: int) -> Shown:
    """Show the value of a column by a function, for instance ``by(signed, 4)``."""
    return lambda row, key: function(row[key], *more)


def spreads(row: Row, key: str, digits: int = 3) -> str:
    """Show mean and deviation of a score."""
    return spread(row[f"{key}_mean"], row[f"{key}_std"], digits)


def whole(row: Row, key: str) -> str:
    """Show a count or a step."""
    return f"{row[key]:,.0f}"


def labelled(labels: Mapping[str, str]) -> Shown:
    """Show what a name is called."""
    return lambda row, key: labels.get(row[key], row[key])


def grouped(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return the rows with those of equal values together, in the order in which they come."""
    place = table.groupby([*columns], sort=False, dropna=False).ngroup()
    return table.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def compared_columns(prefix: str, title: str, corrected: bool = False) -> list[Column]:
    """Return the columns of a difference and its verdict alone, raw and, if asked, corrected."""
    columns = [
        Column(f"{prefix}difference", title, by(signed)),
        Column(f"{prefix}verdict", "verdict", by(marked)),
    ]
    return columns + [Column(f"{prefix}verdict_bh", "corrected", by(marked))] * corrected


def intervals(row: Row, prefix: str) -> str:
    """Show the interval between the columns ``low`` and ``high`` behind a prefix."""
    return interval(row[f"{prefix}low"], row[f"{prefix}high"])


DIFFERENCE_COLUMNS = (
    Column("pairs", "pairs"),
    Column("difference", "difference", by(signed, 4)),
    Column("", "95% interval", intervals, "quiet"),
    Column("p_better", "p better", by(p_value)),
    Column("p_worse", "p worse", by(p_value)),
    Column("verdict", "verdict", by(marked)),
)
CORRECTED_COLUMNS = (
    Column("p_better_bh", "corrected p better", by(p_value)),
    Column("p_worse_bh", "corrected p worse", by(p_value)),
    Column("verdict_bh", "corrected verdict", by(marked)),
)
"""What a paired test says, and what Benjamini and Hochberg's correction makes of it."""


def score(key: str, title: str, digits: int = 3) -> Column:
    """Return the column of a mean and its deviation."""
    return Column(key, title, partial(spreads, digits=digits))


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
