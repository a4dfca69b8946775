"""Table 2 of the paper: how well RAM transition models predict the next RAM, model by model."""

from dataclasses import dataclass
from itertools import product

from rmr_gym.experiments.atari import AtariExperiment, abstract_rows
from rmr_gym.experiments.base import Plan, ProgressFor, require_known

MODELS = ("mlp", "deep_sets", "mpnn")
"""Trained models of the table, in the paper's order; the copy baseline stands before them."""


@dataclass(frozen=True)
class Table2(AtariExperiment):
    """Train MLP, Deep Sets and MPNN on the RAM of games, beside the copy baseline and the paper.

    Source: RMR, Appendix B, Table 2. Differs: any number of seeds (the paper does not state its
    own); the number of steps is the preset's.

    Attributes:
        models: mlp, deep_sets, mpnn; default: all three.
    """

    folder_name = "{0.preset}-table2"

    games: tuple[str, ...] = ("all",)
    seeds: int | None = 1
    models: tuple[str, ...] = MODELS

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_known("abstract model", self.models, MODELS)
        games = self.recorded(progress_for)
        rows = [
            row
            for game, seed, model in product(games, self.seed_list, self.models)
            for row in abstract_rows(game.with_preset(model={"core": model}), seed)
        ]
        return self.atari_plan(
            rows,
            games,
            kind="table2",
            facts={"models": ["copy", *self.models]},
        )


EXPERIMENT = Table2
