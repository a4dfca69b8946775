"""Kinds of agents compared: final return, sample efficiency over seeds, and paired tests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from rmr_gym.analysis.interquartile import iqm, stratified_interval
from rmr_gym.analysis.run import blocks, values, where
from rmr_gym.analysis.run_files import read_table
from rmr_gym.analysis.statistics import benjamini_hochberg, paired_difference

KEY = ("env", "algorithm", "features", "seed", "step")
NUMBERS = ("seed", "step", "return", "episodes")
ALL, RANDOM = "all", "random"
RESULTS, SUMMARY, PAIRS = "results.csv", "agents_summary.csv", "agents_pairs.csv"

FEATURE_LABELS = {
    "rmr": "RMR features",
    "cswm": "C-SWM features",
    "baseline": "features of a trained P",
    "tuned_p": "features of a tuned P",
    "random_p": "features of a frozen random P",
    "shuffled_p": "features of a weight-shuffled P",
    "no_p": "features without P",
    "untrained": "untrained encoder",
    "supervised": "features supervised on RAM",
    "cnn": "NatureCNN, end to end",
    "ram": "RAM bits",
    "state": "positions and velocities",
}
"""What agents see, in the order of tables and figures."""

ALIGNED = "_aligned"
"""How arms of bouncing balls end that start aligned."""

MEASURES = ("final", "efficiency")


@dataclass(frozen=True)
class Score:
    """What one agent reached.

    Attributes:
        env: World.
        algorithm: How it learnt.
        features: What it saw.
        seed: Of training.
        returned: Mean return of its last measurement, points.
        final: The same, normalised: 0 for random play, 1 for the best agent of the world.
        efficiency: Mean normalised return along training, from 0 at the start.
    """

    env: str
    algorithm: str
    features: str
    seed: int
    returned: float
    final: float
    efficiency: float


def load_results(folder: Path) -> pd.DataFrame:
    """Read ``results.csv`` of a comparison of agents; empty where it is not there yet.

    Raises:
        RMRError: It is damaged.
    """
    path = folder / RESULTS
    if not path.is_file():
        return pd.DataFrame(columns=[*KEY, *NUMBERS[2:]])
    table = read_table(path, NUMBERS, KEY)
    table["algorithm"] = table["algorithm"].fillna("").astype(str)
    return table


def scores(table: pd.DataFrame) -> list[Score]:
    """Return what each agent reached; agents stopped before the last step of their world are out.

    Args:
        table: As `load_results` gives it.
    """
    found = []
    for (env,), rows in blocks(normalised(table), "env").items():
        agents = pd.DataFrame(rows)
        last = float(values(agents, "step").max())
        for (algorithm, features, seed), run in blocks(
            agents.sort_values(["seed", "step"]), *KEY[1:4]
        ).items():
            if run[-1]["step"] < last:
                continue
            reached = [0.0, *(row["score"] for row in run)]
            area = np.trapezoid(reached, [0.0, *(row["step"] for row in run)])
            score = (run[-1]["return"], reached[-1], float(area) / last)
            found.append(Score(env, algorithm, features, seed, *score))
    return found


def normalised(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of agents with their ``score``, see `normalisation`; random play is out."""
    scored = []
    for rows in blocks(table, "env").values():
        agents = [row for row in rows if row["features"] != RANDOM]
        if agents:
            low, unit = normalisation(rows)
            scored += [row | {"score": (row["return"] - low) / unit} for row in agents]
    return pd.DataFrame(scored, columns=[*table.columns, "score"])


def normalisation(rows: Sequence[Mapping[Any, Any]]) -> tuple[float, float]:
    """Return the points that count as 0 and those that one unit is, of one world's rows.

    0 is random play (without it, the worst agent), 1 the best last measurement of any agent; where
    no agent is better than random play, a unit is a point.
    """
    agents = [row for row in rows if row["features"] != RANDOM]
    last = max(row["step"] for row in agents)
    final = [row["return"] for row in agents if row["step"] == last]
    low = next((row["return"] for row in rows if row["features"] == RANDOM), min(final))
    best = max(final)
    return low, best - low if best > low else 1.0


def score_curve(
    table: pd.DataFrame, found: Sequence[Score], algorithm: str, features: str
) -> list[tuple[int, list[Float[np.ndarray, " runs"]]]]:
    """Return the scores of one kind of agents along training, world by world of `pooled_worlds`.

    A step counts where every finished agent of these worlds was measured.

    Args:
        table: As `normalised` gives it.
        found: The finished agents, see `scores`.
        algorithm: Of the kind.
        features: Of the kind.

    Returns:
        Steps, and the scores in each world.
    """
    strata = strata_of(found, ALL, algorithm, features)
    own = where(table, algorithm=algorithm, features=features)
    reached = {
        (row["env"], row["seed"], row["step"]): row["score"] for row in own.to_dict("records")
    }
    curve = []
    for step in sorted({int(step) for step in values(own, "step")}):
        names = [[(each.env, each.seed, step) for each in group] for group in strata]
        if names and all(name in reached for group in names for name in group):
            scored = [np.array([reached[name] for name in group]) for group in names]
            curve.append((step, scored))
    return curve


