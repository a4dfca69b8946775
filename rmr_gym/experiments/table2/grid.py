"""Table 2 of the paper: how well RAM transition models predict the next RAM, model by model."""

from dataclasses import dataclass
from itertools import product

from rmr_gym.experiments.base import (
    AtariExperiment,
    Plan,
    ProgressFor,
    Rows,
    require_distinct,
    require_known,
)
from rmr_gym.stages.chain import Game

MODELS = ("mlp", "deep_sets", "mpnn")
"""Trained models of the table, in the paper's order; the copy baseline stands before them."""

_KEY = ("game", "model", "seed", "step")
COLUMNS = {
    "abstract": (*_KEY, "slot_accuracy", "bit_f1", "bit_accuracy", "mask_accuracy"),
    "abstract_curves": (*_KEY, "loss"),
}


def rows_of(game: Game, model: str, seed: int) -> list[Rows]:
    """Return where the rows of one model come from."""
    task = game.with_preset(model={"core": model}).pretrained(seed)
    names = {"game": game.name, "model": model, "seed": seed}
    return [Rows("abstract", task, names), Rows("abstract_curves", task, names, "curve")]


def copy_rows(game: Game, model: str, seed: int) -> Rows:
    """Return where the rows of the copy baseline come from: they stand beside every model."""
    names = {"game": game.name, "model": "copy", "seed": seed}
    return Rows("abstract", game.with_preset(model={"core": model}).pretrained(seed), names, "copy")


@dataclass(frozen=True)
class Table2(AtariExperiment):
    """Train MLP, Deep Sets and MPNN on the RAM of games, beside the copy baseline and the paper.

    Source: RMR, Appendix B, Table 2. Differs: any number of seeds (the paper does not state its
    own); the number of steps is the preset's.

    Attributes:
        models: mlp, deep_sets, mpnn; default: all three.
    """

    games: tuple[str, ...] = ("all",)
    seeds: int | None = 1
    models: tuple[str, ...] = MODELS

    def default_folder(self) -> str:
        """Return the name of the run folder under ROOT."""
        return f"{self.preset}-table2"

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed; the copy baseline is told once a game and seed."""
        require_known("abstract model", self.models, MODELS)
        require_distinct("abstract model", self.models)
        games = self.recorded(progress_for)
        rows = []
        for game, seed in product(games, self.seed_list):
            rows.append(copy_rows(game, self.models[0], seed))
            rows += [row for model in self.models for row in rows_of(game, model, seed)]
        return self.atari_plan(
            rows,
            games,
            kind="table2",
            columns=COLUMNS,
            facts={"models": ["copy", *self.models]},
        )


EXPERIMENT = Table2
