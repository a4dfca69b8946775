"""Learning curves of agents, and the share of them that reaches each score."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmr_gym.analysis.agents import (
    ALL,
    FEATURE_LABELS,
    RANDOM,
    Score,
    in_table_order,
    iqm,
    kinds,
    pooled_worlds,
    profile,
    scores,
    strata_of,
    stratified_interval,
)
from rmr_gym.analysis.canvas import COLOURS, OTHER, finish, panel_grid, styled
from rmr_gym.analysis.run import blocks, values, where

_OWN = {"cnn": "#7F7F7F", "ram": "#56B4E9", "state": "#56B4E9"}
_LINES = {"ppo": "-", "dqn": "--"}


@styled
def agents_figure(table: pd.DataFrame) -> Figure:
    """Draw the return along training in each world, and a profile of the final scores.

    Lines are interquartile means over seeds, bands their 95% bootstrap intervals, the dotted line
    is random play.

    Args:
        table: As `rmr_gym.analysis.agents.load_results` gives it.
    """
    found, envs = scores(table), list(dict.fromkeys(table["env"]))
    figure, panels = panel_grid([*envs, ""], height=2.7)
    for env, panel in zip(envs, panels, strict=False):
        _curves(panel, where(table, env=env))
    _profiles(panels[-1], found)
    finish(figure, panels, "steps, all copies", "return, points", FEATURE_LABELS)
    panels[-1].set_xlabel("normalised: 0 random play, 1 best agent")
    panels[-1].set_ylabel("share of agents above")
    return figure


def _curves(panel: Axes, rows: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    for random in where(rows, features=RANDOM)["return"]:
        panel.axhline(random, color=OTHER, linestyle=":", label="random play")
    agents = pd.DataFrame(rows[rows["features"] != RANDOM])
    for algorithm, features in in_table_order(blocks(agents, "algorithm", "features")):
        own = where(agents, algorithm=algorithm, features=features)
        steps = sorted(set(own["step"]))
        runs = [values(where(own, step=step), "return") for step in steps]
        low, high = zip(*(stratified_interval([each], rng) for each in runs), strict=True)
        style = _style(algorithm, features)
        panel.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
        panel.plot(steps, [iqm(each) for each in runs], marker="o", markersize=3, **style)


def _profiles(panel: Axes, found: list[Score]) -> None:
    worlds = pooled_worlds(found)
    panel.set_title(f"final score, {', '.join(worlds)}")
    panel.set_ylim(-0.03, 1.03)
    final = np.array([each.final for each in found if each.env in worlds])
    thresholds = np.linspace(final.min(initial=0.0) - 0.02, final.max(initial=1.0), 201)
    for algorithm, features in kinds(found):
        groups = strata_of(found, ALL, algorithm, features)
        runs = np.array([each.final for group in groups for each in group])
        if len(runs):
            style = _style(algorithm, features)
            panel.step(thresholds, profile(runs, thresholds), **style)


def _style(algorithm: str, features: str) -> dict[str, Any]:
    return {
        "color": _OWN.get(features, COLOURS.get(features, OTHER)),
        "linestyle": _LINES.get(algorithm, "-."),
        "label": f"{FEATURE_LABELS.get(features, features)}, {algorithm.upper()}",
    }
