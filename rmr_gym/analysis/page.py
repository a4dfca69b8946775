"""What the pages of all kinds of run have in common: figures, saved and shown."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.analysis import html
from rmr_gym.analysis.canvas import figure_bytes
from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically


class Page(NamedTuple):
    """What is said about a run: in HTML, in tables, and in plain text.

    Attributes:
        title: Of the page.
        lead: HTML under the title.
        sections: HTML of each section by its heading; an empty one is left out.
        tables: What is also written as CSV, by file name.
        text: The short form, for a terminal.
    """

    title: str
    lead: str
    sections: dict[str, str]
    tables: dict[str, pd.DataFrame]
    text: str


class Drawing(NamedTuple):
    """A figure of the report: file name, file kind, caption, and how it is drawn."""

    name: str
    kind: str
    caption: str
    draw: Callable[[], Figure]


def pictures(drawings: Iterable[Drawing], folder: Path) -> str:
    """Save each figure and return them as HTML; one that the run has no data for is left out.

    Args:
        drawings: The figures; each is also saved as ``<name>.<kind>``.
        folder: Where.

    Raises:
        RMRError: If a figure cannot be saved.
    """
    shown = []
    for drawing in drawings:
        try:
            content = figure_bytes(drawing.draw(), drawing.kind)
        except RMRError:
            continue
        name = re.sub(r"[^A-Za-z0-9_-]", "_", drawing.name)
        write_atomically(folder / f"{name}.{drawing.kind}", content)
        shown.append(html.picture(content, drawing.kind, drawing.caption))
    return "".join(shown)


def chart_kind(panels: int) -> str:
    """Charts are SVG; PNG where so many panels would make a page of many megabytes."""
    return "svg" if panels <= 6 else "png"
