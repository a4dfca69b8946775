"""The page of a transfer run."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rmr_gym.analysis import html
from rmr_gym.analysis.checkpoint_figures import f1_beside_rank
from rmr_gym.analysis.page import Drawing, Page, chart_kind, pictures
from rmr_gym.analysis.run import OBJECTIVE_LABELS, blocks, where
from rmr_gym.analysis.sections import description_section, run_summary
from rmr_gym.analysis.sweep_run import load_sweep_run
from rmr_gym.analysis.transfer import AGAINST, Matrix, condensed, read_matrix
from rmr_gym.analysis.transfer_figures import heat_map, ranking_dots
from rmr_gym.analysis.transfer_overview import TransferSummary, summarise_transfer
from rmr_gym.analysis.transfer_reading import transfer_reading
from rmr_gym.analysis.transfer_sections import (
    NOTES,
    cells_section,
    overview_section,
    ranking_section,
    robustness_section,
    scores_section,
)


def transfer_page(folder: Path, saved: Path) -> Page:
    """Return the page of a transfer run; what is missing is said.

    Args:
        folder: The run folder.
        saved: Where figures are saved as files.

    Raises:
        RMRError: If the folder is no such run, a file in it is damaged, or a figure cannot be
            saved.
    """
    matrix = read_matrix(load_sweep_run(folder))
    summary = summarise_transfer(matrix)
    said = transfer_reading(matrix, summary)
    ranked = ranking_section(summary.ranking)
    missing = "This run has no scores yet."
    sections = {
        "Unfinished": html.paragraph(missing) if matrix.run.natural.empty else "",
        "What the numbers say": html.definitions(said),
        "Transfer matrix": pictures(_maps(summary, ("cswm",)), saved),
        "Counts and tests across recipients": overview_section(summary.overview),
        "Scores beside the controls": scores_section(matrix),
        "The same matrix against the controls": pictures(_maps(summary, list(AGAINST)[1:]), saved),
        "Donors and recipients": pictures(_rankings(summary), saved) + ranked,
        "Probes and checkpoints": robustness_section(summary.robustness),
        "Probes over training": pictures(_courses(matrix), saved),
        "Every cell": cells_section(summary.cells),
        "What was run": description_section(matrix.run),
        "How to read this": html.bullets(NOTES),
    }
    return Page(
        title=f"Transfer of P: {len(matrix.donors)} donors, {len(matrix.recipients)} recipients",
        lead=html.paragraph(run_summary(matrix.run)),
        sections=sections,
        tables={
            "transfer_summary.csv": summary.cells,
            "transfer_overview.csv": summary.overview,
            "transfer_ranking.csv": summary.ranking,
            "transfer_robustness.csv": summary.robustness,
        },
        text="\n".join(map(str, said)) or missing,
    )


def _maps(summary: TransferSummary, against: Any) -> Iterator[Drawing]:
    for (name, objective), _ in blocks(summary.cells, "against", "objective").items():
        if name in against:
            cells = where(summary.cells, against=name, objective=objective)
            yield Drawing(
                f"transfer_{objective}_{name}",
                _kind(cells),
                f"{OBJECTIVE_LABELS.get(objective, objective)}: bit F1 with a frozen P above "
                f"{AGAINST[name]}, mean per cent over seeds; donors down, recipients across, in "
                "the order of their complete-link clusters. Donors that are no game and controls "
                "below. Hatched: missing.",
                partial(heat_map, cells),
            )


def _rankings(summary: TransferSummary) -> Iterator[Drawing]:
    for (objective,), _ in blocks(summary.ranking, "objective").items():
        cells = where(summary.cells, against="cswm", objective=objective)
        ranking = where(summary.ranking, objective=objective)
        yield Drawing(
            f"ranking_{objective}",
            _kind(cells),
            "What donors give and recipients gain over C-SWM, by other games' P. Dots are cells "
            "less the effect of their other side, diamonds their mean, bars its 95% bootstrap "
            "interval; donors that are no game in another colour.",
            partial(ranking_dots, cells, ranking),
        )


def _courses(matrix: Matrix) -> Iterator[Drawing]:
    for probe in matrix.run.probes:
        yield Drawing(
            f"f1_and_rank_{probe}",
            chart_kind(2 * len(matrix.recipients)),
            "Bit F1 and effective rank against training steps: a game's own P, other games' P "
            "(their mean), C-SWM and controls. Lines are means over seeds, bands their range.",
            partial(f1_beside_rank, condensed(matrix), probe),
        )


def _kind(cells: pd.DataFrame) -> str:
    return chart_kind(len(set(cells["recipient"])) // 2)
