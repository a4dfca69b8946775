"""The page of a comparison of agents: final return, sample efficiency, and paired tests."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.stats import trim_mean

from rmr_gym.report import charts
from rmr_gym.report.page import Page
from rmr_gym.report.runs import Schema, groups, load_run, parts, records, where
from rmr_gym.report.statistics import corrected, paired
from rmr_gym.report.tables import labels_of, looks_of

KEY = ("env", "algorithm", "features", "seed", "step")
TABLES = {"results": Schema(KEY, ("return", "episodes"))}
ALL, RANDOM = "all", "random"
RESAMPLES = 2000

FEATURE_LABELS, ALGORITHM_LABELS = labels_of("features"), labels_of("algorithm")
LOOKS = looks_of("features")
MEASURES = {"final": "final score", "efficiency": "sample efficiency"}

_STROKES: Any = ("-", "-.", (0, (2, 1)), "--", (0, (5, 1, 1, 1)))
_DASHES = dict(zip(ALGORITHM_LABELS, _STROKES, strict=True))

Strata = Sequence[Float[np.ndarray, " runs"]]


def agents(folder: Path) -> Page:
    """Return the page of a comparison of agents; one that has only begun says so.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES, "agents")
    results = run["results"]
    found = pooled(scores(results))
    tables = {"agents_summary": summary(found), "agents_pairs": agent_pairs(found)}
    tests = corrected(tables["agents_pairs"], ())
    tests = tests.assign(difference=tests["mean"], **_compared(tests))
    shown = {
        "missing": "No agent of this run has learnt to the end yet.",
        "worlds": list(dict.fromkeys(where(found, env=ALL)["world"])),
        "tests": tests.assign(place=tests["env"].replace(ALL, "all together")),
    }
    figures = {"agents": agents_figure, "distractors": distractors_figure}
    figures = {name: partial(draw, results) for name, draw in figures.items()}
    return Page(run, tables, figures, shown, found)


