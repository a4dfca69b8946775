"""The page of a study of objectives: what each leaves in the encoder, and whether P matters."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.analysis import html, text
from rmr_gym.analysis.canvas import draw_seeds, finish, panel_grid, styled
from rmr_gym.analysis.cells import cells
from rmr_gym.analysis.html import Group, Row
from rmr_gym.analysis.page import Drawing, Page, chart_kind, pictures
from rmr_gym.analysis.run import (
    ARM_LABELS,
    OBJECTIVE_LABELS,
    Run,
    in_order,
    load_run,
    values,
    where,
)
from rmr_gym.analysis.sections import (
    description_section,
    natural_section,
    run_summary,
    tests_section,
    verdict_entry,
)
from rmr_gym.analysis.tables import summarise, summary_tables
from rmr_gym.core.errors import RMRError

LINES = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#666666")
COLUMNS = ("game", "objective", "arm", "seed", "step", "above")


def above_untrained(run: Run, probe: str = "ridge") -> pd.DataFrame:
    """Return micro F1 less that of the untrained encoder of the same seed, at every checkpoint.

    Columns: game, objective, arm, seed, step, above.
    """
    rows = where(run.natural, probe=probe)
    paired = ["game", "objective", "seed"]
    untrained = pd.DataFrame(where(rows, arm="untrained")[[*paired, "micro_f1"]])
    joined = rows.merge(untrained, on=paired, suffixes=("", "_untrained"))
    joined["above"] = joined["micro_f1"] - joined["micro_f1_untrained"]
    trained = joined[joined["arm"] != "untrained"]
    return pd.DataFrame(trained, columns=[*COLUMNS])


def objectives_page(folder: Path, saved: Path) -> Page:
    """Return the page of a study of objectives; what the run lacks is left out.

    Args:
        folder: The run folder.
        saved: Where figures are saved as files.

    Raises:
        RMRError: If the folder is no such run, a file in it is damaged, or a figure cannot be
            saved.
    """
    run = load_run(folder)
    summary = summarise(run)
    above = above_untrained(run)
    missing = "This run has no results yet."
    sections = {
        "Unfinished": html.paragraph(missing) if above.empty else "",
        "Against the untrained encoder": pictures(_drawings(run), saved) + _table(run),
        "Every arm": natural_section(summary.natural),
        "Paired tests": tests_section(summary.natural, summary.contrast),
        "What was run": description_section(run),
    }
    return Page(
        title=f"Objectives: {text.listing(run.games) if run.games else 'no games yet'}",
        lead=html.paragraph(run_summary(run)),
        sections=sections,
        tables=summary_tables(summary) | {"above_untrained.csv": above},
        text=_short(above) or missing,
    )


@styled
def objective_curves(run: Run, arm: str = "rmr", probe: str = "ridge") -> Figure:
    """Draw what training adds to the untrained encoder's F1 or takes from it, a panel a game.

    Lines are objectives, means over seeds; bands the range of seeds.

    Raises:
        RMRError: The run has no such arm.
    """
    rows = where(above_untrained(run, probe), arm=arm)
    if rows.empty:
        raise RMRError(f"{run.folder} has no scores of the arm {arm!r} beside an untrained encoder")
    games = [game for game in run.games if game in set(values(rows, "game"))]
    names = in_order(values(rows, "objective"), OBJECTIVE_LABELS)
    labels = {name: OBJECTIVE_LABELS.get(name, name) for name in names}
    figure, panels = panel_grid(games, most=2)
    for game, panel in zip(games, panels, strict=True):
        panel.axhline(0, color="black", linestyle="--", linewidth=1)
        for index, name in enumerate(names):
            style = {"color": LINES[index % len(LINES)], "label": labels[name], "marker": "o"}
            draw_seeds(panel, where(rows, game=game, objective=name), "step", "above", **style)
    finish(figure, panels, "gradient steps", "bit F1 above untrained", labels, 2, columns=2)
    return figure


def _drawings(run: Run) -> Iterator[Drawing]:
    for arm in in_order(set(values(run.natural, "arm")) - {"untrained"}, ARM_LABELS):
        yield Drawing(
            f"objectives_{arm}",
            chart_kind(len(run.games)),
            f"{ARM_LABELS.get(arm, arm)}: bit F1 of the ridge probe less that of the untrained "
            "encoder of the same seed. Lines are means over seeds, bands their range.",
            partial(objective_curves, run, arm),
        )


def _table(run: Run) -> str:
    header = ("objective", "arm", "pairs", "difference", "95% interval", "p higher", "verdict")
    groups: dict[str, list[Row]] = {}
    for cell in cells(run, "ridge"):
        for arm in cell.arms:
            found = cell.difference(arm, "untrained")
            if arm == "untrained" or not found.pairs:
                continue
            groups.setdefault(cell.game, []).append(
                [
                    OBJECTIVE_LABELS.get(cell.objective, cell.objective),
                    ARM_LABELS.get(arm, arm),
                    str(found.pairs),
                    text.signed(found.mean, 4),
                    text.interval(found.low, found.high),
                    text.p_value(found.p_better),
                    verdict_entry(found.verdict),
                ]
            )
    rows = [row for game, lines in groups.items() for row in (Group(game), *lines)]
    return html.table(header, rows, "Last checkpoint less untrained") if rows else ""


def _short(above: pd.DataFrame) -> str:
    """Means over seeds at the last checkpoint of each run, a line an objective and arm."""
    lines = []
    for objective, arm in dict.fromkeys(
        zip(values(above, "objective"), values(above, "arm"), strict=True)
    ):
        rows = where(above, objective=objective, arm=arm)
        last = where(rows, step=rows["step"].max())
        means = {
            game: float(values(where(last, game=game), "above").mean())
            for game in dict.fromkeys(values(last, "game"))
        }
        told = ", ".join(f"{game} {text.signed(value, 4)}" for game, value in means.items())
        overall = text.signed(sum(means.values()) / len(means), 4)
        lines.append(f"{objective}, {arm}, less untrained: {told}; mean {overall}")
    return "\n".join(lines)
