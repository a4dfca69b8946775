"""Pieces of a self-contained HTML page; all text is escaped here and nowhere else."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --page: #ffffff;
  --line: #d0d7de; --band: #f3f5f7; --better: #0b5cad; --worse: #b3440a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa4ae; --page: #14171a; --line: #363c43; --band: #1d2226;
    --better: #6cb6ff; --worse: #ff9d5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 76rem; color: var(--ink);
  background: var(--page); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 0.6rem; padding-top: 0.6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 0.4rem; }
p, li, dd { max-width: 50rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: minmax(10rem, 19rem) 1fr; gap: 0.5rem 1.5rem; }
dt { font-weight: 600; }
dd { margin: 0; }
@media (max-width: 44rem) { dl { display: block; } dd { margin-bottom: 0.6rem; } }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: var(--better); }
.scroll { overflow-x: auto; margin: 0.6rem 0 1.2rem; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: 0.3rem; }
th, td { padding: 0.25rem 0.7rem 0.25rem 0; text-align: left; vertical-align: top;
  white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; white-space: normal;
  vertical-align: bottom; }
tbody th { font-weight: 500; }
tr.group th { background: var(--band); font-weight: 700; padding: 0.35rem 0.5rem; }
td.better { color: var(--better); font-weight: 600; }
td.worse { color: var(--worse); font-weight: 600; }
td.quiet { color: var(--soft); }
td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
figure { margin: 1rem 0 1.6rem; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); border-radius: 6px; padding: 6px; }
figcaption { color: var(--soft); font-size: 0.875rem; max-width: 50rem; margin-top: 0.3rem; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 0.875em; }
"""


@dataclass(frozen=True)
class Entry:
    """A table cell.

    Attributes:
        text: What it says, not escaped yet.
        kind: CSS classes: better, worse, quiet, wrap.
    """

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Group:
    """A row across a table that heads the rows below it."""

    text: str


Row = Sequence[str | Entry] | Group


def table(header: Sequence[str], rows: Iterable[Row], caption: str = "") -> str:
    """Return a table that scrolls sideways on a narrow screen; first cells head their rows."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(_row(row, len(header)) for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(row: Row, width: int) -> str:
    if isinstance(row, Group):
        return f'<tr class="group"><th colspan="{width}">{escape(row.text)}</th></tr>'
    first, *rest = (cell if isinstance(cell, Entry) else Entry(cell) for cell in row)
    cells = "".join(
        f'<td class="{escape(cell.kind)}">{escape(cell.text)}</td>'
        if cell.kind
        else f"<td>{escape(cell.text)}</td>"
        for cell in rest
    )
    return f'<tr><th scope="row">{escape(first.text)}</th>{cells}</tr>'


def bullets(sentences: Iterable[str]) -> str:
    """Return a list with one item a sentence."""
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of subjects, each with what is said of it; nothing where there is none."""
    items = [f"<dt>{escape(subject)}</dt><dd>{escape(said)}</dd>" for subject, said in pairs]
    return f"<dl>{''.join(items)}</dl>" if items else ""


def paragraph(sentence: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(sentence)}</p>"


def heading(title: str) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escape(title)}</h3>"


def picture(content: bytes, kind: str, caption: str) -> str:
    """Return a picture held in the page itself.

    Args:
        content: Bytes of the file.
        kind: "svg" or "png".
        caption: Said under it, and to those who cannot see it.
    """
    media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    data = base64.b64encode(content).decode()
    said = escape(caption)
    return (
        f'<figure><img alt="{said}" src="data:{media};base64,{data}">'
        f"<figcaption>{said}</figcaption></figure>"
    )


def page(title: str, lead: str, sections: dict[str, str]) -> str:
    """Return a whole page: a title, a line about it, links, one section a heading.

    Args:
        title: Of the page.
        lead: HTML under the title.
        sections: HTML of each section by its heading.
    """
    links = " ".join(
        f'<a href="#s{index}">{escape(name)}</a>' for index, name in enumerate(sections)
    )
    body = "".join(
        f'<section id="s{index}"><h2>{escape(name)}</h2>{content}</section>\n'
        for index, (name, content) in enumerate(sections.items())
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>{lead}<nav>{links}</nav>\n{body}</body></html>\n"
    )
