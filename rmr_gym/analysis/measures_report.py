"""The page of the measures beside the bit probe."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.analysis import html, text
from rmr_gym.analysis.canvas import (
    COLOURS,
    MARKERS,
    OTHER,
    draw_seeds,
    finish,
    label_outer,
    panel_grid,
    styled,
)
from rmr_gym.analysis.html import Entry, Group, Row
from rmr_gym.analysis.measures import (
    ALL_LABELS,
    ARMS,
    BASELINES,
    PARTS,
    SCORES,
    last_step,
    measure_table,
    read_measures,
)
from rmr_gym.analysis.page import Drawing, Page, chart_kind, pictures
from rmr_gym.analysis.reading import Finding, unfinished
from rmr_gym.analysis.run import blocks, in_order, read_run, values, where
from rmr_gym.analysis.sections import (
    description_section,
    objective_title,
    run_summary,
    verdict_entry,
)
from rmr_gym.analysis.statistics import MIN_PAIRS
from rmr_gym.core.errors import RMRError

TITLES = {
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "accuracy": "accuracy",
    "mrr": "MRR",
    "hits_at_1": "Hits@1",
    "tied": "tied",
}

NOTES = (
    "Labels are the state variables of Anand et al. 2019 of more than 0.6 nats; a game's score is "
    "the mean over its labels. Macro F1 weighs a rare value as much as a frequent one.",
    "The player sees the RAM that the labels are read from: a privileged reference, no competitor. "
    "It has no seeds.",
    "Hits@1 and MRR rank what an arm predicts with its own latents, so that they say how well it "
    "agrees with itself: an arm that has collapsed ties, and 'tied' near 0 is the condition under "
    "which its rank means anything.",
    "Differences are paired by seed; exact one-sided Wilcoxon tests in both directions, before and "
    "after Benjamini-Hochberg over the games and arms of a category (or number of steps); under "
    f"{MIN_PAIRS} seeds no significance is claimed.",
)
"""How to read the measures."""


def measures_page(folder: Path, saved: Path) -> Page:
    """Return the page of a run of `rmr-gym measure`; what is missing is left out.

    Args:
        folder: The run folder.
        saved: Where figures are saved as files.

    Raises:
        RMRError: A file of the folder is damaged, or a figure cannot be saved.
    """
    run, rows = read_run(folder), read_measures(folder)
    tables = {name: measure_table(each, name) for name, each in rows.items()}
    labels, ranking = tables["labels"], tables["ranking"]
    overall = where(labels, category=ALL_LABELS)
    missing = "This run has no results yet."
    said = [*_reading(overall, "labels"), *_reading(ranking, "ranking"), *unfinished(run)]
    sections = {
        "Unfinished": html.paragraph(missing) if labels.empty and ranking.empty else "",
        "What the numbers say": html.definitions(said),
        "Pictures": pictures(_drawings(rows), saved),
        "Labels": _section(overall, "labels"),
        "Labels by category": _section(
            pd.DataFrame(labels[labels["category"] != ALL_LABELS]), "labels"
        ),
        "Ranking of predictions": _section(ranking, "ranking"),
        "What was run": description_section(run),
        "How to read this": html.bullets(NOTES),
    }
    games = list(dict.fromkeys([*values(labels, "game"), *values(ranking, "game")]))
    return Page(
        title=f"Labels and ranks: {text.listing(games) if games else 'no games yet'}",
        lead=html.paragraph(run_summary(run)),
        sections=sections,
        tables={f"{name}_summary.csv": table for name, table in tables.items() if not table.empty},
        text="\n".join(map(str, [*_means(overall, "labels"), *_means(ranking, "ranking"), *said]))
        or missing,
    )


@styled
def label_dots(rows: pd.DataFrame, score: str = "macro_f1") -> Figure:
    """Draw the mean over labels of every arm and seed, a panel a game.

    Raises:
        RMRError: There are no labels.
    """
    rows = last_step(where(rows, category=ALL_LABELS))
    if rows.empty:
        raise RMRError("this run has no labels")
    games = list(dict.fromkeys(values(rows, "game")))
    arms = in_order(values(rows, "arm"), ARMS)
    figure, panels = panel_grid(games, height=0.5 + 0.25 * len(arms))
    for game, panel in zip(games, panels, strict=True):
        for height, arm in enumerate(reversed(arms)):
            found = values(where(rows, game=game, arm=arm), score)
            colour = COLOURS.get(arm, OTHER)
            panel.plot(found, [height] * len(found), "|", color=colour, markersize=9)
            panel.plot(
                [found.mean()] if len(found) else [],
                [height] * min(1, len(found)),
                "o",
                color=colour,
            )
        panel.set_yticks(range(len(arms)), [ARMS.get(arm, arm) for arm in reversed(arms)])
    label_outer(panels, TITLES[score], "")
    for index, panel in enumerate(panels):
        if index % 3:
            panel.set_yticklabels([])
    return figure


@styled
def ranking_curves(rows: pd.DataFrame, score: str = "mrr") -> Figure:
    """Draw ranks against the number of predicted steps, a panel a game.

    Raises:
        RMRError: There are no ranks.
    """
    rows = last_step(rows)
    if rows.empty:
        raise RMRError("this run has no ranks")
    games = list(dict.fromkeys(values(rows, "game")))
    figure, panels = panel_grid(games)
    for game, panel in zip(games, panels, strict=True):
        for arm in in_order(values(rows, "arm"), ARMS):
            style = {"color": COLOURS.get(arm, OTHER), "marker": MARKERS.get(arm, "o")}
            found = where(rows, game=game, arm=arm)
            draw_seeds(panel, found, "ahead", score, label=ARMS.get(arm, arm), **style)
    finish(figure, panels, "predicted steps", TITLES[score], ARMS)
    return figure


def _drawings(rows: dict[str, pd.DataFrame]) -> Iterator[Drawing]:
    labels, ranking = rows["labels"], rows["ranking"]
    yield Drawing(
        "labels",
        chart_kind(len(set(values(labels, "game")))),
        "Macro F1 of the label probe, mean over a game's labels. Strokes are seeds, dots their "
        "means.",
        partial(label_dots, labels),
    )
    yield Drawing(
        "ranking",
        chart_kind(len(set(values(ranking, "game")))),
        "MRR of the true next latent among 1,000 predictions. Lines are means over seeds, bands "
        "their range.",
        partial(ranking_curves, ranking),
    )


def _reading(table: pd.DataFrame, name: str) -> Iterator[Finding]:
    """Say of RMR where it is better, the same or worse than each baseline."""
    score = TITLES[SCORES[name][0]]
    part = PARTS[name]
    for (step,), rows in blocks(where(table, arm="rmr"), part).items():
        when = f" after {int(step)} predicted steps" if name == "ranking" else " over labels"
        for baseline in BASELINES:
            verdicts: dict[str, list[str]] = {}
            for row in rows:
                if row[f"{baseline}_verdict"]:
                    told = f"{row['game']} {text.signed(row[f'{baseline}_difference'])}"
                    verdicts.setdefault(row[f"{baseline}_verdict"], []).append(told)
            if verdicts:
                parts = [f"{found} on {text.listing(names)}" for found, names in verdicts.items()]
                subject = f"{ARMS['rmr']} against {ARMS[baseline]}, {score}{when}"
                yield Finding(subject, f"{'; '.join(parts)}.")


def _means(table: pd.DataFrame, name: str) -> Iterator[Finding]:
    """Say the means of every arm, a line a game and number of steps."""
    score = SCORES[name][0]
    part = PARTS[name]
    for (game, value), rows in blocks(table, "game", part).items():
        told = [f"{row['label']} {text.number(row[f'{score}_mean'])}" for row in rows]
        subject = f"{TITLES[score]} on {game}"
        if name == "ranking":
            subject += f", {int(value)} step{'' if value == 1 else 's'} ahead"
        yield Finding(subject, ", ".join(told))


def _section(table: pd.DataFrame, name: str) -> str:
    scores = SCORES[name]
    header = (
        *("arm", "category" if name == "labels" else "steps", "seeds"),
        *(TITLES[score] for score in scores),
        *(entry for each in BASELINES for entry in (f"less {ARMS[each]}", "verdict", "corrected")),
    )
    part = PARTS[name]
    rows: list[Row] = []
    for (game, objective), block in blocks(table, "game", "objective").items():
        rows.append(Group(f"{game}: {objective_title(objective)}"))
        for row in block:
            line: list[str | Entry] = [
                row["label"],
                str(row[part] if name == "labels" else int(row[part])),
                str(row["seeds"]),
                *(text.spread(row[f"{each}_mean"], row[f"{each}_std"]) for each in scores),
            ]
            for baseline in BASELINES:
                line += [
                    text.signed(row[f"{baseline}_difference"]),
                    verdict_entry(row[f"{baseline}_verdict"]),
                    verdict_entry(row[f"{baseline}_verdict_bh"]),
                ]
            rows.append(line)
    caption = f"Mean ± deviation over seeds; differences of {TITLES[scores[0]]}, paired by seed"
    return html.table(header, rows, caption) if rows else ""
