"""One self-contained page about a run, in HTML and in short as text: the same bytes again.

It opens with what the numbers say in plain sentences, good news and bad news in one form, that of
``sentences.j2``. An experiment says its own in ``findings.j2``: a paragraph a finding, its subject
and its statement with `APART` between them.
"""

import base64
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.report import runs, statistics, tables
from rmr_gym.report.charts import figure_bytes, told
from rmr_gym.report.runs import JOB_STATES, Run, in_order
from rmr_gym.report.tables import MISSING, duration, save_tables

MOST_PANELS = 6
"""Charts are SVG, and PNG where more panels would make a page of many megabytes."""

APART = " :: "
"""Between the subject and the statement of a finding, which is a paragraph of findings.j2."""


class Finding(NamedTuple):
    """One thing that a run shows."""

    subject: str
    statement: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.statement}"


@dataclass(frozen=True)
class Page:
    """What a report shows of a run; templates beside it say where, and in which words.

    Attributes:
        run: The run.
        tables: What is also written as CSV, by name; empty ones are not.
        figures: What draws each figure, or names a film (GIF) that the run left, by the name of
            its file without the ending; one that raises an RMRError, since there is nothing to
            draw, is left out.
        shown: Values of the templates beside what is public in the report's own module.
        results: Rows without which the page says that it has none; default: the run's first table.
    """

    run: Run
    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, Callable[[], Figure | Path]]
    shown: Mapping[str, Any] = field(default_factory=dict)
    results: pd.DataFrame | None = None

    @property
    def has_results(self) -> bool:
        """Whether there is anything to show."""
        results = next(iter(self.run.tables.values())) if self.results is None else self.results
        return len(results) > 0


def write_report(
    folder: Path | str, report: Callable[[Path], Page], out: Path | str | None = None
) -> tuple[Path, str]:
    """Write report.html for a run folder; beside it its tables, and its figures in ``figures/``.

    The page needs no network and holds its pictures. What the run lacks is left out.

    Args:
        folder: A run folder.
        report: What reads a run of its kind. Beside it, or in a folder of its name there, lie the
            templates ``page.html.j2`` (sections) and, where they are needed, ``findings.j2`` (what
            the numbers say) and ``page.txt.j2`` (what the short form begins with).
        out: The HTML file; None for ``<folder>/report.html``.

    Returns:
        Path of the page, and its short form in plain text.

    Raises:
        RMRError: If the folder is no run, a file in it is damaged, or the page cannot be written.
    """
    path = Path(folder) / "report.html" if out is None else Path(out)
    page = report(Path(folder))
    blank = {"page": page, "summary": _summary(page.run), "headings": [], "opener": []}
    values = {
        **blank,
        **page.shown,
        "findings": findings_of(report, page),
        "figures": _saved(page.figures, path.parent / "figures"),
        "facts": _facts(page.run.info),
        "data": _data(page.run),
        "times": _times(page.run),
    }
    html, text = (rendered(report, f"base.{kind}.j2", values) for kind in ("html", "txt"))
    save_tables({name: table for name, table in page.tables.items() if len(table)}, path.parent)
    return write_atomically(path, html), text.strip()


def findings_of(report: Callable[[Path], Page], page: Page) -> list[Finding]:
    """Return what a page opens with: what its template says, and what is not finished."""
    text = rendered(report, "findings.j2", {"page": page, **page.shown})
    return [*read_findings(text), *unfinished(page.run)]


