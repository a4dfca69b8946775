"""Belief: RAM tracked from pixels and actions, with P or a control as the transition."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from rmr_gym.experiments.atari import AtariExperiment, abstract_rows
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_distinct, require_known
from rmr_gym.stages.belief import BELIEFS, Believing, belief, evidence
from rmr_gym.stages.chain import GameTasks
from rmr_gym.stages.presets import AtariPreset

WITHOUT_P = ("copy", "pixels")
BELIEVING = {
    "smoke": Believing(horizon=60, tracks=12, rounds=2, starts=(0, 100), scored=(1, 4, 16, 59))
}
"""Configurations by preset; the others have the defaults."""


def tracked(
    games: Sequence[GameTasks], config: Believing, labels: int, arm: str, seed: int
) -> list[Rows]:
    """Return where the rows of an arm come from, on every game.

    Args:
        games: Under one preset. The P of the game before stands in for that of another one.
        config: Of the filters.
        labels: Labelled frames.
        arm: A name in `rmr_gym.stages.belief.BELIEFS`.
        seed: Of P, of the labelled frames, and of what is drawn for a control.
    """
    rows = []
    for game, other in zip(games, [games[-1], *games], strict=False):
        read = evidence(game.data, game.preset.model, config, labels, seed)
        donor = None if arm in WITHOUT_P else game.pretrained(seed)
        foreign = other.pretrained(seed) if arm == "foreign_p" else None
        donors = (read, donor, foreign)
        task = belief(game.data, game.preset.model, config, labels, arm, seed, *donors)
        names = {"game": game.name, "labels": labels, "arm": arm, "seed": seed}
        rows.append(Rows("belief", task, names))
    return rows


@dataclass(frozen=True)
class Belief(AtariExperiment):
    """Track RAM from pixels, actions and a known start, with P or a control as the transition.

    Source: none in the paper; it asks of P what the natural pipeline does not: to carry on what no
    frame shows.

    Attributes:
        arms: rmr (the game's own P), shuffled_p, random_p, foreign_p (that of another game of the
            run), copy, pixels (no memory), open_loop (no frames); default: all.
        labels: Numbers of labelled frames.
        belief: How beliefs are learned and scored.
    """

    kind = "belief"

    arms: tuple[str, ...] = BELIEFS
    labels: tuple[int, ...] = (3000,)
    belief: Believing = field(default_factory=Believing)

    @staticmethod
    def proposals(name: str) -> dict[str, Any]:
        """Return the fields that a preset proposes.

        Raises:
            RMRError: There is no such preset.
        """
        proposed = AtariPreset.proposals(name)
        labels = (300,) if name == "smoke" else (3000,)
        return proposed | {"belief": BELIEVING.get(name, Believing()), "labels": labels}

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed; a single game has no other game's P."""
        require_known("belief", self.arms, BELIEFS)
        require_distinct("number of labels", self.labels)
        games = self.recorded(progress_for)
        arms = [arm for arm in self.arms if arm != "foreign_p" or len(games) > 1]
        rows = [
            row
            for game, seed in product(games, self.seed_list)
            for row in abstract_rows(game, seed)
        ]
        for labels, seed, arm in product(self.labels, self.seed_list, arms):
            rows += tracked(games, self.belief, labels, arm, seed)
        return self.atari_plan(rows, games, arms=arms, labels=list(self.labels))