def normalised(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of agents with their ``score``, see `normalisation`; random play is out."""
    scored = [
        agents.assign(score=(agents["return"] - low) / unit)
        for rows in parts(table, "env").values()
        for agents in [where(rows, rows["features"] != RANDOM)]
        if len(agents)
        for low, unit in [normalisation(rows)]
    ]
    return pd.concat(scored) if scored else table.iloc[:0].assign(score=0.0)


def normalisation(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the points that count as 0 and those that one unit is, of one world's rows.

    0 is random play (without it, the worst agent), 1 the best last measurement of any agent; where
    no agent is better than random play, a unit is a point.
    """
    agents, random = where(rows, rows["features"] != RANDOM), where(rows, features=RANDOM)
    final = [*where(agents, step=agents["step"].max())["return"]]
    low, best = float([*random["return"], min(final)][0]), float(max(final))
    return low, best - low if best > low else 1.0


def scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return what each agent reached; agents stopped before the last step of their world are out.

    Args:
        table: Rows of results.csv.

    Returns:
        Columns: env, algorithm, features, seed; returned (mean return of the last measurement),
        final (the same, normalised), efficiency (mean normalised return along training, from 0 at
        the start).
    """
    scored = normalised(table).sort_values(["seed", "step"], kind="stable")
    last = groups(scored, "env")["step"].max()
    rows = []
    for key, agent in parts(scored, *KEY[:4]).items():
        end = last[key[0]]
        if agent["step"].iloc[-1] == end:
            heights, at = ([0.0, *agent[column]] for column in ("score", "step"))
            reached = (agent["return"].iloc[-1], heights[-1], np.trapezoid(heights, at) / end)
            rows.append((*key, *reached))
    return pd.DataFrame(rows, columns=[*KEY[:4], "returned", "final", "efficiency"])


def pooled(found: pd.DataFrame) -> pd.DataFrame:
    """Return `scores` in the order of tables, and once more as "all" those that can be pooled.

    These are of the largest group of worlds, two or more, in which the same kinds of agents are.
    Further columns: world (which it truly is), place (its number), kind.
    """
    kind = found["algorithm"] + " " + found["features"]
    found = found.assign(world=found["env"], place=groups(found, "env").ngroup(), kind=kind)
    order = sorted({*kind}, key=_place)
    found["order"] = [order.index(name) for name in kind]
    found = found.sort_values(["place", "order"], kind="stable")
    there = groups(found, "world")["kind"].agg(frozenset)
    alike = [list(there.index[there == kinds]) for kinds in there]
    worlds = max(alike, key=len, default=[])
    return pd.concat([found, where(found, env=worlds if len(worlds) > 1 else []).assign(env=ALL)])


def _place(kind: str) -> tuple[str, int, str]:
    algorithm, _, features = kind.partition(" ")
    order = [*FEATURE_LABELS]
    return algorithm, order.index(features) if features in order else len(order), features


def strata_of(rows: pd.DataFrame, column: str) -> Strata:
    """Return the numbers in a column world by world."""
    return [own[column].to_numpy(float) for own in parts(rows, "world").values()]


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each kind of agent in each world, and in those that can be pooled.

    Args:
        found: See `pooled`.
    """
    rows, rng = [], np.random.default_rng(0)
    for (env, algorithm, features), own in parts(found, "env", *KEY[1:3]).items():
        row: dict[str, Any] = {"env": env, "algorithm": algorithm, "features": features}
        row["runs"] = len(own)
        row["return_iqm"] = np.nan if env == ALL else float(iqm(own["returned"].to_numpy()))
        for measure in MEASURES:
            strata = strata_of(own, measure)
            low, high = stratified_interval(strata, rng)
            row[measure] = float(iqm(np.concatenate(strata)))
            row |= {f"{measure}_low": low, f"{measure}_high": high}
        rows.append(row)
    scores = [f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high")]
    columns = ["env", "algorithm", "features", "runs", "return_iqm", *scores]
    return pd.DataFrame(rows, columns=columns)


def agent_pairs(found: pd.DataFrame) -> pd.DataFrame:
    """Return exact paired tests of every two kinds of agents that differ in one thing.

    That is in features, or in the algorithm: ``algorithm`` is that of ``first``. A pair are two
    agents of one world and seed. ``adjusted`` p-values are corrected for all tests of the same
    direction in the table (Benjamini and Hochberg). The verdict goes by the raw ones;
    ``improvement`` is the `improvement` of the first on the second.

    Args:
        found: See `pooled`.
    """
    rng = np.random.default_rng(0)

    def others(kind: str, kinds: list[str]) -> Iterable[str]:
        own = kind.split(" ")
        for other in kinds[kinds.index(kind) + 1 :]:
            if any(mine == theirs for mine, theirs in zip(own, other.split(" "), strict=True)):
                yield other

    tests = paired(
        *(found, dict.fromkeys(MEASURES, 1), "kind", others),
        *(("env",), ("place", "seed"), (), lambda _: rng),
    )
    tests = where(tests, tests["pairs"] > 0)
    tests["improvement"] = [improvement(found, row) for row in records(tests)]
    for level, names in {"kind": KEY[1:3], "against": ("second_algorithm", "second")}.items():
        split = tests[level].str.split(" ", expand=True).reindex(columns=[0, 1])
        tests[names[0]], tests[names[1]] = split[0], split[1]
    tests = tests.rename(
        columns={"features": "first", "difference": "mean", "score": "measure"}
        | {f"p_{side}_bh": f"adjusted_{side}" for side in ("better", "worse")}
    )
    columns = ["env", "algorithm", "first", "second_algorithm", "second", "measure", "pairs"]
    columns += ["mean", "low", "high", "improvement", "p_better", "p_worse", "verdict"]
    return pd.DataFrame(tests[[*columns, "adjusted_better", "adjusted_worse"]])


def _compared(tests: pd.DataFrame) -> dict[str, Any]:
    """Return in what two kinds of agents differ, and what they have in common."""
    alike = tests["algorithm"] == tests["second_algorithm"]
    features = [tests[name].replace(FEATURE_LABELS) for name in ("first", "second")]
    both = (tests[name] for name in ("algorithm", "second_algorithm"))
    algorithms = [names.replace(ALGORITHM_LABELS) for names in both]
    one, other = (seen.where(alike, how) for seen, how in zip(features, algorithms, strict=True))
    return {"one": one, "other": other, "both": algorithms[0].where(alike, features[0])}


def iqm(runs: Float[np.ndarray, "*rows runs"]) -> Float[np.ndarray, "*rows"]:
    """Return the interquartile mean of the last axis: a quarter of the runs is cut at either end.

    Of n runs, int(n / 4) fall at each end, and the others count alike.

    Source: Agarwal et al. 2021, section 4.3.
    """
    return np.asarray(trim_mean(runs, 0.25, axis=-1))


def improvement(found: pd.DataFrame, test: Mapping[Any, Any]) -> float:
    """Return the probability that an agent of one kind is better than one of the other.

    It is the mean over worlds, of any two agents of a world; equal ones count half.

    Source: Agarwal et al. 2021, section 4.3 (probability of improvement).

    Args:
        found: See `pooled`.
        test: Of which world, score, kind and kind against it.
    """
    rows = where(found, env=test["env"])
    sides = [strata_of(where(rows, kind=test[side]), test["score"]) for side in ("kind", "against")]
    signs = [np.sign(np.subtract.outer(*runs)).mean() for runs in zip(*sides, strict=True)]
    return float((np.mean(signs) + 1) / 2)


def stratified_interval(
    strata: Strata, rng: np.random.Generator, measure: Callable[[np.ndarray], np.ndarray] = iqm
) -> Float[np.ndarray, "2 *measures"]:
    """Return the 95% percentile-bootstrap interval of the interquartile mean, or of a measure.

    Runs are drawn anew within each world. NaN where no world has two runs.

    Source: Agarwal et al. 2021, section 4.1.

    Args:
        strata: Runs of each world.
        rng: Where the draws come from.
        measure: Of runs along the last axis.
    """
    if max(map(len, strata)) < 2:
        return np.full((2, *measure(np.concatenate(strata)).shape), np.nan)
    drawn = [runs[rng.integers(len(runs), size=(RESAMPLES, len(runs)))] for runs in strata]
    return np.quantile(measure(np.concatenate(drawn, axis=1)), [0.025, 0.975], axis=0)


def profile(
    runs: Float[np.ndarray, "*rows runs"], thresholds: Float[np.ndarray, " thresholds"]
) -> Float[np.ndarray, "*rows thresholds"]:
    """Return the share of runs above each threshold.

    Source: Agarwal et al. 2021, section 4.2 (score distribution).
    """
    return (runs[..., None] > thresholds).mean(-2)


def agents_figure(table: pd.DataFrame) -> Figure:
    """Draw the return along training in each world, the score over worlds, a performance profile.

    Lines are interquartile means over seeds, in the profile shares of agents; bands are their 95%
    bootstrap intervals, the dotted line is random play. The score along training needs two worlds
    that can be pooled.

    Args:
        table: Rows of results.csv.

    Raises:
        RMRError: No agent has learnt to the end.
    """
    found = pooled(scores(table))
    together = where(found, env=ALL)
    one = where(found, world=list(found["world"][:1]))
    together = together if len(together) else one
    worlds = ", ".join(dict.fromkeys(together["world"]))
    across, scale = "steps, all copies", "0 random play, 1 best agent"
    panels = [
        charts.Panel(str(env), _courses(rows.assign(world=env), "return"), across, "return, points")
        for (env,), rows in parts(table, "env").items()
    ]
    if ALL in {*found["env"]}:
        finished = together.drop(columns="env").rename(columns={"world": "env"})
        scored = normalised(table).merge(finished[[*KEY[:4]]])
        scored = scored.assign(world=scored["env"])
        panels.append(charts.Panel(f"score, {worlds}", _courses(scored, "score"), across, scale))
    axes = (f"normalised: {scale}", "share of agents above")
    shares = charts.Panel(f"final score, {worlds}", _profiles(together), *axes)
    return charts.lines([*panels, shares], file="results.csv")


def distractors_figure(table: pd.DataFrame) -> Figure:
    """Draw what agents reach by the number of distractors, a panel a world of MiniGrid.

    Args:
        table: Rows of results.csv.

    Raises:
        RMRError: No world says its number of distractors.
    """
    last = where(table, table["step"].isin([0, table["step"].max()]))
    parts_of_names = last["env"].str.extract(r"(.+)N(\d+)(-v\d+)$")
    last = last.assign(env=parts_of_names[0] + parts_of_names[2], step=parts_of_names[1])
    last = last.replace({"features": {RANDOM: "random play"}}).dropna(subset="env")
    last = last.assign(world=last["env"], step=last["step"].astype(float))
    panels = [
        charts.Panel(str(env), _courses(rows, "return"), "distractors", "share of successes")
        for (env,), rows in parts(last, "env").items()
    ]
    return charts.lines(panels, file="results.csv")


def _courses(rows: pd.DataFrame, column: str) -> list[charts.Line]:
    """Return a line a kind of agents; a step counts where all of a pool were measured."""
    rng = np.random.default_rng(0)
    random = where(rows, features=RANDOM)[column]
    dotted = {"color": charts.OTHER, "linestyle": ":"}
    drawn = [charts.Line("random play", [], [level], style=dotted) for level in random]
    agents = where(rows, rows["features"] != RANDOM)
    kinds = {" ".join(kind): own for kind, own in parts(agents, *KEY[1:3]).items()}
    for kind in sorted(kinds, key=_place):
        steps = parts(kinds[kind].sort_values("step"), "step")
        most = max(map(len, steps.values())) if column == "score" else 0
        strata = {
            step: strata_of(own, column) for (step,), own in steps.items() if len(own) >= most
        }
        bands = np.array([stratified_interval(runs, rng) for runs in strata.values()])
        means = [float(iqm(np.concatenate(runs))) for runs in strata.values()]
        drawn.append(charts.Line(_label(kind), [*strata], means, *bands.T, style=_style(kind)))
    return drawn


def _profiles(found: pd.DataFrame) -> list[charts.Line]:
    rng, drawn = np.random.default_rng(0), []
    final = found["final"].to_numpy()
    thresholds = np.linspace(final.min(initial=0.0) - 0.02, final.max(initial=1.0), 201)
    for (kind,), own in parts(found, "kind").items():
        strata = strata_of(own, "final")
        above = partial(profile, thresholds=thresholds)
        shares, band = above(np.concatenate(strata)), stratified_interval(strata, rng, above)
        style = _style(kind) | {"drawstyle": "steps", "marker": None}
        drawn.append(charts.Line(_label(kind), thresholds, shares, *band, style=style))
    return drawn


def _label(kind: str) -> str:
    algorithm, _, features = kind.partition(" ")
    names = FEATURE_LABELS.get(features, features), ALGORITHM_LABELS.get(algorithm, algorithm)
    return ", ".join(filter(None, names))


def _style(kind: str) -> dict[str, Any]:
    algorithm, _, features = kind.partition(" ")
    style = {"color": charts.OTHER, "marker": "o"} | LOOKS.get(features, {})
    return style | {"linestyle": _DASHES.get(algorithm, "-.")}
