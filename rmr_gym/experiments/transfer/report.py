"""The page of a transfer matrix: every donor's frozen P on every recipient (Figure 4).

Rows of the matrix are donors (the paper's train games), columns recipients (its test games).
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.report import arms, charts, statistics
from rmr_gym.report.arms import paper_natural
from rmr_gym.report.page import Page
from rmr_gym.report.runs import Row, Run, Schema, groups, load_run, parts, records, where
from rmr_gym.report.statistics import CORRECTED, DIFFERENCE, MIN_PAIRS, TOO_FEW, means
from rmr_gym.report.tables import (
    ARM_LABELS,
    OBJECTIVE_LABELS,
    called,
    label,
    labels_of,
    signed,
    wide,
)

KEY = ("recipient", "donor", "objective", "arm", "seed", "step", "probe")
TABLES = {"transfer": Schema(KEY, arms.SCORES)}

OWN = "own"
AGAINST = labels_of("against")
"""What the fields of the matrix are compared with, the paper's choice first."""

ROLES = ("game", "other", "control")
"""What a row is: the matrix itself, donors that are no game, and controls; each family of tests."""

ALL_PAIRS, OWN_P, OTHER_P = "all pairs of games", "own game's P", "other games' P"
SIDES = {"donor": "source", "recipient": "recipient"}
MARKS = {
    ("better", "better"): ("▲", "better, also after Benjamini-Hochberg"),
    ("better", "same"): ("△", "better, p < 0.05 before correction only"),
    ("worse", "worse"): ("▼", "worse, also after Benjamini-Hochberg"),
    ("worse", "same"): ("▽", "worse, p < 0.05 before correction only"),
}
"""Mark of a field by its raw and its corrected verdict, and what it says."""


class Matrix(NamedTuple):
    """What a transfer run is about, and its scores in the form of a comparison.

    Attributes:
        natural: Has the recipient as game, and `donor_arm` as arm of a frozen P.
        recipients: In the order of the run, those without scores too.
        donors: As well.
        games: Donors that are games; the others are, for instance, balls.
    """

    natural: pd.DataFrame
    recipients: list[str]
    donors: list[str]
    games: list[str]


class Clusters(NamedTuple):
    """A complete-link clustering.

    Attributes:
        order: Positions of the items from one end of the tree to the other.
        links: As scipy.cluster.hierarchy has it; None under two items.
    """

    order: list[int]
    links: Float[np.ndarray, "merges 4"] | None


def transfer(folder: Path) -> Page:
    """Return the page of a transfer run; what is missing is said.

    Raises:
        RMRError: If the folder is no such run, a file in it is damaged, or an arm "rmr" names no
            donor, or another arm names one.
    """
    run = load_run(folder, TABLES, "transfer")
    matrix = read_matrix(run)
    tables = transfer_tables(matrix)
    rows = condensed(matrix)
    shown = {"matrix": matrix, "scores": _scores(matrix, rows)}
    return Page(run, tables, dict(_figures(matrix, tables, rows)), shown)


def donor_arm(donor: str) -> str:
    """Return the name that the arm with a donor's frozen P has in `Matrix.natural`."""
    return f"P of {donor}"


def read_matrix(run: Run) -> Matrix:
    """Return the matrix of a transfer run; run.json's recipients and donors, or games, name it.

    Raises:
        RMRError: It cannot be told whose P was frozen.
    """
    scores = run["transfer"]
    for row in records(scores, (scores["donor"] != "") != (scores["arm"] == "rmr")):
        raise RMRError(
            f"{run.folder / 'transfer.csv'}: expected a donor for the arm rmr and none for others, "
            f"found the donor {row['donor']!r} for the arm {row['arm']!r} of {row['recipient']}; "
            "delete it and run the command that wrote it again"
        )
    recipients = run.named("recipients", "games", table="transfer", column="recipient")
    donors = run.named("donors", "games", table="transfer", column="donor")
    known = {*recipients, *map(str, run.info.get("games") or [])}
    frozen = scores["donor"] != ""
    arm = scores["arm"].mask(frozen, "P of " + scores["donor"])
    natural = scores.drop(columns="donor").rename(columns={"recipient": "game"}).assign(arm=arm)
    games = [donor for donor in donors if donor in known or paper_natural(donor)]
    return Matrix(natural, recipients, donors, games)


