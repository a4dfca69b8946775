"""Tables of a bottleneck run: scores by latent size, and what narrowing costs."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from rmr_gym.analysis.cells import Cell, cells
from rmr_gym.analysis.differences import DIFFERENCE_COLUMNS, difference_columns, with_corrected
from rmr_gym.analysis.run import ARM_LABELS, Run, values, where
from rmr_gym.analysis.sweep_run import SweepRun
from rmr_gym.analysis.tables import BASELINES, natural_table


def sizes(sweep: SweepRun) -> list[int]:
    """Return the latent sizes of the run, rising, those without scores too."""
    return sorted(int(dim) for dim in sweep.named("dims", column="dim"))


def at_size(sweep: SweepRun, dim: int, probe: str) -> Run:
    """Return the scores of one latent size and probe as a comparison has them."""
    return sweep.view(where(sweep.scores, dim=dim, probe=probe).drop(columns="dim"))


def size_table(sweep: SweepRun, probe: str = "ridge") -> pd.DataFrame:
    """Return the natural table of every latent size, one under the other.

    Source: RMR, appendix C, Figure 5. Differs: C-SWM and every control beside RMR.

    Returns:
        dim and the columns of `rmr_gym.analysis.tables.natural_table`, at the last checkpoint;
        Benjamini-Hochberg is over all sizes and games.
    """
    tables = {dim: natural_table(at_size(sweep, dim, probe), probe) for dim in sizes(sweep)}
    parts = [table.assign(dim=dim) for dim, table in tables.items() if len(table)]
    if not parts:
        return natural_table(at_size(sweep, 0, probe), probe).assign(dim=0)
    table = pd.concat(parts, ignore_index=True)
    for baseline in BASELINES:
        table = with_corrected(table, f"{baseline}_")
    return table


def narrowing_table(sweep: SweepRun, probe: str = "ridge") -> pd.DataFrame:
    """Return what a smaller latent costs an arm: its bit F1 less that at the widest size.

    The untrained encoder's row says what a smaller latent costs the probe alone.

    Returns:
        One row a game, objective, arm and size but the widest. Columns: game, objective, probe,
        arm, label, dim, widest, relative (mean over seeds, per cent of the widest); pairs (by
        seed), difference, low, high, p_better, p_worse, verdict; and after Benjamini-Hochberg
        over the table p_better_bh, p_worse_bh, verdict_bh.
    """
    rows = [
        {
            "game": cell.game,
            "objective": cell.objective,
            "probe": probe,
            "arm": arm,
            "label": ARM_LABELS.get(arm, arm),
            "dim": int(dim),
            "widest": int(widest),
            "relative": cell.relative_improvement(dim, widest),
            **difference_columns(cell, dim, widest, ""),
        }
        for arm, cell in _by_arm(sweep, probe)
        for *narrower, widest in [list(cell.arms)]
        for dim in narrower
    ]
    return with_corrected(pd.DataFrame(rows, columns=_NARROWING_COLUMNS), "")


def _by_arm(sweep: SweepRun, probe: str) -> Iterator[tuple[str, Cell]]:
    """Yield each arm of a game and objective with a cell in which its sizes stand for arms."""
    found: dict[tuple[str, str, str], Cell] = {}
    for dim in sizes(sweep):
        for cell in cells(at_size(sweep, dim, probe), probe):
            for arm, rows in cell.arms.items():
                nothing = replace(cell, arms={})
                kept = found.setdefault((cell.game, cell.objective, arm), nothing)
                kept.arms[str(dim)] = rows
    yield from ((arm, cell) for (_, _, arm), cell in found.items())


def abstract_sizes(sweep: SweepRun) -> pd.DataFrame:
    """Return the scores of each P that was pretrained on RAM, at its last step, by game and size.

    Returns:
        Columns: game, dim, step, slot_accuracy, bit_f1, bit_accuracy, mask_accuracy, loss, and
        relative: bit F1 above that of the game's widest size, in per cent.
    """
    last = sweep.abstract.sort_values(["game", "dim", "step"], kind="stable")
    last = last.drop_duplicates(subset=["game", "dim"], keep="last").reset_index(drop=True)
    widest = {row["game"]: float(row["bit_f1"]) for row in last.to_dict("records")}
    reference = np.array([widest[game] for game in values(last, "game")], float)
    return last.assign(relative=100 * (last["bit_f1"].to_numpy(float) / reference - 1))


def missing_sizes(sweep: SweepRun, table: pd.DataFrame) -> list[str]:
    """Return the games and sizes that the run names but that RMR has no score of."""
    scored = where(table, arm="rmr")
    scored = pd.DataFrame(scored[scored["seeds"].to_numpy(float) > 0])
    there = set(zip(values(scored, "game"), values(scored, "dim"), strict=True))
    games = sweep.named("games", column="game")
    return [
        f"{game} at dim {dim}" for game in games for dim in sizes(sweep) if (game, dim) not in there
    ]


_NARROWING_COLUMNS = [
    *("game", "objective", "probe", "arm", "label", "dim", "widest", "relative"),
    *DIFFERENCE_COLUMNS,
]
