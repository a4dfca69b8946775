"""One self-contained HTML page about a run, the same bytes for the same run folder."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from rmr_gym.analysis import figures, html, text
from rmr_gym.analysis.canvas import figure_bytes
from rmr_gym.analysis.reading import reading
from rmr_gym.analysis.run import PROBE_LABELS, Run, load_run
from rmr_gym.analysis.sections import (
    NOTES,
    abstract_section,
    checkpoints_section,
    description_section,
    natural_section,
    run_summary,
    tests_section,
)
from rmr_gym.analysis.tables import headline_probe, summarise
from rmr_gym.atomic import write_atomically
from rmr_gym.errors import RMRError


class Drawing(NamedTuple):
    """A figure of the report: file name, file kind, caption, and how it is drawn."""

    name: str
    kind: str
    caption: str
    draw: Callable[[], Figure]


def write_report(folder: Path | str, out: Path | str | None = None) -> Path:
    """Write report.html for a run folder, and its figures as files beside it in ``figures/``.

    The page needs no network and holds its pictures. What the run lacks is left out.

    Args:
        folder: A folder written by ``rmr-gym demo`` or ``rmr-gym compare``.
        out: The HTML file; None for ``<folder>/report.html``.

    Returns:
        Path of the page.

    Raises:
        RMRError: If the folder is no run, a file in it is damaged, or the page cannot be written.
    """
    run = load_run(folder)
    path = run.folder / "report.html" if out is None else Path(out)
    pictures = {
        "Training curves": _pictures(_curves(run), path.parent / "figures"),
        "Probes over training": _pictures(_probed(run), path.parent / "figures"),
        "Frames and their RAM": _pictures(_frames(run), path.parent / "figures"),
    }
    summary = summarise(run)
    said = reading(run, summary)
    sections = {
        "What the numbers say": html.definitions(said) if said else "",
        "Natural pipeline": natural_section(summary.natural),
        "Paired tests": tests_section(summary.natural, summary.contrast),
        "Checkpoints and probes": checkpoints_section(summary.checkpoints),
        "Abstract pipeline": abstract_section(summary.abstract),
        **pictures,
        "What was run": description_section(run),
        "How to read this": html.bullets(NOTES),
    }
    kept = {name: content for name, content in sections.items() if content}
    if run.natural.empty:
        missing = html.paragraph("This run has no natural results yet.")
        kept = {"Unfinished": missing, **kept}
    return write_atomically(path, html.page(_title(run), html.paragraph(run_summary(run)), kept))


def _title(run: Run) -> str:
    preset = f", preset {run.info['preset']}" if "preset" in run.info else ""
    games = run.games if len(run.games) <= 4 else [f"{len(run.games)} games"]
    return f"RMR against C-SWM: {text.listing(games) if games else 'no games yet'}{preset}"


def _pictures(drawings: Iterator[Drawing], folder: Path) -> str:
    """Save each figure and return them as HTML; one that the run has no data for is left out."""
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


def _chart_kind(run: Run) -> str:
    """Charts are SVG; PNG where so many games would make a page of many megabytes."""
    return "svg" if len(run.games) <= 6 else "png"


def _curves(run: Run) -> Iterator[Drawing]:
    thin = "Thin lines are seeds, thick ones their mean."
    yield Drawing(
        "abstract_loss",
        _chart_kind(run),
        f"Training loss of the abstract models. {thin}",
        lambda: figures.abstract_curves(run),
    )
    yield Drawing(
        "natural_loss",
        _chart_kind(run),
        f"Training loss of the pixel pipeline under each P. {thin}",
        lambda: figures.natural_curves(run, "loss"),
    )
    yield Drawing(
        "natural_negative_energy",
        _chart_kind(run),
        f"Negative energy; at 0 the encoder has collapsed. {thin}",
        lambda: figures.natural_curves(run, "negative_energy"),
    )


def _probed(run: Run) -> Iterator[Drawing]:
    for probe in run.probes:
        label = PROBE_LABELS.get(probe, probe)
        yield Drawing(
            f"differences_{probe}",
            _chart_kind(run),
            f"Bit F1 of each arm minus C-SWM's at the last checkpoint. Probe: {label}. Dots are "
            "seeds, diamonds their mean, bars the 95% bootstrap interval of the mean.",
            lambda probe=probe: figures.difference_dots(run, probe),
        )
        yield Drawing(
            f"probe_f1_{probe}",
            _chart_kind(run),
            f"Bit F1 against the checkpoint. Probe: {label}. Dots are seeds, lines join their "
            "means; the dashed line is the untrained encoder.",
            lambda probe=probe: figures.checkpoint_curves(run, "micro_f1", probe),
        )
    yield Drawing(
        "effective_rank",
        _chart_kind(run),
        "Effective rank of the features against the checkpoint.",
        lambda: figures.checkpoint_curves(run, "effective_rank", headline_probe(run)),
    )


def _frames(run: Run) -> Iterator[Drawing]:
    for game in run.games:
        yield Drawing(
            f"frames_{game}",
            "png",
            f"{game}: frames and the 128 bytes of RAM of the same instant, in hexadecimal, "
            "address on the left. Framed bytes differ from the frame to the left.",
            lambda game=game: figures.frames_beside_ram(run, game),
        )