def transfer_tables(matrix: Matrix) -> dict[str, pd.DataFrame]:
    """Return all tables of a transfer run by the names of their files.

    These are `transfer_table` under the headline probe against everything that the run can be
    compared with, its `overview_table`, the `ranking_table` of what is against C-SWM, and the
    overview against C-SWM for every probe and checkpoint.
    """
    natural = matrix.natural
    probe = arms.headline_probe(natural)
    there = natural["arm"].mask(natural["arm"].isin([*map(donor_arm, matrix.recipients)]), OWN)
    chosen = [name for name in AGAINST if name in {*natural["arm"], *there}] or ["cswm"]
    tables = [transfer_table(matrix, probe, against=name) for name in chosen]
    fields = pd.concat(tables, ignore_index=True)
    steps = [
        overview_table(transfer_table(matrix, probe, step)).assign(checkpoint=step)
        for probe in arms.probes(natural)
        for step in arms.trained_steps(where(natural, probe=probe))
    ]
    overview = overview_table(fields)
    return {
        "transfer_summary": fields,
        "transfer_overview": overview,
        "transfer_ranking": ranking_table(where(fields, against="cswm")),
        "transfer_robustness": pd.concat(steps) if steps else overview.assign(checkpoint=0),
    }


def transfer_table(
    matrix: Matrix, probe: str = "ridge", step: int | None = None, against: str = "cswm"
) -> pd.DataFrame:
    """Return one row a field of the matrix, also for those without scores, and a row a control.

    Source: RMR, section 5, Figure 4. Differs: both one-sided tests, exact; a correction for the
    number of tests; other baselines than C-SWM; controls as further rows.

    Args:
        matrix: The matrix.
        probe: Which probe's scores.
        step: Checkpoint; None for the last that a trained arm of the recipient reached.
        against: What is subtracted, one of `AGAINST`; all but "own" are arms.

    Returns:
        Columns: objective, probe, checkpoint, against, recipient, source (donor, or arm of a
        control), label, role ("game", "other" for donors that are no game, "control"), own
        (donor and recipient are one game), seeds, micro_f1_mean, relative (mean over seeds of the
        improvement in per cent of the baseline); a test, with Benjamini-Hochberg over the games'
        matrix, over donors that are no game, and over the controls, each on its own.
    """
    rows = _fields(matrix, probe, step)
    compared = rows.assign(arm=rows["arm"].mask(rows["own"] & (against == OWN), OWN))
    named = statistics.draws_by(*arms.PLACE, "arm", "against")

    def draws(row: Row) -> np.random.Generator:
        return named({**row, "against": donor_arm(row["game"])} if against == OWN else row)

    key = [*arms.PLACE, "arm"]
    tests = statistics.paired(compared, "micro_f1", "arm", (against,), arms.PLACE, draws=draws)
    table = means(rows, [*key, "source", "role", "own"], ["micro_f1"], "micro_f1")
    table = table.merge(tests[[*key, *DIFFERENCE, "relative"]], "left", key)
    table = table.fillna({"pairs": 0, "verdict": ""}).astype({"pairs": int})
    table = table.assign(against=against, label=called(table["source"], ARM_LABELS))
    sources = [*matrix.games, *matrix.donors, *ARM_LABELS]
    order = {"objective": OBJECTIVE_LABELS, "game": matrix.recipients, "source": sources}
    table = statistics.corrected(arms.ordered(table, **order), ("objective", "role"))
    columns = ["objective", "probe", "checkpoint", "against", "recipient", "source", "label"]
    columns += ["role", "own", "seeds", "micro_f1_mean", "relative", *DIFFERENCE, *CORRECTED]
    return pd.DataFrame(table.rename(columns={"game": "recipient"})[columns])


