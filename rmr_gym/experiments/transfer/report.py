"""The page of a transfer matrix: every donor's frozen P on every recipient (Figure 4).

Rows of the matrix are donors (the paper's train games), columns recipients (its test games).
"""

import math
from collections.abc import Iterator, Sequence
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

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.report import arms, charts, statistics
from rmr_gym.report.page import Page
from rmr_gym.report.runs import Row, Run, Schema, groups, load_run, parts, records, where
from rmr_gym.report.statistics import CORRECTED, DIFFERENCE, MIN_PAIRS, TOO_FEW, means
from rmr_gym.report.tables import ARM_LABELS, OBJECTIVE_LABELS, called, label, labels_of, signed

KEY = ("recipient", "donor", "objective", "arm", "seed", "step", "probe")
TABLES = {
    "transfer": Schema(KEY, arms.SCORES),
    "headroom": arms.HEADROOM._replace(key=(*KEY[:-1], "measure", "at", "bytes")),
}

Links = Float[np.ndarray, "merges 4"]
OWN = "own"
AGAINST = labels_of("against")
"""What the fields of the matrix are compared with, the paper's choice first."""

ROLES = ("game", "other", "control")
"""What a row is: the matrix itself, donors that are no game, and controls; each family of tests."""

ALL_PAIRS, OWN_P, OTHER_P = "all pairs of games", "own game's P", "other games' P"
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


def transfer(folder: Path) -> Page:
    """Return the page of a transfer run; what is missing is said.

    Raises:
        RMRError: If the folder is no such run, a file in it is damaged, or an arm "rmr" names no
            donor, or another arm names one.
    """
    run = load_run(folder, TABLES, "transfer")
    matrix = read_matrix(run)
    tables = transfer_tables(matrix)
    rows = condensed(matrix, matrix.natural, arms.NATURAL["natural"].key)
    figures = dict(_figures(matrix, tables["transfer_summary"], rows))
    standing = arms.standing(rows, matrix.recipients, arms.headline_probe(rows))
    scores = arms.natural_table(standing, arms.arm_pairs(standing))
    headroom = condensed(matrix, by_arm(run["headroom"]), arms.HEADROOM.key)
    pairs, more = arms.headroom_tables(headroom)
    shown = {"matrix": matrix, "scores": scores, "pairs": pairs}
    return Page(run, tables | more, figures | arms.headroom_figures(headroom), shown)


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
    games = [donor for donor in donors if donor in known or arms.paper_natural(donor)]
    return Matrix(by_arm(scores), recipients, donors, games)


def by_arm(scores: pd.DataFrame) -> pd.DataFrame:
    """Return rows of a transfer run as those of a comparison: each donor's P is an arm."""
    arm = scores["arm"].mask(scores["donor"] != "", "P of " + scores["donor"])
    return scores.drop(columns="donor").rename(columns={"recipient": "game"}).assign(arm=arm)


def transfer_tables(matrix: Matrix) -> dict[str, pd.DataFrame]:
    """Return all tables of a transfer run by the names of their files.

    These are `transfer_table` under the headline probe against everything that the run can be
    compared with, its `overview_table`, and the overview against C-SWM for every probe and
    checkpoint.
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
        `OTHER_P`, each donor without its own field, each control), where a field has a pair.
        Columns: objective, probe, against, scope, cells (fields expected), compared, better, same,
        worse,
        too_few (fields with fewer than 5 pairs), better_bh, same_bh, worse_bh, relative (mean of
        the compared fields, per cent), recipients, above (recipients with a mean above 0),
        difference, low, high, p_better, p_worse, verdict (of the test across recipients).
    """
    rows = []
    for names, block in parts(table, "objective", "probe", "against").items():
        games = where(block, role="game")
        scopes = {ALL_PAIRS: games, OWN_P: where(games, own=True), OTHER_P: where(games, own=False)}
        apart = parts(where(block, own=False), "label")
        scopes |= {str(name): own for (name,), own in apart.items()}
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


def complete_link(rows: Float[np.ndarray, "items features"]) -> tuple[list[int], Links | None]:
    """Cluster rows by complete linkage of their Euclidean distances.

    A distance is taken over the columns that both rows have, scaled up to all of them; rows
    without a common column are put as far apart as the farthest that have one.

    Source: RMR, section 5 (complete-link clustering of the transfer matrix). Differs: the paper
    names no distance; missing fields.

    Returns:
        Positions of the items from one end of the tree to the other, and the tree as
        scipy.cluster.hierarchy has it; None under two items.
    """
    if len(rows) < 2:
        return list(range(len(rows))), None
    gaps = rows[:, None] - rows[None]
    shared = (~np.isnan(gaps)).sum(-1)
    distance = np.sqrt(np.nansum(gaps**2, -1) * rows.shape[1] / np.maximum(shared, 1))
    distance = np.where(shared > 0, distance, distance.max())[np.triu_indices(len(rows), 1)]
    links = linkage(distance, "complete", optimal_ordering=True)
    return [int(leaf) for leaf in leaves_list(links)], links


def condensed(matrix: Matrix, rows: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return scores with the own P as the arm "rmr" and one arm for all other games' P.

    Args:
        matrix: Says which donors are games.
        rows: As `by_arm` gives them.
        key: Columns that name a row; the other games' P are averaged.
    """
    games = [donor_arm(donor) for donor in matrix.games]
    arm = rows["arm"].mask(rows["arm"] == "P of " + rows["game"], "rmr")
    rows = rows.assign(arm=arm.mask(arm.isin(games), OTHER_P))
    rows = where(rows, ~rows["arm"].isin([donor_arm(donor) for donor in matrix.donors]))
    scores = groups(rows, *key)
    return scores.mean(numeric_only=True).reset_index()


def _figures(
    matrix: Matrix, fields: pd.DataFrame, condensed_rows: pd.DataFrame
) -> Iterator[charts.NamedFigure]:
    for (name, objective), own in parts(fields, "against", "objective").items():
        yield f"transfer_{objective}_{name}", partial(matrix_map, own)
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
    (order, tree), (places, top) = complete_link(ours), complete_link(ours.T)
    across = [recipients[index] for index in places]
    down["game"] = [down["game"][index] for index in order]
    most = float(where(table, table["role"] != "control")["relative"].abs().to_numpy().max())
    trees = {"game": tree}
    blocks = [_block(table, down[role], across, trees.get(role)) for role in ROLES if down[role]]
    title = f"bit F1 above {AGAINST[table['against'].iloc[0]]}, mean %"
    return charts.heat_map(blocks, across, title, "RdBu", (-most, most), top, _legend(table))


def _block(
    table: pd.DataFrame, sources: list[str], across: list[str], links: Links | None
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
