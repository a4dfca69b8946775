"""Transfer: every donor's frozen P for every recipient, beside what needs no donor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from rmr_gym.experiments.atari import AtariExperiment, paired_arms
from rmr_gym.experiments.base import Plan, ProgressFor, Rows
from rmr_gym.runs.store import Task
from rmr_gym.stages.chain import PIXELS, UNTRAINED, GameTasks

CONTROLS = ("cswm", "random_p", "shuffled_p", "no_p", UNTRAINED, PIXELS)
"""The baseline and the controls, once a recipient and seed; what is shuffled is its own P."""


def matrix(
    games: Sequence[GameTasks], donors: Mapping[str, Task], seeds: Sequence[int]
) -> dict[tuple[str, str, str, str, int], Task]:
    """Return the probe of each (recipient, donor, objective, arm, seed); controls have no donor."""
    objective = games[0].preset.natural.objective
    return {
        (game.name, donor, objective, "rmr", seed): game.probed(game.trained("rmr", seed, task))
        for game, (donor, task), seed in product(games, donors.items(), seeds)
    } | {
        (game.name, "", objective, arm, seed): game.scored(arm, seed)
        for game in games
        for seed, arm in paired_arms(seeds, CONTROLS)
    }


@dataclass(frozen=True)
class Transfer(AtariExperiment):
    """Train every recipient's encoder through every donor's frozen P, beside the controls.

    Source: RMR, section 5, transfer; Figure 4 (24 x 24 games, 20 seeds).
    Differs: controls beside the baseline, and donors that are not games.

    Attributes:
        donors: Names of games, random_dynamics, sorting, searching, shortest_paths,
            amplified_random, or NAME=FOLDER of a pretrained P, for instance balls=runs/balls;
            default: the recipients.
        headroom: Also take the measures with headroom, see `rmr_gym.stages.measures.headroom`.
    """

    kind = "transfer"
    folder_name = "{0.preset}-{0.natural.objective}-transfer"

    donors: tuple[str, ...] = ()
    headroom: bool = False

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        donors = self.donors_named(self.donors or self.games or self.chosen.games, progress_for)
        games, rows = self.recorded(progress_for), []
        names = ["recipient", "donor", "objective", "arm", "seed"]
        recipients = {game.name: game for game in games}
        for point, task in matrix(games, donors, self.seed_list).items():
            named = dict(zip(names, point, strict=True))
            rows.append(Rows("transfer", task, named))
            if self.headroom:
                measured = recipients[point[0]].measured(task.arguments["features"])
                rows.append(Rows("headroom", measured, named))
        return self.atari_plan(rows, games, recipients=[*recipients], donors=list(donors))
