"""Natural objectives side by side, with all natural episodes or with few of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from rmr_gym.experiments.atari import AtariExperiment, natural_rows
from rmr_gym.experiments.base import Plan, ProgressFor, require_distinct, require_known
from rmr_gym.stages.chain import UNTRAINED, Game
from rmr_gym.stages.presets import ARMS, OBJECTIVES


def variants(
    game: Game, objectives: Sequence[str], episodes: Sequence[int | None]
) -> Iterator[tuple[str, Game]]:
    """Yield the game under each objective and number of natural episodes, after its label.

    The label is the objective, followed by ``/episodes`` where natural data are scarce.
    """
    for objective, count in product(objectives, episodes):
        label = objective if count is None else f"{objective}/{count}"
        yield label, game.with_preset(natural={"objective": objective, "episodes": count})


@dataclass(frozen=True)
class Objectives(AtariExperiment):
    """Train and probe arms under several objectives, with all or with little natural data.

    Source: none in the paper, which has one objective; RMR, section 1, argues from scarce data.

    Attributes:
        objectives: Names of objectives, for instance cswm infonce infonce_aligned.
        arms: rmr, cswm, random_p, shuffled_p, no_p, untrained; default: all.
        episodes: Numbers of natural episodes to train on; default: all that there are.
    """

    folder_name = "{0.preset}-objectives"

    objectives: tuple[str, ...] = ("cswm", "infonce")
    arms: tuple[str, ...] = (*ARMS, UNTRAINED)
    episodes: tuple[int, ...] = ()

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_known("objective", self.objectives, OBJECTIVES)
        require_known("arm", self.arms, (*ARMS, UNTRAINED))
        counts: tuple[int | None, ...] = self.episodes or (None,)
        require_distinct("number of episodes", counts)
        games = self.recorded(progress_for)
        rows = [
            row
            for game in games
            for label, variant in variants(game, self.objectives, counts)
            for seed, arm in product(self.seed_list, self.arms)
            for row in natural_rows(variant, arm, seed, label)
        ]
        facts = {"objective": ", ".join(self.objectives), "arms": list(self.arms)}
        facts["natural_episodes"] = list(counts)
        return self.atari_plan(rows, games, kind="objectives", facts=facts)


EXPERIMENT = Objectives