def _fields(matrix: Matrix, probe: str, step: int | None) -> pd.DataFrame:
    """Return the scores at a checkpoint with source and role; fields without any have no score."""
    rows = arms.standing(matrix.natural, matrix.recipients, probe, step)
    names = {donor_arm(donor): donor for donor in matrix.donors}
    key = ["objective", "game", "arm"]
    grid = product(dict.fromkeys(rows["objective"]), matrix.recipients, names)
    whole = pd.DataFrame(grid, columns=key).merge(rows, "left", key)
    reached: Any = groups(rows, "objective", "game")["checkpoint"].first()
    places = zip(whole["objective"], whole["game"], strict=True)
    steps = [int(reached.get(place, 0)) for place in places]
    whole = whole.assign(checkpoint=steps, probe=probe).fillna({"seed": -1})
    rows = pd.concat([whole, where(rows, ~rows["arm"].isin(names))], ignore_index=True)
    roles = {arm: "game" if donor in matrix.games else "other" for arm, donor in names.items()}
    return rows.assign(
        source=called(rows["arm"], names),
        role=[roles.get(arm, "control") for arm in rows["arm"]],
        own=rows["arm"] == "P of " + rows["game"],
    )


def overview_table(table: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts of a `transfer_table`, and test each kind of donor across recipients.

    The test takes one value a recipient, the mean of its fields' differences, so that it speaks
    of other games as well and not of these seeds alone.

    Returns:
        One row an objective, a baseline and a scope (`ALL_PAIRS` as the paper counts, `OWN_P`,
        `OTHER_P`, each donor that is no game, each control), where a field has a pair. Columns:
        objective, probe, against, scope, cells (fields expected), compared, better, same, worse,
        too_few (fields with fewer than 5 pairs), better_bh, same_bh, worse_bh, relative (mean of
        the compared fields, per cent), recipients, above (recipients with a mean above 0),
        difference, low, high, p_better, p_worse, verdict (of the test across recipients).
    """
    rows = []
    for names, block in parts(table, "objective", "probe", "against").items():
        games, others = where(block, role="game"), where(block, role=ROLES[1:])
        scopes = {ALL_PAIRS: games, OWN_P: where(games, own=True), OTHER_P: where(games, own=False)}
        scopes |= {str(name): own for (name,), own in parts(others, "label").items()}
        rows += [
            dict(zip(("objective", "probe", "against"), names, strict=True))
            | {"scope": scope, "cells": len(inside)}
            | _counted(where(inside, inside["pairs"] > 0), (*names, scope))
            for scope, inside in scopes.items()
            if max(inside["pairs"], default=0)
        ]
    return pd.DataFrame(rows, columns=_OVERVIEW)


_OVERVIEW = [
    *("objective", "probe", "against", "scope", "cells", "compared"),
    *("better", "same", "worse", "too_few", "better_bh", "same_bh", "worse_bh", "relative"),
    *("recipients", "above", *DIFFERENCE[1:]),
]


def _counted(compared: pd.DataFrame, names: tuple[str, ...]) -> dict[str, Any]:
    gaps = groups(compared, "recipient")["difference"].mean().to_numpy()
    return {
        "compared": len(compared),
        **_verdicts(compared),
        "relative": compared["relative"].mean(),
        "recipients": len(gaps),
        "above": int((gaps > 0).sum()),
        **statistics.paired_difference(gaps, generator(0, "across recipients", *names)),
    }


def _verdicts(rows: pd.DataFrame) -> dict[str, int]:
    """Count verdicts, and the same after correction."""
    words = {"better": "better", "same": "same", "worse": "worse", "too_few": TOO_FEW}
    endings = {"verdict": "", "verdict_bh": "_bh"}
    return {
        f"{name}{ending}": [*rows[column]].count(word)
        for column, ending in endings.items()
        for name, word in words.items()
    }


def ranking_table(table: pd.DataFrame) -> pd.DataFrame:
    """Rank donors by what they give and recipients by what they gain from other games' P.

    A donor never gives to itself here, and fields can be missing; so a donor's plain mean depends
    on which recipients it has. The rank is by a mean adjusted for that: the relative improvement
    is split by least squares into a part of the donor and a part of the recipient.

    Args:
        table: A `transfer_table`.

    Returns:
        One row an objective, role ("donor", "recipient") and name, the highest first. Columns:
        objective, against, role, name, is_game, cells (fields compared), relative (plain mean,
        per cent), adjusted, low, high (95% bootstrap interval of the adjusted mean over fields;
        NaN under two), better, same, worse, better_bh, worse_bh.
    """
    rows = []
    for (objective, against), part in parts(table, "objective", "against").items():
        for role, side in SIDES.items():
            names = {"objective": objective, "against": against, "role": role}
            fields = parts(ranked_fields(part, role), side)
            ranked = [names | _rank(own, role, name) for (name,), own in fields.items()]
            rows += sorted(ranked, key=lambda row: -row["adjusted"])
    columns = ["objective", "against", "role", "name", "is_game", "cells", "relative", "adjusted"]
    columns += ["low", "high", "better", "same", "worse", "better_bh", "worse_bh"]
    return pd.DataFrame(rows, columns=columns)


def _rank(fields: pd.DataFrame, role: str, name: str) -> dict[str, Any]:
    rng, adjusted = generator(0, "ranking", role, name), fields["adjusted"].to_numpy()
    ends = zip(("low", "high"), statistics.bootstrap_interval(adjusted, rng), strict=True)
    is_game = role == "recipient" or fields["role"].iloc[0] == "game"
    own = fields[["relative", "adjusted"]].mean().to_dict() | dict(ends) | _verdicts(fields)
    return {"name": name, "is_game": is_game, "cells": len(fields), **own}


def ranked_fields(table: pd.DataFrame, role: str) -> pd.DataFrame:
    """Return the fields that a ranking is about, without a game's own P, with a column "adjusted".

    Donors that are no game are ranked among the donors, and do not count for recipients.

    Args:
        table: Rows of one objective and baseline of a transfer table.
        role: "donor" or "recipient".
    """
    part = where(table, role=["game", "other"] if role == "donor" else "game", own=False)
    part = part.dropna(subset=["relative"])
    return part.assign(adjusted=adjusted_fields(part, role))


def adjusted_fields(part: pd.DataFrame, role: str) -> pd.Series:
    """Return each field's relative improvement less the effect of its other side.

    Effects are fitted to the fields of games alone, so that no control moves them.

    Args:
        part: Fields with columns source, recipient, role and relative, none missing.
        role: "donor" takes the recipient's effect away, "recipient" the donor's.
    """
    games = where(part, role="game")
    fitted = part if games.empty else games
    sides = [pd.get_dummies(fitted[name], dtype=float) for name in SIDES.values()]
    design = np.concatenate(sides, axis=1)
    effects = np.linalg.lstsq(design, fitted["relative"].to_numpy(float), rcond=None)[0]
    giving, gaining = np.split(effects, [sides[0].shape[1]])
    other, effect = ("recipient", gaining) if role == "donor" else ("source", giving)
    columns = sides[role == "donor"].columns
    centred = pd.Series(effect - effect.mean(), columns) if len(effect) else pd.Series(dtype=float)
    less = centred.reindex(part[other]).fillna(0.0).to_numpy()
    return pd.Series(part["relative"].to_numpy(float) - less, part.index)


def complete_link(rows: Float[np.ndarray, "items features"]) -> Clusters:
    """Cluster rows by complete linkage of their Euclidean distances.

    A distance is taken over the columns that both rows have, scaled up to all of them; rows
    without a common column are put as far apart as the farthest that have one.

    Source: RMR, section 5 (complete-link clustering of the transfer matrix). Differs: the paper
    names no distance; missing fields.
    """
    if len(rows) < 2:
        return Clusters(list(range(len(rows))), None)
    present = ~np.isnan(rows)
    shared = (present[:, None] & present[None]).sum(-1)
    squared = np.nansum((rows[:, None] - rows[None]) ** 2, axis=-1)
    distance = np.sqrt(squared * rows.shape[1] / np.maximum(shared, 1))
    distance = np.where(shared > 0, distance, distance.max())
    np.fill_diagonal(distance, 0)
    links = linkage(squareform(distance, checks=False), "complete", optimal_ordering=True)
    return Clusters([int(leaf) for leaf in leaves_list(links)], links)


def condensed(matrix: Matrix) -> pd.DataFrame:
    """Return the scores with the own P as the arm "rmr" and one arm for all other games' P.

    The other games' P are averaged for each seed, step and probe.
    """
    rows, games = matrix.natural, [donor_arm(donor) for donor in matrix.games]
    arm = rows["arm"].mask(rows["arm"] == "P of " + rows["game"], "rmr")
    rows = rows.assign(arm=arm.mask(arm.isin(games), OTHER_P))
    rows = where(rows, ~rows["arm"].isin([donor_arm(donor) for donor in matrix.donors]))
    scores = groups(rows, *arms.NATURAL["natural"].key)
    return scores.mean(numeric_only=True).reset_index()


def _scores(matrix: Matrix, rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean bit F1 of the own P, other games' P and every control, by recipient."""
    standing = arms.standing(rows, matrix.recipients, arms.headline_probe(rows))
    table = means(standing, ("game", "objective", "arm"), ["micro_f1"], "micro_f1")
    scores = ["micro_f1_mean", "micro_f1_std"]
    table = arms.ordered(wide(table, ("game", "objective"), "arm", scores), game=matrix.recipients)
    papers = pd.DataFrame([paper_natural(game) for game in table["game"]], table.index)
    return table.join(papers.reindex(columns=["rmr_mean", "cswm_mean"]).add_prefix("paper_"))


def _figures(
    matrix: Matrix, tables: dict[str, pd.DataFrame], condensed_rows: pd.DataFrame
) -> Iterator[charts.NamedFigure]:
    fields, _, ranking, _ = tables.values()
    for (name, objective), own in parts(fields, "against", "objective").items():
        yield f"transfer_{objective}_{name}", partial(matrix_map, own)
    for (objective, role), own in parts(ranking, "objective", "role").items():
        compared = where(fields, against="cswm", objective=objective)
        yield f"ranking_{objective}_{role}s", partial(ranking_dots, compared, own)
    both = ("micro_f1", "effective_rank")
    for probe in arms.probes(matrix.natural):
        course = partial(arms.checkpoint_curves, condensed_rows, matrix.recipients, probe, both)
        yield f"f1_and_rank_{probe}", course


def improvements(
    table: pd.DataFrame, recipients: list[str], sources: list[str]
) -> Float[np.ndarray, "sources recipients"]:
    """Return the mean relative improvement in per cent of each field; NaN where there is none.

    Args:
        table: Rows of one objective and baseline of a `transfer_table`.
        recipients: The columns.
        sources: The rows: donors, or arms of controls.
    """
    wide = table.pivot(index="source", columns="recipient", values="relative")
    return wide.reindex(index=sources, columns=recipients).to_numpy(float)


def matrix_map(table: pd.DataFrame) -> Figure:
    """Draw the matrix: donors down, recipients across, both in the order of their clusters.

    Below the donors that are games stand donors that are none, and below them the controls. A
    field says by how many per cent it is above the baseline, and a mark whether that is
    significant; fields without scores are hatched; a frame is around a game's own P. Colours span
    the donors' fields; a control can lie beyond them.

    Source: RMR, Figure 4.

    Args:
        table: Rows of one objective and one baseline of `transfer_table`.

    Raises:
        RMRError: If no field has a pair.
    """
    if not max(table["pairs"], default=0):
        raise RMRError("this transfer matrix has no cell to draw: let the run go on")
    table = where(table, table["source"] != table["against"])
    recipients = list(dict.fromkeys(table["recipient"]))
    down = {role: list(dict.fromkeys(where(table, role=role)["source"])) for role in ROLES}
    ours = improvements(table, recipients, down["game"])
    rows, columns = complete_link(ours), complete_link(ours.T)
    across = [recipients[index] for index in columns.order]
    down["game"] = [down["game"][index] for index in rows.order]
    most = float(where(table, table["role"] != "control")["relative"].abs().to_numpy().max())
    trees = {"game": rows.links}
    blocks = [_block(table, down[role], across, trees.get(role)) for role in ROLES if down[role]]
    title = f"bit F1 above {AGAINST[table['against'].iloc[0]]}, mean %"
    legend = _legend(table)
    return charts.heat_map(blocks, across, title, "RdBu", (-most, most), columns.links, legend)


def _block(
    table: pd.DataFrame, sources: list[str], across: list[str], links: np.ndarray | None
) -> charts.Block:
    table = table.assign(text=[_written(field) for field in records(table)])
    fields: Any = table.pivot(index="source", columns="recipient").reindex(index=sources)
    texts = fields["text"].reindex(columns=across).fillna("").to_numpy().tolist()
    own = np.argwhere(fields["own"].reindex(columns=across).isin([True]).to_numpy())
    framed = [(int(down), int(right)) for down, right in own]
    values = improvements(table, across, sources)
    return charts.Block([label(name) for name in sources], values, texts, framed, links)


def _written(field: Row) -> str:
    if math.isnan(field["relative"]):
        return ""
    mark, _ = MARKS.get((field["verdict"], field["verdict_bh"]), ("", ""))
    return f"{signed(field['relative'], 1)}{mark}"


def _legend(table: pd.DataFrame) -> list[Patch]:
    """Explain the marks and frames that the matrix has."""
    compared = where(table, table["pairs"] > 0)
    there = {*zip(compared["verdict"], compared["verdict_bh"], strict=True)}
    words = [f"{mark} {words}" for verdicts, (mark, words) in MARKS.items() if verdicts in there]
    if TOO_FEW in {*compared["verdict"]}:
        words.append(f"cells under {MIN_PAIRS} seeds have no mark")
    patches = [Patch(alpha=0, label=word) for word in words]
    if len(compared) < len(table):
        patches.append(Patch(**charts.HATCHED, label="missing or not comparable"))
    if True in {*table["own"]}:
        patches.append(Patch(facecolor="none", edgecolor="black", label="the game's own P"))
    return patches


def ranking_dots(table: pd.DataFrame, ranking: pd.DataFrame) -> Figure:
    """Draw what donors give or what recipients gain: dots are fields, diamonds their mean.

    Each is a relative improvement with the effect of the other side taken away, see
    `ranking_table`; a game's own P is left out. A bar is the 95% bootstrap interval of the mean
    over fields.

    Args:
        table: Rows of one objective and one baseline of the transfer table.
        ranking: Their ranking, of one role.

    Raises:
        RMRError: If there is nothing to rank.
    """
    if ranking.empty:
        raise RMRError("this transfer matrix has no cell to rank: let the run go on")
    role = ranking["role"].iloc[0]
    fields = ranked_fields(table, role)
    points = [[*where(fields, **{SIDES[role]: name})["adjusted"]] for name in ranking["name"]]
    shown = ranking.assign(
        row=ranking["name"],
        mean=ranking["adjusted"],
        points=points,
        color=charts.colours(["rmr" if game else "random_p" for game in ranking["is_game"]]),
    )
    across = f"bit F1 above {AGAINST[table['against'].iloc[0]]}, %, adjusted"
    panel = charts.Panel(f"{role}s", charts.Dots.of(shown), across)
    return charts.dots([panel], list(ranking["name"]), 0.0)
