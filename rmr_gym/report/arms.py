"""Scores of arms, by game and objective, and of abstract models, by game.

What comparisons, studies of objectives, transfer matrices and bottlenecks share; at the end the
paper's own figures (RMR, Tables 1 and 2), looked up by game.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.report import charts, tables
from rmr_gym.report.runs import Run, Schema, in_order, where
from rmr_gym.report.statistics import CORRECTED, DIFFERENCE, draws_by, means, paired
from rmr_gym.report.tables import ARM_LABELS, MODEL_LABELS, OBJECTIVE_LABELS, called, grouped, label

REFERENCES = ("untrained", "supervised", "pca")
"""Arms that depend on no objective; without a row at the step asked for, their last one counts."""

BASELINES = ("cswm", "untrained")
CONTROLS = ("random_p", "shuffled_p", "no_p")
"""What every arm is compared with, and what RMR is compared with besides."""

SCORE_LABELS = tables.labels_of("score")
SCORES = (*SCORE_LABELS, "dead_slots")
PLACE = ("game", "objective", "probe", "checkpoint")
"""Within what arms are compared."""

_KEY = ("game", "objective", "arm", "seed", "step")
_MODEL = ("game", "model", "seed", "step")
ABSTRACT_SCORES = ("slot_accuracy", "bit_f1", "bit_accuracy", "mask_accuracy")
NATURAL = {
    "natural": Schema((*_KEY, "probe"), SCORES),
    "natural_curves": Schema(_KEY, ("loss", "positive_energy", "negative_energy")),
}
"""Tables of a run that trains arms."""

ABSTRACT = {
    "abstract": Schema(_MODEL, (*ABSTRACT_SCORES, "loss")),
    "abstract_curves": Schema(_MODEL, ("loss",)),
    "abstract_horizons": Schema(("game", "model", "seed", "k"), ABSTRACT_SCORES),
}
"""Tables of a run that trains abstract models."""

HEADROOM = Schema((*_KEY, "measure", "at", "bytes"), ("micro_f1",), ("measure", "bytes"))
"""Table of the measures that raw pixels do not fill."""

Tables = dict[str, pd.DataFrame]
HEADROOM_BASELINES = ("cswm", "shuffled_p", "untrained", "pca")
FORECASTS = ("present", "forecast", "ceiling")


def probes(natural: pd.DataFrame) -> list[str]:
    """Return the probes of a natural table, the headline first."""
    return in_order(natural["probe"], tables.PROBE_LABELS)


def headline_probe(natural: pd.DataFrame) -> str:
    """Return the probe of the headline table: ridge, or the first there is."""
    return next(iter(probes(natural)), "ridge")


def standing(
    natural: pd.DataFrame, games: Sequence[str], probe: str, step: int | None = None
) -> pd.DataFrame:
    """Return the scores of every arm at one checkpoint, games and arms in order.

    Args:
        natural: Rows as in natural.csv.
        games: In order.
        probe: Which probe's scores.
        step: Checkpoint of the trained arms; None for the last that any of them reached. A game
            without the step is left out. An arm without a row there has one without a score and
            with the seed -1; references, where they have none, stand with their own last step.

    Returns:
        The rows, with the step asked for as column "checkpoint".

    Raises:
        RMRError: Unknown probe, or a step that no game has.
    """
    scores = where(natural, probe=probe)
    if len(natural) and scores.empty:
        raise unknown_name("probe of this run", probe, probes(natural))
    steps = trained_steps(scores)
    if len(scores) and step is not None and step not in steps:
        raise RMRError(
            f"this run has no step {step} under the probe {probe}: choose one of "
            f"{', '.join(map(str, steps)) or 'none'}"
        )
    rows_at = [scores.iloc[:0].assign(checkpoint=0)]
    for _, _, rows in by_objective(scores, games):
        reached = trained_steps(rows)
        if step is None or step in reached:
            at = max(reached, default=0) if step is None else step
            arms = in_order(rows["arm"], ARM_LABELS)
            rows_at += [_at(where(rows, arm=arm), arm, at).assign(checkpoint=at) for arm in arms]
    return pd.concat(rows_at[1:] or rows_at, ignore_index=True)


def _at(rows: pd.DataFrame, arm: str, step: int) -> pd.DataFrame:
    alone = arm in REFERENCES and step not in set(rows["step"])
    there = where(rows, step=rows["step"].max() if alone else step)
    nothing: Any = dict.fromkeys(SCORES, np.nan) | {"seed": -1, "step": step}
    return rows.head(1).assign(**nothing) if there.empty else there


def trained_steps(rows: pd.DataFrame) -> list[int]:
    """Return the steps at which trained arms have scores, rising."""
    return sorted({int(step) for step in where(rows, ~rows["arm"].isin(REFERENCES))["step"]})


def by_objective(
    rows: pd.DataFrame, games: Sequence[str]
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield game, objective and its rows, with references that were noted under another one."""
    for game in games:
        of_game = where(rows, game=game)
        trained = of_game["objective"][~of_game["arm"].isin(REFERENCES)]
        for objective in in_order(trained, OBJECTIVE_LABELS) or sorted({*of_game["objective"]})[:1]:
            ours = where(of_game, objective=objective)
            lacking = {*REFERENCES} - {*ours["arm"]}
            lent = where(of_game, arm=lacking).drop_duplicates(["arm", "seed", "step"])
            yield game, objective, pd.concat([ours, lent]).assign(objective=objective)


