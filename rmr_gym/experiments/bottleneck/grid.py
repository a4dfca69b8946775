"""The algorithmic bottleneck on Atari: how the scores fall as the latents get narrower."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from rmr_gym.experiments.atari import AtariExperiment
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_distinct
from rmr_gym.stages.chain import Game
from rmr_gym.stages.games import PRETRAIN_SEED

DIMS = (2, 4, 8, 16, 32, 64)
"""Widths of the latents (RMR, Appendix C)."""

ARMS = ("rmr", "cswm", "untrained")


def narrowed_rows(games: Sequence[Game], dims: Sequence[int], seeds: Sequence[int]) -> list[Rows]:
    """Return where the rows come from, a P's pretraining before what needs it."""
    rows = []
    for game, dim in product(games, dims):
        narrow = game.with_preset(model={"dim": dim})
        names = {"game": game.name, "dim": dim, "objective": game.preset.natural.objective}
        abstract = names | {"arm": "", "seed": PRETRAIN_SEED}
        rows.append(Rows("bottleneck_abstract", narrow.pretrained(), abstract))
        rows += [
            Rows("bottleneck", narrow.scored(arm, seed), names | {"arm": arm, "seed": seed})
            for seed, arm in product(seeds, ARMS)
        ]
    return rows


@dataclass(frozen=True)
class Bottleneck(AtariExperiment):
    """Pretrain, train and probe with latents of several widths.

    Source: RMR, Appendix C, Figure 5 (dim z in 2..64, all else unchanged).
    Differs: the baseline and the untrained encoder are narrowed alike. As messages and their hidden
    layers are as wide as the latents, P narrows with them; the probe reads 128 times dim features,
    so part of a fall is the probe's: the untrained encoder shows how much.

    Attributes:
        dims: Widths of the latents.
    """

    folder_name = "{0.preset}-{0.natural.objective}-bottleneck"

    dims: tuple[int, ...] = DIMS

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_distinct("width", self.dims)
        games = self.recorded(progress_for)
        return self.atari_plan(
            narrowed_rows(games, self.dims, self.seed_list),
            games,
            kind="bottleneck",
            facts={"dims": list(self.dims)},
        )


EXPERIMENT = Bottleneck