def summary(found: Sequence[Score]) -> list[dict[str, Any]]:
    """Return a row for each kind of agent in each world, and in `pooled_worlds` together."""
    rows, rng = [], np.random.default_rng(0)
    for env in _worlds(found):
        for algorithm, features in kinds(found):
            runs = strata_of(found, env, algorithm, features)
            if not runs:
                continue
            row: dict[str, Any] = {"env": env, "algorithm": algorithm, "features": features}
            row["runs"] = sum(map(len, runs))
            returns = [each.returned for group in runs for each in group]
            row["return_iqm"] = float("nan") if env == ALL else float(iqm(np.array(returns)))
            for measure in MEASURES:
                strata = [np.array([getattr(each, measure) for each in group]) for group in runs]
                low, high = stratified_interval(strata, rng)
                row |= {
                    measure: float(iqm(np.concatenate(strata))),
                    f"{measure}_low": low,
                    f"{measure}_high": high,
                }
            rows.append(row)
    return rows


def pairs(found: Sequence[Score]) -> list[dict[str, Any]]:
    """Return exact paired tests of every two kinds of agents that differ in one thing.

    That is in features, or in the algorithm: ``algorithm`` is that of ``first``. A pair are two
    agents of one world and seed. p-values are one-sided, from Wilcoxon's signed-rank test;
    ``adjusted`` ones are corrected for all tests of the same direction in the table (Benjamini and
    Hochberg). The verdict goes by the raw ones.
    """
    rows, rng = [], np.random.default_rng(0)
    agents = {(each.env, each.algorithm, each.features, each.seed): each for each in found}
    for env in _worlds(found):
        worlds = pooled_worlds(found) if env == ALL else [env]
        for one, other in combinations(kinds(found), 2):
            both = [
                (agents[key], agents[twin])
                for key in agents
                if key[1:3] == one and key[0] in worlds
                for twin in [(key[0], *other, key[3])]
                if twin in agents
            ]
            alike = one[0] == other[0] or one[1] == other[1]
            if not alike or not both:
                continue
            for measure in MEASURES:
                gaps = np.array([getattr(a, measure) - getattr(b, measure) for a, b in both])
                named = {"env": env, "algorithm": one[0], "first": one[1]}
                named |= {"second_algorithm": other[0], "second": other[1], "measure": measure}
                rows.append(named | vars(paired_difference(gaps, rng)))
    for side in ("better", "worse"):
        adjusted = benjamini_hochberg(np.array([row[f"p_{side}"] for row in rows], float))
        for row, p in zip(rows, adjusted, strict=True):
            row[f"adjusted_{side}"] = float(p)
    return rows


def kinds(found: Sequence[Score]) -> list[tuple[str, str]]:
    """Return the algorithms with their features, in the order of tables."""
    return in_table_order((each.algorithm, each.features) for each in found)


def in_table_order(kinds: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return distinct (algorithm, features) in the order of tables."""
    order = {name: place for place, name in enumerate(FEATURE_LABELS)}

    def place(features: str) -> int:
        return order.get(features.removesuffix(ALIGNED), len(order))

    return sorted(set(kinds), key=lambda kind: (kind[0], place(kind[1]), kind[1]))


def feature_label(features: str) -> str:
    """Return what agents see in words."""
    plain = features.removesuffix(ALIGNED)
    start = ", aligned start" if plain != features else ""
    return f"{FEATURE_LABELS.get(plain, plain)}{start}"


def pooled_worlds(found: Sequence[Score]) -> list[str]:
    """Return the worlds of "all": the largest group in which the same kinds of agents are."""
    groups: dict[frozenset[tuple[str, str]], list[str]] = {}
    for env in dict.fromkeys(each.env for each in found):
        there = frozenset(kinds([each for each in found if each.env == env]))
        groups.setdefault(there, []).append(env)
    return max(groups.values(), key=len, default=[])


def strata_of(found: Sequence[Score], env: str, algorithm: str, features: str) -> list[list[Score]]:
    """Return the agents of one kind, world by world; of `pooled_worlds` with "all"."""
    worlds, kind = pooled_worlds(found) if env == ALL else [env], (algorithm, features)
    groups = [
        [each for each in found if (each.algorithm, each.features) == kind and each.env == world]
        for world in worlds
    ]
    return [group for group in groups if group]


def agent_tables(found: Sequence[Score]) -> dict[str, pd.DataFrame]:
    """Return `summary` and `pairs` as tables, by the names of their files."""
    return {SUMMARY: pd.DataFrame(summary(found)), PAIRS: pd.DataFrame(pairs(found))}


def _worlds(found: Sequence[Score]) -> list[str]:
    worlds = list(dict.fromkeys(each.env for each in found))
    return [*worlds, ALL] if len(pooled_worlds(found)) > 1 else worlds
