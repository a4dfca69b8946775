"""The page of a study of objectives: what each leaves in the encoder, and whether P matters."""

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import arms, charts
from rmr_gym.report.names import ARM_LABELS, OBJECTIVE_LABELS, label, objective_label
from rmr_gym.report.page import Page, about
from rmr_gym.report.runs import Run, in_order, load_run, where
from rmr_gym.report.tables import grouped


def report(folder: Path) -> Page:
    """Return the page of a study of objectives.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, arms.NATURAL, "objectives")
    pairs, tables = arms.summarise(run)
    above = above_untrained(run)
    trained = in_order({*run["natural"]["arm"]} - {"untrained"}, ARM_LABELS)
    return Page(
        run,
        f"Objectives: {about(run.games, 'game')}",
        {
            "untrained": grouped(where(pairs, pairs["pairs"] > 0, against="untrained"), "game"),
            "tests": arms.every_test(pairs, tables["contrast_summary"]),
            "trained": {arm: label(arm) for arm in trained},
        },
        {f"objectives_{arm}": partial(objective_curves, run, arm) for arm in trained},
        tables | {"above_untrained": above},
        len(run["natural"]) > 0,
    )


def above_untrained(run: Run, probe: str = "ridge") -> pd.DataFrame:
    """Return micro F1 less that of the untrained encoder of the same seed, at every checkpoint.

    Columns: game, objective, arm, seed, step, above.
    """
    rows, key = where(run["natural"], probe=probe), ["game", "objective", "seed"]
    untrained = where(rows, arm="untrained")[[*key, "micro_f1"]]
    joined = rows.merge(untrained, on=key, suffixes=("", "_untrained"))
    joined["above"] = joined["micro_f1"] - joined["micro_f1_untrained"]
    columns = ["game", "objective", "arm", "seed", "step", "above"]
    return pd.DataFrame(where(joined, joined["arm"] != "untrained"), columns=columns)


def objective_curves(run: Run, arm: str = "rmr", probe: str = "ridge") -> Figure:
    """Draw what training adds to the untrained encoder's F1 or takes from it, a panel a game.

    Lines are objectives, means over seeds; bands the range of seeds.

    Raises:
        RMRError: The run has no such arm beside an untrained encoder.
    """
    rows = where(above_untrained(run, probe), arm=arm)
    level = rows.assign(objective="untrained", above=0.0)
    rows = arms.ordered(pd.concat([rows, level]) if len(rows) else rows, game=run.games)
    known = in_order({*rows["objective"]} - {"untrained"}, OBJECTIVE_LABELS)
    names = {name: objective_label(name) for name in known} | {"untrained": "untrained encoder"}
    draw = partial(charts.over_seeds, x="step", y="above", by="objective", labels=names)
    axes = {"across": "gradient steps", "up": "bit F1 above untrained"}
    return charts.lines(charts.faceted(rows, "game", draw, **axes), 2, "natural.csv")