_DRAWS = draws_by(*PLACE, "arm", "against")


def arm_pairs(
    rows: pd.DataFrame, baselines: Sequence[str] = BASELINES, place: Sequence[str] = PLACE
) -> pd.DataFrame:
    """Return every arm's micro F1 less that of each baseline; see `paired`.

    Args:
        rows: See `standing`.
        baselines: Arms; the verdicts of each are corrected on their own.
        place: Columns within whose values arms are compared.
    """
    return paired(rows, "micro_f1", "arm", baselines, place, draws=_DRAWS)


def contrast_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return RMR against the controls whose P is frozen at random, weight-shuffled, or absent.

    These rows, and not the difference to C-SWM, say whether what P learned from RAM matters.

    Args:
        rows: See `standing`.

    Returns:
        Columns: game, objective, probe, checkpoint, control, label; pairs, difference, low, high,
        p_better, p_worse, verdict, p_better_bh, p_worse_bh, verdict_bh.
    """

    def controls(arm: str, arms: list[str]) -> list[str]:
        return [control for control in CONTROLS if arm == "rmr" and control in arms]

    tests = paired(rows, "micro_f1", "arm", controls, PLACE, family=(), draws=_DRAWS)
    tests = tests.assign(control=tests["against"], label=called(tests["against"], ARM_LABELS))
    return pd.DataFrame(tests[[*PLACE, "control", "label", *DIFFERENCE, *CORRECTED]])


def natural_table(
    rows: pd.DataFrame, pairs: pd.DataFrame, place: Sequence[str] = PLACE
) -> pd.DataFrame:
    """Return one row a game and arm: scores over seeds, and differences to C-SWM and untrained.

    Source: RMR, section 5, Table 1. Differs: every arm of the decisions page, 13, not only RMR and
    C-SWM; both one-sided tests; a correction for the number of tests.

    Args:
        rows: See `standing`.
        pairs: `arm_pairs` of them.
        place: Columns within whose values arms are compared; further ones come last.

    Returns:
        Columns: game, objective, probe, checkpoint, arm, label, step, seeds; ``<score>_mean`` and
        ``<score>_std`` (sample deviation, NaN under two seeds) of `SCORES`; ``paper_mean``,
        ``paper_std``; and for each of `BASELINES` ``<baseline>_pairs`` and so on, see `paired`.
    """
    more = [name for name in place if name not in PLACE]
    table = means(rows, (*PLACE, "arm", "step", *more), SCORES, "micro_f1")
    for kind in ("mean", "std"):
        table[f"paper_{kind}"] = _printed(table, paper_natural, f"{{arm}}_{kind}")
    table.insert(len(PLACE) + 1, "label", called(table["arm"], ARM_LABELS))
    table = beside(table, pairs, (*place, "arm"))
    return pd.DataFrame(table[[*table.columns.difference(more, sort=False), *more]])


def beside(
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    key: Sequence[str],
    baselines: Sequence[str] = BASELINES,
) -> pd.DataFrame:
    """Return a table with its tests beside: a column of `paired` and a prefix for each baseline.

    Args:
        table: One row a key.
        pairs: Rows of `paired`.
        key: Columns that both have.
        baselines: Of the pairs.
    """
    for columns in (DIFFERENCE, CORRECTED):
        for baseline in baselines:
            rows = where(pairs, against=baseline)
            tests = pd.DataFrame(rows[[*columns]]).add_prefix(f"{baseline}_").assign(**rows[[*key]])
            table = table.merge(tests, "left", [*key])
    return table


def summarise(run: Run) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return `arm_pairs` at the last checkpoint under the headline probe, and all tables of arms.

    These are, by the names of their files, natural_summary and contrast_summary of that
    checkpoint, and checkpoint_summary of all.
    """
    rows = standing(run["natural"], run.games, headline_probe(run["natural"]))
    pairs = arm_pairs(rows)
    return pairs, {
        "natural_summary": natural_table(rows, pairs),
        "contrast_summary": contrast_table(rows),
        "checkpoint_summary": checkpoint_table(run["natural"], run.games),
    }


