"""Measures beside the bit probe: named labels and ranking of predictions, arm by arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from rmr_gym.agents.players.player_features import PLAYER, PlayerReference
from rmr_gym.experiments.atari import AtariExperiment
from rmr_gym.experiments.base import (
    Plan,
    ProgressFor,
    Rows,
    require_known,
)
from rmr_gym.stages.chain import PIXELS, REFERENCES, Game
from rmr_gym.stages.presets import ARMS

MEASURES = ("labels", "ranking")


def measured(game: Game, arm: str, seed: int, measures: Sequence[str]) -> list[Rows]:
    """Return where the rows of an arm or reference come from; references have no P to rank."""
    objective = game.preset.natural.objective
    names = {"game": game.name, "objective": objective, "arm": arm, "seed": seed}
    if arm == PLAYER:
        reference = PlayerReference(game.name)
        rows = [Rows("references", game.probed(reference), names)]
        return [*rows, Rows("labels", game.labelled(reference), names)]
    rows = []
    if "labels" in measures:
        rows.append(Rows("labels", game.labelled(game.features(arm, seed)), names))
    if "ranking" in measures and arm in ARMS:
        rows.append(Rows("ranking", game.ranked(game.trained(arm, seed)), names))
    return rows


@dataclass(frozen=True)
class Measures(AtariExperiment):
    """Probe arms for the labels of Anand et al. 2019 and rank what they predict, as C-SWM does.

    Arms that a comparison trained under ROOT are found.

    Attributes:
        arms: Arms and references, and player (the hidden layer of the trained player that sees
            RAM); default: all.
        measures: labels, ranking or both.
    """

    folder_name = "{0.preset}-{0.natural.objective}-measures"

    arms: tuple[str, ...] = (*ARMS, *REFERENCES, PLAYER)
    measures: tuple[str, ...] = MEASURES

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed; what has no seed is computed once."""
        require_known("arm", self.arms, (*ARMS, *REFERENCES, PLAYER))
        require_known("measure", self.measures, MEASURES)
        games, seeds = self.recorded(progress_for), self.seed_list
        rows = [
            row
            for game in games
            for seed, arm in product(seeds, self.arms)
            if arm not in (PIXELS, PLAYER) or seed == seeds[0]
            if arm != PLAYER or "labels" in self.measures
            for row in measured(game, arm, seed, self.measures)
        ]
        facts = {"arms": list(self.arms), "measures": list(self.measures)}
        return self.atari_plan(rows, games, kind="measures", facts=facts)


EXPERIMENT = Measures
