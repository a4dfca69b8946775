"""Studies beside the comparison: objectives, abstract models, other measures, narrow latents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from rmr_gym.agents.players.graded import PLAYER, PlayerReference
from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.atari import AtariExperiment, abstract_rows, natural_rows, paired_arms
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_distinct, require_known
from rmr_gym.stages.chain import PIXELS, REFERENCES, UNTRAINED, GameTasks
from rmr_gym.stages.games import PRETRAIN_SEED
from rmr_gym.stages.presets import ARMS, OBJECTIVES

MODELS = ("mlp", "deep_sets", "mpnn")
"""Trained models of Table 2, in the paper's order; the copy baseline stands before them."""

CARRIED = "mpnn_carried"
"""An MPNN pretrained on its own predictions, scored by horizon alone; `CARRYING` is how."""

CARRYING = {"rollout": 4, "noise": 0.02}

MEASURES = ("labels", "ranking", "headroom")

DIMS = (2, 4, 8, 16, 32, 64)
"""Widths of the latents (RMR, Appendix C)."""

NARROWED = ("rmr", "cswm", UNTRAINED, PIXELS)
"""Arms and references whose latents, or components, get fewer."""


def variants(
    game: GameTasks, objectives: Sequence[str], episodes: Sequence[int | None]
) -> Iterator[tuple[str, GameTasks]]:
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
        objectives: Names of objectives, for instance cswm infonce infonce_3step.
        arms: rmr, cswm, random_p, shuffled_p, no_p, untrained, pca; default: all.
        episodes: Numbers of natural episodes to train on; default: all that there are.
    """

    kind = "objectives"

    objectives: tuple[str, ...] = ("cswm", "infonce")
    arms: tuple[str, ...] = (*ARMS, UNTRAINED, PIXELS)
    episodes: tuple[int, ...] = ()

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_known("objective", self.objectives, OBJECTIVES)
        require_known("arm", self.arms, (*ARMS, UNTRAINED, PIXELS))
        counts: tuple[int | None, ...] = self.episodes or (None,)
        require_distinct("number of episodes", counts)
        most, there = max(self.episodes, default=0), self.chosen.recording.train_episodes
        if most > there:
            raise RMRError(f"natural training on {most} episodes: there are {there} for training")
        games = self.recorded(progress_for)
        rows, pairs = [], paired_arms(self.seed_list, self.arms)
        for game in games:
            changed = variants(game, self.objectives, counts)
            for (label, variant), (seed, arm) in product(changed, pairs):
                rows += natural_rows(variant, arm, seed, label)
        names = {"objective": ", ".join(self.objectives), "arms": list(self.arms)}
        return self.atari_plan(rows, games, natural_episodes=list(counts), **names)


@dataclass(frozen=True)
class Table2(AtariExperiment):
    """Train MLP, Deep Sets and MPNN on the RAM of games, beside the copy baseline and the paper.

    Source: RMR, Appendix B, Table 2. Differs: any number of seeds (the paper does not state its
    own); the number of steps is the preset's.

    Attributes:
        models: mlp, deep_sets, mpnn, and mpnn_carried, which learns from its own predictions;
            default: the first three.
    """

    kind = "table2"

    games: tuple[str, ...] = ("all",)
    seeds: int | None = 1
    models: tuple[str, ...] = MODELS

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_known("abstract model", self.models, (*MODELS, CARRIED))
        games = self.recorded(progress_for)
        rows = []
        for game, seed, model in product(games, self.seed_list, self.models):
            if model == CARRIED:
                made = game.with_preset(model={"core": "mpnn"}, pretraining=CARRYING)
            else:
                made = game.with_preset(model={"core": model})
                rows += abstract_rows(made, seed)
            names = {"game": game.name, "model": model, "seed": seed}
            rows.append(Rows("abstract_horizons", made.rolled(seed), names, shared=True))
        return self.atari_plan(rows, games, models=["copy", *self.models])


def measured(game: GameTasks, arm: str, seed: int, measures: Sequence[str]) -> list[Rows]:
    """Return where the rows of an arm or reference come from; references have no P to rank."""
    objective = game.preset.natural.objective
    names = {"game": game.name, "objective": objective, "arm": arm, "seed": seed}
    if arm == PLAYER:
        reference: Any = PlayerReference(game.name)
        rows = [Rows("references", game.probed(reference), names)]
        return [*rows, Rows("labels", game.labelled(reference), names)]
    features = game.pixels if arm == PIXELS else game.trained(arm, seed)
    kinds = {"labels": game.labelled, "headroom": game.measured}
    rows = [Rows(name, kinds[name](features), names) for name in kinds if name in measures]
    if "ranking" in measures and arm in ARMS:
        rows.append(Rows("ranking", game.ranked(game.trained(arm, seed)), names))
    return rows


@dataclass(frozen=True)
class Measures(AtariExperiment):
    """Probe arms for labels (Anand et al. 2019), rank predictions (C-SWM), measure with headroom.

    Arms that a comparison trained under ROOT are found.

    Attributes:
        arms: Arms and references, and player (the hidden layer of the trained player that sees
            RAM); default: all.
        measures: labels, ranking, headroom; default: all.
    """

    kind = "measures"
    folder_name = "{0.preset}-{0.natural.objective}-measures"

    arms: tuple[str, ...] = (*ARMS, *REFERENCES, PLAYER)
    measures: tuple[str, ...] = MEASURES

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed; what has no seed is computed once."""
        require_known("arm", self.arms, (*ARMS, *REFERENCES, PLAYER))
        require_known("measure", self.measures, MEASURES)
        games, rows = self.recorded(progress_for), []
        for game, (seed, arm) in product(games, paired_arms(self.seed_list, self.arms)):
            if arm != PLAYER or "labels" in self.measures:
                rows += measured(game, arm, seed, self.measures)
        return self.atari_plan(rows, games, arms=list(self.arms), measures=list(self.measures))


def narrowed_rows(
    games: Sequence[GameTasks], dims: Sequence[int], seeds: Sequence[int]
) -> list[Rows]:
    """Return where the rows come from, a P's pretraining before what needs it."""
    rows = []
    for game, dim in product(games, dims):
        narrow = game.with_preset(model={"dim": dim})
        names = {"game": game.name, "dim": dim, "objective": game.preset.natural.objective}
        abstract = names | {"arm": "", "seed": PRETRAIN_SEED}
        rows.append(Rows("bottleneck_abstract", narrow.pretrained(), abstract))
        rows += [
            Rows("bottleneck", narrow.scored(arm, seed), names | {"arm": arm, "seed": seed})
            for seed, arm in paired_arms(seeds, NARROWED)
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

    kind = "bottleneck"
    folder_name = "{0.preset}-{0.natural.objective}-bottleneck"

    dims: tuple[int, ...] = DIMS

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_distinct("width", self.dims)
        games = self.recorded(progress_for)
        rows = narrowed_rows(games, self.dims, self.seed_list)
        return self.atari_plan(rows, games, dims=list(self.dims))