def checkpoint_table(natural: pd.DataFrame, games: Sequence[str]) -> pd.DataFrame:
    """Return `natural_table` for every probe and every checkpoint, one under the other.

    Each (probe, checkpoint) is corrected as its own table.
    """
    found = []
    for probe in probes(natural):
        for step in trained_steps(where(natural, probe=probe)):
            rows = standing(natural, games, probe, step)
            found.append(natural_table(rows, arm_pairs(rows)))
    rows = standing(natural.iloc[:0], games, "ridge")
    return pd.concat(found, ignore_index=True) if found else natural_table(rows, arm_pairs(rows))


def abstract_table(run: Run) -> pd.DataFrame:
    """Return one row a game and abstract model at its last step, the paper's figures beside.

    Source: RMR, appendix B, Table 2.

    Returns:
        Columns: game, model, label, step, seeds; ``<metric>_mean`` and ``<metric>_std`` of
        `ABSTRACT_SCORES`; paper_slot_accuracy, paper_bit_f1.
    """
    rows = last_steps(run["abstract"], "game", "model")
    table = means(rows, ("game", "model", "step"), ABSTRACT_SCORES, "bit_f1")
    table = ordered(table, game=run.games, model=MODEL_LABELS)
    table.insert(2, "label", called(table["model"], MODEL_LABELS))
    table["paper_slot_accuracy"] = _printed(table, paper_abstract, "{model}_slot_acc")
    table["paper_bit_f1"] = _printed(table, paper_abstract, "{model}_bit_f1")
    return table


def last_steps(rows: pd.DataFrame, *by: str) -> pd.DataFrame:
    """Return the rows of the last step of each part."""
    return where(rows, rows["step"] == rows.groupby([*by])["step"].transform("max"))


def ordered(table: pd.DataFrame, **columns: Iterable[Any]) -> pd.DataFrame:
    """Return the rows in the order of names, the first column before the others."""
    order = {column: in_order(table[column], names) for column, names in columns.items()}
    return table.sort_values(
        [*order], kind="stable", key=lambda names: names.map(order[str(names.name)].index)
    ).reset_index(drop=True)


def every_test(pairs: pd.DataFrame, contrast: pd.DataFrame) -> pd.DataFrame:
    """Return `arm_pairs` that compare something, and `contrast_table`, by game and objective."""
    ours = where(pairs, pairs["verdict"] != "").sort_values("against", kind="stable")
    controls = contrast.assign(arm="rmr", against=contrast["control"])
    return grouped(pd.concat([ours, controls]) if len(controls) else ours, "game", "objective")


