"""The page of a comparison: every arm beside C-SWM, the controls and the paper (Table 1)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import arms, charts
from rmr_gym.report.page import Page, counted
from rmr_gym.report.pictures import frames_beside_ram
from rmr_gym.report.runs import Run, groups, in_order, load_run, read_frames, where
from rmr_gym.report.tables import ARM_LABELS, OBJECTIVE_LABELS, called, grouped, label, wide

SLOTS = 128
"""RAM bytes, and so slots, of the machine."""


def compare(folder: Path) -> Page:
    """Return the page of a comparison.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, arms.NATURAL | arms.ABSTRACT, "compare")
    pairs, tables = arms.summarise(run)
    tables["abstract_summary"] = arms.abstract_table(run)
    shown = {"pairs": pairs, "missing": "This run has no natural results yet."}
    return Page(run, tables, dict(_figures(run)), shown)


def _figures(run: Run) -> Iterator[charts.NamedFigure]:
    yield "abstract_loss", partial(arms.abstract_curves, run)
    yield "natural_loss", partial(natural_curves, run)
    yield "natural_negative_energy", partial(natural_curves, run, "negative_energy")
    both = ("micro_f1", "effective_rank")
    for probe in arms.probes(run["natural"]):
        course = partial(arms.checkpoint_curves, run["natural"], run.games, probe, both)
        yield f"differences_{probe}", partial(difference_dots, run, probe)
        yield f"f1_and_rank_{probe}", course
    frames = read_frames(run.folder)
    for game in run.games:
        yield f"frames_{game}", partial(frames_beside_ram, frames, game)


def headline(natural: pd.DataFrame) -> pd.DataFrame:
    """Return a natural table with what heads its short form: seeds, and the paper's means."""
    most = natural.groupby(["game", "objective"])["seeds"].transform("max")
    named = natural["label"].where(natural["arm"] != "supervised", "supervised (ceiling)")
    fewer = " (n=" + natural["seeds"].astype(str) + ")"
    papers = [
        _PAPER.format(**arms.paper_natural(game)) if arms.paper_natural(game) else ""
        for game in natural["game"]
    ]
    named = named.where(natural["seeds"] == most, named + fewer)
    return natural.assign(name=named, most=[counted(n, "seed") for n in most], paper=papers)


_PAPER = "\n  the paper: RMR {rmr_mean:.3f}, C-SWM {cswm_mean:.3f}"


def at_checkpoints(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean F1 of every arm at every checkpoint under every probe, and RMR's tests."""
    keys, tests = [*arms.PLACE], ["cswm_difference", "cswm_verdict", "cswm_verdict_bh"]
    rows = wide(table, keys, "arm", ["micro_f1_mean"])
    rows = rows.merge(where(table, arm="rmr")[[*keys, *tests]], "left", keys)
    return grouped(rows.fillna(dict.fromkeys(tests[1:], "")), "game", "objective")


def natural_curves(run: Run, column: str = "loss") -> Figure:
    """Draw a training curve of the arms: a panel a game, a colour an arm, a thin line a seed.

    The supervised ceiling is left out: its loss is another one.

    Args:
        run: The run.
        column: "loss", "positive_energy" or "negative_energy".

    Raises:
        RMRError: If the run has no such curves.
    """
    rows = run["natural_curves"].dropna(subset=[column])
    rows = where(rows, ~rows["arm"].isin(arms.REFERENCES))
    rows = arms.titled(arms.ordered(rows, game=run.games, objective=OBJECTIVE_LABELS))
    return charts.loss_figure(rows, "panel", "arm", ARM_LABELS, column, "natural_curves.csv")


def difference_dots(run: Run, probe: str = "ridge", step: int | None = None) -> Figure:
    """Draw each arm's bit F1 minus C-SWM's: dots are seeds, diamonds above their mean.

    The bar through a diamond is the 95% bootstrap interval of the mean (two seeds or more).

    Args:
        run: The run.
        probe: Which probe's scores.
        step: Checkpoint; None for the last.

    Raises:
        RMRError: If no arm can be paired with C-SWM.
    """
    pairs = arms.arm_pairs(arms.standing(run["natural"], run.games, probe, step), ("cswm",))
    pairs = where(pairs, pairs["pairs"] > 0)
    shown = arms.titled(pairs).assign(row=called(pairs["arm"], ARM_LABELS))
    shown["panel"] += ", step " + shown["checkpoint"].astype(str)
    shown["color"] = charts.colours(shown["arm"])
    shown = shown.rename(columns={"gaps": "points", "difference": "mean"})
    across = f"bit F1 minus that of {label('cswm')}"
    panels = charts.faceted(shown, "panel", charts.Dots.of, across=across)
    names = [label(arm) for arm in in_order(pairs["arm"], ARM_LABELS)]
    return charts.dots(panels, names, 0.0, file="natural.csv")


def signs(checkpoints: pd.DataFrame) -> pd.DataFrame:
    """Return in how many probes and checkpoints RMR minus C-SWM is above and below 0, by game."""
    gaps = where(checkpoints, arm="rmr").dropna(subset=["cswm_difference"])
    gaps = gaps.assign(above=gaps["cswm_difference"] > 0, below=gaps["cswm_difference"] < 0)
    games = groups(gaps, "objective", "game")
    return games[["above", "below"]].sum().assign(count=games.size()).reset_index()


def highest(natural: pd.DataFrame) -> pd.DataFrame:
    """Return the arm with the highest mean bit F1 of those that never read RAM, by game."""
    scored = where(natural, natural["arm"] != "supervised").dropna(subset=["micro_f1_mean"])
    return scored.loc[groups(scored, "objective", "game")["micro_f1_mean"].idxmax()]


def energy_ratios(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the energy of the right next state over that of a wrong one, by arm and game."""
    rows = where(curves, curves["negative_energy"] > 0).dropna(subset=["positive_energy"])
    rows = arms.last_steps(rows, "objective", "game", "arm", "seed")
    rows["ratio"] = rows["positive_energy"] / rows["negative_energy"]
    ratios = groups(rows, "objective", "arm", "game")["ratio"].mean().reset_index()
    return arms.ordered(ratios, arm=ARM_LABELS)


def collapsed(natural: pd.DataFrame) -> pd.DataFrame | None:
    """Return every trained encoder of which more than half the slots were dead; None: unknown."""
    health = where(natural, ~natural["arm"].isin(arms.REFERENCES)).dropna(subset=["dead_slots"])
    bad = where(health, health["dead_slots"] > SLOTS / 2)
    return None if health.empty else bad.drop_duplicates(["game", "objective", "arm", "seed"])
