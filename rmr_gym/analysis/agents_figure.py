"""Agents along training, and the share of them that reaches each score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmr_gym.analysis.agents import (
    ALIGNED,
    ALL,
    FEATURE_LABELS,
    RANDOM,
    Score,
    feature_label,
    in_table_order,
    kinds,
    normalised,
    pooled_worlds,
    score_curve,
    scores,
    strata_of,
)
from rmr_gym.analysis.canvas import COLOURS, OTHER, finish, panel_grid, styled
from rmr_gym.analysis.interquartile import iqm, profile, profile_band, stratified_interval
from rmr_gym.analysis.run import blocks, values, where

_OWN = {"baseline": COLOURS["cswm"], "cnn": "#7F7F7F", "ram": "#56B4E9", "state": "#56B4E9"}
_LINES: dict[str, Any] = {
    "ppo": "-",
    "recurrent_ppo": "-.",
    "rims_ppo": (0, (2, 1)),
    "dqn": "--",
    "qrdqn": (0, (5, 1, 1, 1)),
}

ALGORITHM_LABELS = {
    "ppo": "PPO",
    "recurrent_ppo": "recurrent PPO (LSTM)",
    "rims_ppo": "recurrent PPO (RIMs)",
    "dqn": "DQN",
    "qrdqn": "QR-DQN",
}


@styled
def agents_figure(table: pd.DataFrame) -> Figure:
    """Draw the return along training in each world, the score over worlds, a performance profile.

    Lines are interquartile means over seeds, in the profile shares of agents; bands are their 95%
    bootstrap intervals, the dotted line is random play. The score along training needs two worlds
    that can be pooled.

    Args:
        table: As `rmr_gym.analysis.agents.load_results` gives it.
    """
    found, envs = scores(table), list(dict.fromkeys(table["env"]))
    worlds = pooled_worlds(found)
    pooled = ["" for _ in worlds[1:2]]
    figure, panels = panel_grid([*envs, *pooled, ""], height=2.7)
    for env, panel in zip(envs, panels, strict=False):
        _curves(panel, where(table, env=env))
    if pooled:
        _scores(panels[-2], table, found)
    _profiles(panels[-1], found)
    columns = min(3, len(panels))  # as wide as the labels of agents are long
    finish(
        *(figure, panels, "steps, all copies", "return, points", FEATURE_LABELS), columns=columns
    )
    if pooled:
        panels[-2].set_title(f"score, {', '.join(worlds)}")
        panels[-2].set_ylabel("0 random play, 1 best agent")
    panels[-1].set_title(f"final score, {', '.join(worlds)}")
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
        _draw(panel, steps, [[each] for each in runs], rng, _style(algorithm, features))


def _scores(panel: Axes, table: pd.DataFrame, found: list[Score]) -> None:
    scored, rng = normalised(table), np.random.default_rng(0)
    for algorithm, features in kinds(found):
        if curve := score_curve(scored, found, algorithm, features):
            steps, strata = zip(*curve, strict=True)
            _draw(panel, steps, strata, rng, _style(algorithm, features))


def _draw(
    panel: Axes,
    steps: Sequence[int],
    strata: Sequence[Sequence[np.ndarray]],
    rng: np.random.Generator,
    style: dict[str, Any],
) -> None:
    """Draw interquartile means of the runs of all worlds, and their intervals, at some steps."""
    low, high = zip(*(stratified_interval(each, rng) for each in strata), strict=True)
    panel.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
    means = [iqm(np.concatenate(each)) for each in strata]
    panel.plot(steps, means, marker="o", markersize=3, **style)


def _profiles(panel: Axes, found: list[Score]) -> None:
    worlds, rng = pooled_worlds(found), np.random.default_rng(0)
    panel.set_ylim(-0.03, 1.03)
    final = np.array([each.final for each in found if each.env in worlds])
    thresholds = np.linspace(final.min(initial=0.0) - 0.02, final.max(initial=1.0), 201)
    for algorithm, features in kinds(found):
        groups = strata_of(found, ALL, algorithm, features)
        if groups:
            strata = [np.array([each.final for each in group]) for group in groups]
            style = _style(algorithm, features)
            low, high = profile_band(strata, thresholds, rng)
            panel.fill_between(
                thresholds, low, high, step="pre", color=style["color"], alpha=0.15, linewidth=0
            )
            panel.step(thresholds, profile(np.concatenate(strata), thresholds), **style)


def _style(algorithm: str, features: str) -> dict[str, Any]:
    plain = features.removesuffix(ALIGNED)
    return {
        "color": _OWN.get(plain, COLOURS.get(plain, OTHER)),
        "linestyle": _LINES.get(algorithm, "-."),
        "label": (f"{feature_label(features)}, {ALGORITHM_LABELS.get(algorithm, algorithm)}"),
    }