def above_copying(abstract: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return on how many games of how many a model has a higher mean bit F1 than copying."""
    f1 = abstract.pivot(index="game", columns="model", values="bit_f1_mean")
    above = {}
    for model in in_order({*f1} - {"copy"}, MODEL_LABELS) if "copy" in f1 else []:
        ours, copied = f1[[model, "copy"]].dropna().to_numpy(float).T
        if len(ours):
            above[model] = (int((ours > copied).sum()), len(ours))
    return above


def abstract_curves(run: Run) -> Figure:
    """Draw the training loss of the abstract models: a panel a game, a colour a model.

    Raises:
        RMRError: If the run has no abstract curves.
    """
    rows = ordered(run["abstract_curves"], game=run.games)
    return charts.loss_figure(rows, "game", "model", MODEL_LABELS, "loss", "abstract_curves.csv")


def checkpoint_curves(
    natural: pd.DataFrame, games: Sequence[str], probe: str, scores: Sequence[str] = ("micro_f1",)
) -> Figure:
    """Draw probe scores against the checkpoint: lines are means, bands the range of seeds.

    Arms without checkpoints (untrained, PCA) are level lines.

    Args:
        natural: Rows as in natural.csv.
        games: In order.
        probe: Which probe's scores.
        scores: One, or several side by side: "micro_f1", "macro_f1", "slot_accuracy" or
            "effective_rank".

    Raises:
        RMRError: If there are none.
    """
    rows = where(natural, probe=probe)
    several = len({*rows["objective"]}) > 1
    panels = [
        _course(of_game, score, panel_title(game, objective, several), len(scores) > 1)
        for game, objective, of_game in by_objective(rows, games)
        for score in scores
    ]
    return charts.lines(panels, len(scores) if len(scores) > 1 else charts.ACROSS, "natural.csv")


def panel_title(game: str, objective: str, several: bool) -> str:
    """Return what titles a panel by game, and by objective where there are several."""
    return f"{game}, {tables.objective_label(objective)}" if several else game


def measure_table(
    rows: pd.DataFrame, part: Sequence[str], scores: Iterable[str], baselines: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return paired tests of a measure at the last checkpoint, and means with them beside.

    Args:
        rows: One row an arm, seed, step and part.
        part: Columns by which scores are apart, beside game, objective and arm.
        scores: Arms are compared by the first.
        baselines: What the other arms are compared with.

    Returns:
        The columns of `rmr_gym.report.statistics.paired`, corrected over the games of one part;
        and one row a game, objective, part and arm: label (of the arm), step, seeds, ``_mean`` and
        ``_std`` of each score and, for each baseline, the columns of a test. Of ranks also
        similarity.
    """
    rows = ordered(last_steps(rows, "game", "objective", "arm"), arm=ARM_LABELS)
    place, scores = ("game", "objective", *part), [*scores]
    draws, family = draws_by(*place, "arm", "against"), (*part, "against")
    pairs = paired(rows, scores[0], "arm", baselines, place, family=family, draws=draws)
    table = means(rows, [*place, "arm", "step", *({"similarity"} & {*rows})], scores)
    table.insert(len(place) + 1, "label", called(table["arm"], ARM_LABELS))
    order = {column: list(dict.fromkeys(rows[column])) for column in (*part, "game")}
    return pairs, beside(ordered(table, **order), pairs, (*place, "arm"), baselines)


def headroom_tables(rows: pd.DataFrame) -> tuple[Tables, Tables]:
    """Return paired tests and tables of the measures with headroom, by name.

    Args:
        rows: As in headroom.csv.

    Returns:
        `measure_table` of all, as headroom_summary; and forecast_summary, one row a game,
        objective, number of steps, kind of bytes and arm with a P: means of `FORECASTS` and of
        skill = (forecast - present) / (ceiling - present), 1 at the ceiling, 0 where present
        latents say as much, NaN where the ceiling is not above them; a test of forecast less
        present, corrected over the games and arms of a number of steps and kind of bytes.
    """
    part = ("measure", "at", "bytes")
    pairs, table = measure_table(rows, part, ["micro_f1"], HEADROOM_BASELINES)
    place = ["game", "objective", "at", "bytes", "arm"]
    rows = where(last_steps(rows, "game", "objective", "arm"), measure=FORECASTS)
    side = rows.pivot(index=[*place, "seed"], columns="measure", values="micro_f1")
    side = side.reindex(columns=FORECASTS).dropna(subset="forecast")
    present, forecast, ceiling = (side[name] for name in FORECASTS)
    side["skill"] = (forecast - present) / (ceiling - present).where(ceiling > present)
    forecasts = means(side.reset_index(), place, [*FORECASTS, "skill"])
    forecasts.insert(len(place), "label", called(forecasts["arm"], ARM_LABELS))
    family, draws = ("measure", "at", "bytes"), draws_by("measure", *place)
    tests = paired(rows, "micro_f1", "measure", FORECASTS[:1], place, ("seed",), family, draws)
    tests = where(tests, measure="forecast")[[*place, *DIFFERENCE, *CORRECTED]]
    forecasts = forecasts.merge(tests, "left", place)
    return {"headroom": pairs}, {"headroom_summary": table, "forecast_summary": forecasts}


def headroom_figures(rows: pd.DataFrame) -> dict[str, Callable[[], Figure]]:
    """Return what draws bit F1 by labelled frames and by steps forecast, a panel a kind of bytes.

    What has no P stands among the forecasts with its present latents.
    """
    rows = titled(last_steps(rows, "game", "objective", "arm"))
    rows = rows.assign(panel=rows["panel"] + ", bytes: " + rows["bytes"]).astype({"at": int})
    ahead, able = where(rows, measure=FORECASTS[:2]), where(rows, measure="forecast")["arm"]
    ahead = where(ahead, (ahead["measure"] == "forecast") | ~ahead["arm"].isin(able))
    axes = ("panel", "at", "micro_f1", "arm", ARM_LABELS, "headroom.csv")
    return {
        name: partial(charts.seed_lines, shown, *axes, across=across, ticks=sorted({*shown["at"]}))
        for name, shown, across in (
            ("frames", where(rows, measure="frames"), "labelled frames"),
            ("forecast", ahead, "steps to the bits that are read"),
        )
    }


def titled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a column "panel": the game, and the objective where there are more."""
    places = zip(rows["game"], rows["objective"], strict=True)
    several = len({*rows["objective"]}) > 1
    return rows.assign(panel=np.array([panel_title(*p, several) for p in places], object))


def _course(rows: pd.DataFrame, score: str, title: str, beside: bool) -> charts.Panel:
    ticks, name = trained_steps(rows), SCORE_LABELS[score]
    level = [arm for arm in REFERENCES if not {*where(rows, arm=arm)["step"]} & {*ticks}]
    moving = where(rows, ~rows["arm"].isin(level))
    drawn = charts.over_seeds(moving, "step", score, "arm", ARM_LABELS)
    for arm in level:
        last = last_steps(where(rows, arm=arm), "arm")[score].dropna().to_numpy(float)
        dash = "--" if arm == "untrained" else ":"
        style = {"color": charts.look(arm)["color"], "linestyle": dash}
        if len(last):
            drawn.append(charts.Line(label(arm), [], [float(last.mean())], style=style))
    log = 5.0 if score == "effective_rank" else np.inf
    across = "checkpoint (gradient steps)"
    return charts.Panel(f"{title}: {name}" if beside else title, drawn, across, name, ticks, log)


def paper_key(name: str) -> str:
    """Return what a game's title and its name here have in common.

    >>> paper_key("Montezuma's Revenge") == paper_key("MontezumaRevenge")
    True
    """
    return re.sub(r"[^a-z0-9]", "", re.sub(r"['’]s\b", "", name.lower()))


@cache
def _paper(table: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a table of the paper, shares where it prints per cent, by game."""
    with (files("rmr_gym.report") / "paper_figures" / table).open(encoding="utf-8") as file:
        rows = pd.read_csv(file, dtype={"p_value": str})
    shares = [name for name in rows if str(name).endswith("slot_acc")]
    rows[shares] = rows[shares] / 100
    keyed = rows.rename(columns={"game": "title"}).set_index(rows["game"].map(paper_key))
    return keyed.to_dict("index")


def paper_natural(game: str) -> dict[str, Any]:
    """Return the row of the paper's Table 1 for a game; empty if it has none.

    Args:
        game: Name or title of the game.

    Returns:
        ``title``, ``agent57_mean``, ``agent57_std``, ``cswm_mean``, ``cswm_std``, ``rmr_mean``,
        ``rmr_std`` (bit F1 over 20 seeds) and ``p_value`` (text, as printed there).
    """
    return _paper("rmr_table1_natural_f1.csv").get(paper_key(game), {})


def paper_abstract(game: str) -> dict[str, Any]:
    """Return the row of the paper's Table 2 for a game; empty if it has none.

    Args:
        game: Name or title of the game.

    Returns:
        ``title`` and, for each of copy, mlp, deep_sets and mpnn, ``<model>_slot_acc`` (a share;
        the paper prints per cent) and ``<model>_bit_f1``.
    """
    return _paper("rmr_table2_abstract.csv").get(paper_key(game), {})


def _printed(table: pd.DataFrame, paper: Callable[[str], dict[str, Any]], name: str) -> np.ndarray:
    """Return the figures of the paper beside rows; their names are made of those of the rows."""
    rows = table.to_dict("records")
    return np.array([paper(row["game"]).get(name.format_map(row), np.nan) for row in rows], float)


def paper_verdict(game: str) -> str | None:
    """Return what the paper found for RMR against C-SWM: better, worse, same; None if not there.

    Its p-value is of one one-sided test in the direction of the difference, 20 seeds, alpha 0.05.
    """
    row = paper_natural(game)
    if not row:
        return None
    if float(row["p_value"].removeprefix("<")) >= 0.05:
        return "same"
    return "better" if row["rmr_mean"] > row["cswm_mean"] else "worse"
