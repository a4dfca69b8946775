"""One self-contained page about a run, in HTML and in short as text: the same bytes again."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    select_autoescape,
)
from matplotlib.figure import Figure

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.report.charts import figure_bytes
from rmr_gym.report.findings import Finding, listing, states_of, unfinished
from rmr_gym.report.runs import Run, where
from rmr_gym.report.statistics import ALPHA, MIN_PAIRS
from rmr_gym.report.tables import MISSING, Column, Table, duration, save_tables

MOST_PANELS = 6
"""Charts are SVG, and PNG where more panels would make a page of many megabytes."""


@dataclass(frozen=True)
class Page:
    """What a report shows of a run; its template ``page.html.j2`` says where, and in which words.

    Attributes:
        run: The run.
        title: Of the page.
        findings: What it opens with.
        shown: Values of the template: tables and whatever it speaks of.
        figures: What draws each figure, by the name of its file without the ending; one that
            raises an RMRError, since there is nothing to draw, is left out.
        tables: What is also written as CSV, by name; empty ones are not.
        has_results: Whether there is anything to show; a page without says so.
    """

    run: Run
    title: str
    findings: Sequence[Finding]
    shown: Mapping[str, Any]
    figures: Mapping[str, Callable[[], Figure]]
    tables: Mapping[str, pd.DataFrame]
    has_results: bool


def write_report(
    folder: Path | str, report: Callable[[Path], Page], out: Path | str | None = None
) -> tuple[Path, str]:
    """Write report.html for a run folder; beside it its tables, and its figures in ``figures/``.

    The page needs no network and holds its pictures. What the run lacks is left out.

    Args:
        folder: A run folder.
        report: What reads a run of its kind; the templates ``page.html.j2`` and, if there is one,
            ``page.txt.j2`` lie beside it.
        out: The HTML file; None for ``<folder>/report.html``.

    Returns:
        Path of the page, and its short form in plain text.

    Raises:
        RMRError: If the folder is no run, a file in it is damaged, or the page cannot be written.
    """
    path = Path(folder) / "report.html" if out is None else Path(out)
    page = report(Path(folder))
    values = {
        **page.shown,
        "page": page,
        "findings": [*page.findings, *unfinished(page.run)],
        "figures": _saved(page.figures, path.parent / "figures"),
        "summary": _summary(page.run),
        "description": _description(page.run),
        **{"alpha": ALPHA, "min_pairs": MIN_PAIRS},
    }
    with as_file(files(report.__module__.rpartition(".")[0])) as own:
        templates = _environment(own)
        html, text = (
            templates.get_template(f"base.{kind}.j2").render(values) for kind in ("html", "txt")
        )
    save_tables({name: table for name, table in page.tables.items() if len(table)}, path.parent)
    return write_atomically(path, html), text.strip()


def about(names: Sequence[str], unit: str, most: int = 4) -> str:
    """Return names, or how many there are, for a title."""
    return listing(names) if 0 < len(names) <= most else f"{len(names) or 'no'} {unit}s"


def _environment(own: Path) -> Environment:
    return Environment(
        loader=ChoiceLoader([FileSystemLoader(own), PackageLoader("rmr_gym.report")]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _saved(figures: Mapping[str, Callable[[], Figure]], folder: Path) -> dict[str, str]:
    """Save the figures and return them as data, by name; pictures and large charts are PNG."""
    saved = {}
    for name, draw in figures.items():
        try:
            figure = draw()
        except RMRError:
            continue
        large = len(figure.axes) > MOST_PANELS or any(ax.images for ax in figure.axes)
        kind = "png" if large else "svg"
        content = figure_bytes(figure, kind)
        write_atomically(folder / f"{re.sub('[^A-Za-z0-9_-]', '_', name)}.{kind}", content)
        media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
        saved[name] = f"data:{media};base64,{base64.b64encode(content).decode()}"
    return saved


def _summary(run: Run) -> str:
    """Return in one line what was run: command, seeds, end and length."""
    names = ("command", "seeds", "objective", "finished", "seconds")
    facts = [(name, _fact(name, run.info[name])) for name in names if name in run.info]
    return "; ".join(f"{'time' if name == 'seconds' else name}: {fact}" for name, fact in facts)


def _description(run: Run) -> dict[str, Any]:
    """Return what run.json says, the data sets, where the time went, and what jobs came to."""
    told = [
        {"what": label, "value": _fact(label, value)}
        for name, fact in run.info.items()
        if name not in ("datasets", "slots")
        for label, value in _split(name, fact)
    ]
    columns = [Column("what", "what"), Column("value", "value", look="wrap")]
    failed = where(run["jobs"], state="failed")
    lost = [Column("key", "failed job"), Column("attempts", "attempts")]
    return {
        "facts": Table(pd.DataFrame(told), columns),
        "data": _data(run),
        "times": _times(run["timings"]),
        "jobs": states_of(list(run["jobs"]["state"])),
        "spent": duration(float(run["jobs"]["seconds"].sum())),
        "failed": Table(failed, [*lost, Column("error", "error", look="wrap")]),
    }


def _split(name: str, fact: Any) -> Iterator[tuple[str, Any]]:
    """Give each dictionary inside a dictionary a row of its own, after the plain values."""
    if not isinstance(fact, dict):
        yield name, fact
        return
    plain = {key: value for key, value in fact.items() if not isinstance(value, dict)}
    if plain:
        yield name, plain
    yield from ((f"{name}: {k}", value) for k, value in fact.items() if isinstance(value, dict))


def _data(run: Run) -> Table:
    sets, slots = run.info.get("datasets"), run.info.get("slots")
    known = slots if isinstance(slots, dict) else {}
    rows = [
        {"game": game, "bytes probed": known.get(game)} | facts
        for game, facts in (sets.items() if isinstance(sets, dict) else ())
        if isinstance(facts, dict)
    ]
    table = pd.DataFrame(rows, dtype=object)
    table = table.drop(columns="slots", errors="ignore").where(table.notna(), MISSING)
    looks = {"fingerprint": "wrap"}
    return Table(table, [Column(name, name, _told, looks.get(name, "")) for name in table])


def _times(timings: pd.DataFrame) -> Table:
    spent = timings.pivot_table("seconds", "game", "stage", "sum", sort=False).fillna(0)
    spent["all"] = spent.sum(axis=1)
    columns = [Column(name, name, lambda row, key: duration(row[key])) for name in spent]
    return Table(spent.reset_index(), [Column("game", "game"), *columns])


def _told(row: Mapping[Any, Any], key: str) -> str:
    return _fact(key, row[key])


def _fact(name: str, value: Any) -> str:
    """Return a value of run.json as one line."""
    if name == "seconds" and isinstance(value, int | float):
        return duration(float(value))
    if isinstance(value, dict):
        return "; ".join(f"{key} {_fact(key, inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ("; " if name == "problems" else ", ").join(_fact("", inner) for inner in value)
    return value if isinstance(value, str) else json.dumps(value)
