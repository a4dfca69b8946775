"""A cell of a natural table: one game, one objective, every arm at one checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rmr_gym.analysis.run import (
    ARM_LABELS,
    OBJECTIVE_LABELS,
    REFERENCE_ARMS,
    SEEDLESS_ARMS,
    Run,
    in_order,
    values,
    where,
)
from rmr_gym.analysis.statistics import PairedDifference, paired_difference
from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.seeding import generator


@dataclass(frozen=True, eq=False)
class Cell:
    """The scores behind one game and objective of a table.

    Attributes:
        game: Name of the game.
        objective: Objective of the trained arms.
        probe: Probe of the scores.
        checkpoint: Step of the trained arms.
        arms: Rows of natural.csv of each arm at that step, at most one a seed, arms in order.
    """

    game: str
    objective: str
    probe: str
    checkpoint: int
    arms: dict[str, pd.DataFrame]

    def seed_pairs(self, arm: str, baseline: str) -> dict[int, tuple[float, float]]:
        """Return micro F1 of ``arm`` and of ``baseline`` for each seed that has both.

        An arm without randomness that was noted once is compared to every seed of the baseline.
        """
        if arm == baseline or not {arm, baseline} <= set(self.arms):
            return {}
        first, second = self._by_seed(arm), self._by_seed(baseline)
        if arm in SEEDLESS_ARMS and len(first) == 1:
            first = dict.fromkeys(second, next(iter(first.values())))
        return {seed: (first[seed], second[seed]) for seed in sorted(set(first) & set(second))}

    def seed_differences(self, arm: str, baseline: str) -> dict[int, float]:
        """Return micro F1 of ``arm`` minus that of ``baseline``, see `seed_pairs`."""
        pairs = self.seed_pairs(arm, baseline)
        return {seed: first - second for seed, (first, second) in pairs.items()}

    def relative_improvement(self, arm: str, baseline: str) -> float:
        """Return by how many per cent of the baseline ``arm`` is higher, a mean over seeds.

        NaN where there is no pair with a baseline above 0.
        """
        pairs = self.seed_pairs(arm, baseline).values()
        gains = [100 * (first - second) / second for first, second in pairs if second > 0]
        return float(np.mean(gains)) if gains else float("nan")

    def difference(self, arm: str, baseline: str) -> PairedDifference:
        """Compare the micro F1 of two arms, paired by seed; 0 pairs where there is no pair."""
        names = (self.game, self.objective, self.probe, self.checkpoint, arm, baseline)
        differences = np.array(list(self.seed_differences(arm, baseline).values()), float)
        return paired_difference(differences, generator(0, "interval", *names))

    def _by_seed(self, arm: str) -> dict[int, float]:
        rows = self.arms[arm]
        scored = zip(values(rows, "seed"), values(rows, "micro_f1"), strict=True)
        return {int(seed): float(score) for seed, score in scored if not np.isnan(score)}


def cells(run: Run, probe: str, step: int | None = None) -> Iterator[Cell]:
    """Yield the cells of a run, games in its order.

    Args:
        run: The run.
        probe: Which probe's scores.
        step: Checkpoint; None for the last that any trained arm of the game reached. A game
            without the step is left out.

    Raises:
        RMRError: Unknown probe, or a step that no game has.
    """
    if run.natural.empty:
        return
    if probe not in run.probes:
        raise unknown_name("probe of this run", probe, run.probes)
    scores = where(run.natural, probe=probe)
    steps = trained_steps(scores)
    if step is not None and step not in steps:
        raise RMRError(
            f"this run has no step {step} under the probe {probe}: choose one of "
            f"{', '.join(map(str, steps)) or 'none'}"
        )
    for game in run.games:
        of_game = where(scores, game=game)
        for objective in _objectives(of_game):
            rows = with_references(of_game, objective)
            reached = trained_steps(rows)
            if step is None or step in reached:
                chosen = step if step is not None else max(reached, default=0)
                yield Cell(game, objective, probe, chosen, _arms(rows, chosen))


def trained_steps(rows: pd.DataFrame) -> list[int]:
    """Return the steps at which trained arms have scores, rising."""
    trained = ~rows["arm"].isin(list(REFERENCE_ARMS)).to_numpy(bool)
    return sorted({int(step) for step in values(rows, "step")[trained]})


def _objectives(of_game: pd.DataFrame) -> list[str]:
    """Objectives of the trained arms; of the references where nothing else is there."""
    trained = set(values(of_game, "arm")) - set(REFERENCE_ARMS)
    if trained:
        return in_order(values(where(of_game, arm=trained), "objective"), OBJECTIVE_LABELS)
    return sorted(set(values(of_game, "objective")))[:1]


def with_references(of_game: pd.DataFrame, objective: str) -> pd.DataFrame:
    """Return the rows of an objective, and of references that were noted under another one."""
    ours = where(of_game, objective=objective)
    elsewhere = set(REFERENCE_ARMS) - set(values(ours, "arm"))
    borrowed = where(of_game, arm=elsewhere).drop_duplicates(subset=["arm", "seed", "step"])
    return pd.concat([ours, borrowed], ignore_index=True)


def _arms(rows: pd.DataFrame, step: int) -> dict[str, pd.DataFrame]:
    arms = {}
    for arm in in_order(values(rows, "arm"), ARM_LABELS):
        of_arm = where(rows, arm=arm)
        steps = values(of_arm, "step")
        stands_alone = arm in REFERENCE_ARMS and step not in steps
        arms[arm] = where(of_arm, step=int(steps.max()) if stands_alone else step)
    return arms
