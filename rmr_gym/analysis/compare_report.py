"""The pages of a comparison (Table 1) and of a run of abstract models alone (Table 2)."""

from collections.abc import Iterator
from pathlib import Path

from rmr_gym.analysis import figures, html, text
from rmr_gym.analysis.abstract_comparison import TITLE, abstract_comparison_section
from rmr_gym.analysis.checkpoint_figures import f1_beside_rank
from rmr_gym.analysis.page import Drawing, Page, chart_kind, pictures
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
from rmr_gym.analysis.tables import summarise, summary_tables, terminal_table


def compare_page(folder: Path, saved: Path) -> Page:
    """Return the page of a comparison; what the run lacks is left out.

    Args:
        folder: The run folder.
        saved: Where figures are saved as files.

    Raises:
        RMRError: If the folder is no such run, a file in it is damaged, or a figure cannot be
            saved.
    """
    run = load_run(folder)
    summary = summarise(run)
    said = reading(run, summary)
    missing = "This run has no natural results yet."
    sections = {
        "Unfinished": html.paragraph(missing) if run.natural.empty else "",
        "What the numbers say": html.definitions(said),
        "Natural pipeline": natural_section(summary.natural),
        "Paired tests": tests_section(summary.natural, summary.contrast),
        "Checkpoints and probes": checkpoints_section(summary.checkpoints),
        "Abstract pipeline": abstract_section(summary.abstract),
        "Training curves": pictures(_curves(run), saved),
        "Probes over training": pictures(_probed(run), saved),
        "Frames and their RAM": pictures(_frames(run), saved),
        "What was run": description_section(run),
        "How to read this": html.bullets(NOTES),
    }
    return Page(
        title=_title(run),
        lead=html.paragraph(run_summary(run)),
        sections=sections,
        tables=summary_tables(summary),
        text=terminal_table(run),
    )


def abstract_page(folder: Path, saved: Path) -> Page:
    """Return the page of a run that trained abstract models alone; see `compare_page`."""
    run = load_run(folder)
    summary = summarise(run)
    said = reading(run, summary)
    sections = {
        "What the numbers say": html.definitions(said),
        TITLE: abstract_comparison_section(run) if len(run.abstract) else "",
        "Abstract pipeline": abstract_section(summary.abstract),
        "Training curves": pictures(_curves(run), saved),
        "What was run": description_section(run),
    }
    return Page(
        title=f"Abstract models of Atari RAM: {len(run.games)} games",
        lead=html.paragraph(run_summary(run)),
        sections=sections,
        tables={"abstract_summary.csv": summary.abstract},
        text="\n".join(map(str, said)),
    )


def _title(run: Run) -> str:
    preset = f", preset {run.info['preset']}" if "preset" in run.info else ""
    games = run.games if len(run.games) <= 4 else [f"{len(run.games)} games"]
    return f"RMR against C-SWM: {text.listing(games) if games else 'no games yet'}{preset}"


def _curves(run: Run) -> Iterator[Drawing]:
    thin = "Thin lines are seeds, thick ones their mean."
    yield Drawing(
        "abstract_loss",
        chart_kind(len(run.games)),
        f"Training loss of the abstract models. {thin}",
        lambda: figures.abstract_curves(run),
    )
    yield Drawing(
        "natural_loss",
        chart_kind(len(run.games)),
        f"Training loss of the pixel pipeline under each P. {thin}",
        lambda: figures.natural_curves(run, "loss"),
    )
    yield Drawing(
        "natural_negative_energy",
        chart_kind(len(run.games)),
        f"Negative energy; at 0 the encoder has collapsed. {thin}",
        lambda: figures.natural_curves(run, "negative_energy"),
    )


def _probed(run: Run) -> Iterator[Drawing]:
    for probe in run.probes:
        label = PROBE_LABELS.get(probe, probe)
        yield Drawing(
            f"differences_{probe}",
            chart_kind(len(run.games)),
            f"Bit F1 of each arm minus C-SWM's at the last checkpoint. Probe: {label}. Dots are "
            "seeds, diamonds their mean, bars the 95% bootstrap interval of the mean.",
            lambda probe=probe: figures.difference_dots(run, probe),
        )
        yield Drawing(
            f"f1_and_rank_{probe}",
            chart_kind(2 * len(run.games)),
            f"Bit F1 and effective rank of the features against training steps. Probe: {label}. "
            "Lines are means over seeds, bands the range of seeds; the dashed line is the "
            "untrained encoder. A falling rank is an objective that throws the scene away.",
            lambda probe=probe: f1_beside_rank(run, probe),
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
