"""The page of a bottleneck run."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rmr_gym.analysis import html, text
from rmr_gym.analysis.bottleneck_figures import abstract_size_curves, size_curves
from rmr_gym.analysis.bottleneck_reading import (
    BottleneckSummary,
    bottleneck_reading,
    summarise_bottleneck,
)
from rmr_gym.analysis.html import Entry, Group, Row
from rmr_gym.analysis.page import Drawing, Page, chart_kind, pictures
from rmr_gym.analysis.run import PROBE_LABELS, blocks
from rmr_gym.analysis.sections import (
    description_section,
    objective_title,
    run_summary,
    verdict_entry,
)
from rmr_gym.analysis.statistics import MIN_PAIRS
from rmr_gym.analysis.sweep_run import SweepRun, load_sweep_run

NOTES = (
    "P is pretrained on RAM at every latent size, and every arm is trained at that size; all else "
    "stays as it is. Scores are of the last checkpoint.",
    "A smaller latent also leaves the probe fewer features. The untrained encoder shows how much "
    "of a fall that explains; C-SWM how much comes without any frozen P.",
    "The paper's Figure 5 gives no numbers in its text; what it says is that F1 falls with dim z.",
    "Differences to the widest latent are paired by seed; exact one-sided Wilcoxon tests in both "
    f"directions, before and after Benjamini-Hochberg; under {MIN_PAIRS} seeds no significance is "
    "claimed.",
    "P itself is trained once at each size: its own curve has no seeds and so no interval.",
)
"""How to read a bottleneck report."""


def bottleneck_page(folder: Path, saved: Path) -> Page:
    """Return the page of a bottleneck run; what is missing is said.

    Args:
        folder: The run folder.
        saved: Where figures are saved as files.

    Raises:
        RMRError: If the folder is no such run, a file in it is damaged, or a figure cannot be
            saved.
    """
    sweep = load_sweep_run(folder)
    summary = summarise_bottleneck(sweep)
    said = bottleneck_reading(sweep, summary)
    games = sweep.named("games", column="game")
    about = text.listing(games) if 0 < len(games) <= 4 else f"{len(games)} games"
    missing = "This run has no scores yet."
    sections = {
        "Unfinished": html.paragraph(missing) if sweep.scores.empty else "",
        "What the numbers say": html.definitions(said),
        "Bit F1 by latent size": pictures(_curves(sweep, len(games)), saved),
        "Against the widest latent": _narrowing_section(summary),
        "RMR and controls at each size": _sizes_section(summary),
        "P itself, on RAM": _abstract_section(summary),
        "What was run": description_section(sweep.base),
        "How to read this": html.bullets(NOTES),
    }
    return Page(
        title=f"Bottleneck: {about}",
        lead=html.paragraph(run_summary(sweep.base)),
        sections=sections,
        tables={
            "bottleneck_summary.csv": summary.sizes,
            "bottleneck_narrowing.csv": summary.narrowing,
            "bottleneck_abstract_summary.csv": summary.abstract,
        },
        text="\n".join(map(str, said)) or missing,
    )


def _curves(sweep: SweepRun, games: int) -> Iterator[Drawing]:
    for probe in sweep.view(sweep.scores).probes:
        yield Drawing(
            f"bottleneck_{probe}",
            chart_kind(games),
            f"Bit F1 against the size of the latents. Probe: {PROBE_LABELS.get(probe, probe)}. "
            "Lines are means over seeds, bands their range; dashed: the untrained encoder. The "
            "paper says in words that F1 falls with dim z.",
            partial(size_curves, sweep, probe),
        )
    yield Drawing(
        "bottleneck_abstract",
        chart_kind(games),
        "What P itself, pretrained at each size, predicts of RAM.",
        partial(abstract_size_curves, sweep),
    )


def _narrowing_section(summary: BottleneckSummary) -> str:
    header = (
        *("arm", "dim", "less dim", "pairs", "mean %", "difference", "95% interval", "p higher"),
        *("p lower", "verdict", "corrected p higher", "corrected p lower", "corrected verdict"),
    )
    rows: list[Row] = []
    for (game, objective), block in blocks(summary.narrowing, "game", "objective").items():
        rows.append(Group(f"{game}: {objective_title(objective)}"))
        rows += [
            [
                row["label"],
                *(str(row[name]) for name in ("dim", "widest", "pairs")),
                text.signed(row["relative"], 1),
                text.signed(row["difference"], 4),
                Entry(text.interval(row["low"], row["high"]), "quiet"),
                text.p_value(row["p_better"]),
                text.p_value(row["p_worse"]),
                verdict_entry(row["verdict"]),
                text.p_value(row["p_better_bh"]),
                text.p_value(row["p_worse_bh"]),
                verdict_entry(row["verdict_bh"]),
            ]
            for row in block
        ]
    return html.table(header, rows, "Bit F1 less that at the widest latent") if rows else ""


def _sizes_section(summary: BottleneckSummary) -> str:
    header = (
        *("arm", "dim", "seeds", "bit F1 (micro)", "effective rank", "to C-SWM", "verdict"),
        *("corrected", "to untrained", "verdict", "corrected"),
    )
    rows: list[Row] = []
    for (game, objective), block in blocks(summary.sizes, "game", "objective").items():
        rows.append(Group(f"{game}: {objective_title(objective)}"))
        rows += [
            [
                row["label"],
                str(row["dim"]),
                str(row["seeds"]),
                text.spread(row["micro_f1_mean"], row["micro_f1_std"]),
                text.spread(row["effective_rank_mean"], row["effective_rank_std"], 1),
                text.signed(row["cswm_difference"]),
                verdict_entry(row["cswm_verdict"]),
                verdict_entry(row["cswm_verdict_bh"]),
                text.signed(row["untrained_difference"]),
                verdict_entry(row["untrained_verdict"]),
                verdict_entry(row["untrained_verdict_bh"]),
            ]
            for row in block
        ]
    return (
        html.table(header, rows, "Mean ± deviation over seeds, paired differences") if rows else ""
    )


def _abstract_section(summary: BottleneckSummary) -> str:
    header = ("dim", "step", "bit F1", "to the widest, %", "slot accuracy", "mask accuracy")
    rows: list[Row] = []
    for (game,), block in blocks(summary.abstract, "game").items():
        rows.append(Group(str(game)))
        rows += [
            [
                str(row["dim"]),
                f"{row['step']:,}",
                text.number(row["bit_f1"]),
                text.signed(row["relative"], 1),
                text.number(row["slot_accuracy"]),
                text.number(row["mask_accuracy"]),
            ]
            for row in block
        ]
    return (
        html.table(header, rows, "Validation episodes, one training at each size") if rows else ""
    )