def rendered(report: Callable[..., Any], name: str, values: Mapping[str, Any]) -> str:
    """Fill a template beside a report or of all; it can call what is public in these modules."""
    own_module = sys.modules[report.__module__]
    with as_file(files(report.__module__.rpartition(".")[0])) as beside:
        own = beside / report.__name__
        folder = own if own.is_dir() else beside
        places = jinja2.FileSystemLoader(folder), jinja2.PackageLoader("rmr_gym.report")
        templates = jinja2.Environment(
            loader=jinja2.ChoiceLoader(places),
            autoescape=jinja2.select_autoescape(["html.j2"]),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for words in (globals(), *map(vars, (runs, statistics, tables, own_module))):
            templates.globals |= {name: value for name, value in words.items() if name[0] != "_"}
        return templates.get_template(name).render(values)


def about(names: Sequence[str], unit: str, most: int = 4) -> str:
    """Return names, or how many there are, for a title."""
    return listing(names) if 0 < len(names) <= most else f"{len(names) or 'no'} {unit}s"


def _saved(
    figures: Mapping[str, Callable[[], Figure | Path]], folder: Path
) -> dict[str, dict[str, str]]:
    """Save the figures and return them as data, by name; pictures and large charts are PNG."""
    saved = {}
    for name, draw in figures.items():
        try:
            figure = draw()
        except RMRError:
            continue
        if isinstance(figure, Path):
            saved[name] = embedded(None, figure.read_bytes(), "gif")
            continue
        large = len(figure.axes) > MOST_PANELS or any(ax.images for ax in figure.axes)
        kind = "png" if large else "svg"
        content = figure_bytes(figure, kind)
        write_atomically(folder / f"{re.sub('[^A-Za-z0-9_-]', '_', name)}.{kind}", content)
        saved[name] = embedded(figure, content, kind)
    return saved


def embedded(figure: Figure | None, content: bytes, kind: str = "svg") -> dict[str, str]:
    """Return a figure that was drawn as "svg", "png" or "gif" as a page holds it, and values."""
    media = {"svg": "image/svg+xml"}.get(kind, f"image/{kind}")
    source = f"data:{media};base64,{base64.b64encode(content).decode()}"
    return {"source": source, "points": json.dumps(told(figure) if figure else [])}


def _summary(run: Run) -> str:
    """Return in one line what was run: command, seeds, end and length."""
    names = ("command", "seeds", "objective", "finished", "seconds")
    facts = [(name, _fact(name, run.info[name])) for name in names if name in run.info]
    return "; ".join(f"{'time' if name == 'seconds' else name}: {fact}" for name, fact in facts)


def _facts(info: Mapping[str, Any]) -> pd.DataFrame:
    """Return what run.json says, a row a fact."""
    rows = [
        {"what": label, "value": _fact(label, value)}
        for name, fact in info.items()
        if name not in ("datasets", "slots")
        for label, value in _split(name, fact)
    ]
    return pd.DataFrame(rows)


def _times(run: Run) -> pd.DataFrame:
    """Return where the time went, a row a game and a column a stage."""
    times = run["timings"].pivot_table("seconds", "game", "stage", "sum", sort=False).fillna(0)
    return times.assign(all=times.sum(axis=1)).reset_index()


def _split(name: str, fact: Any) -> Iterator[tuple[str, Any]]:
    """Give each dictionary inside a dictionary a row of its own, after the plain values."""
    if not isinstance(fact, dict):
        yield name, fact
        return
    plain = {key: value for key, value in fact.items() if not isinstance(value, dict)}
    if plain:
        yield name, plain
    yield from ((f"{name}: {k}", value) for k, value in fact.items() if isinstance(value, dict))


def _data(run: Run) -> pd.DataFrame:
    sets, slots = run.info.get("datasets"), run.info.get("slots")
    known = slots if isinstance(slots, dict) else {}
    rows = [
        {"game": game, "bytes probed": _fact("", known.get(game, MISSING))}
        | {name: _fact(name, fact) for name, fact in facts.items() if name != "slots"}
        for game, facts in (sets.items() if isinstance(sets, dict) else ())
        if isinstance(facts, dict)
    ]
    return pd.DataFrame(rows).fillna(MISSING)


def _fact(name: str, value: Any) -> str:
    """Return a value of run.json as one line."""
    if name == "seconds" and isinstance(value, int | float):
        return duration(float(value))
    if isinstance(value, dict):
        return "; ".join(f"{key} {_fact(key, inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ("; " if name == "problems" else ", ").join(_fact("", inner) for inner in value)
    return value if isinstance(value, str) else json.dumps(value)


def read_findings(text: str) -> list[Finding]:
    """Return the findings of a text, which may break its lines anywhere, before a full stop too."""
    joined = re.sub(r"[ \n]+([.,;])(?=\s)", r"\1", text)
    paragraphs = (" ".join(part.split()) for part in joined.split("\n\n"))
    split = (paragraph.partition(APART) for paragraph in paragraphs if paragraph)
    return [Finding(subject, statement) for subject, _, statement in split]


def unfinished(run: Run) -> Iterator[Finding]:
    """Say what failed, and how many jobs of a sweep are not done."""
    problems = run.info.get("problems")
    if isinstance(problems, list) and problems:
        yield Finding("What failed on the way", f"{'; '.join(map(str, problems))}.")
    states = list(run["jobs"]["state"])
    if states.count("done") < len(states):
        yield Finding("Unfinished", f"of {len(states)} jobs of the sweep {states_of(states)}.")


def states_of(states: list[str]) -> str:
    """Return how many jobs are in which state."""
    return ", ".join(f"{states.count(state)} {state}" for state in in_order(states, JOB_STATES))


def listing(names: Iterable[Any]) -> str:
    """Return ``a, b and c``."""
    *most, last = map(str, names)
    return f"{', '.join(most)} and {last}" if most else last


def named(names: Iterable[str], most: int = 6) -> str:
    """Return `` (a, b and c)``; nothing for no name, or for too many to read."""
    known = list(names)
    return f" ({listing(known)})" if 0 < len(known) <= most else ""


def counted(things: Sized | int, unit: str = "game") -> str:
    """Return ``1 game`` or ``3 games``."""
    count = len(things) if isinstance(things, Sized) else things
    return f"{count} {unit}{'' if count == 1 else 's'}"
