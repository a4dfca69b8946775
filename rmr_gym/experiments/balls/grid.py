"""Bouncing balls, abstract: rollouts of P beside baselines, latents of several widths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from rmr_gym.domains.balls import BallsModel
from rmr_gym.experiments.base import Plan, ProgressFor, Rows
from rmr_gym.experiments.worlds import PLAYABLE, BallsExperiment, Playing
from rmr_gym.runs.store import Task
from rmr_gym.stages.balls import BallsFolder, BallsWorld, given_balls

DIMS = (2, 4, 8, 16, 32, 64)
"""Widths of the latents in RMR, Appendix C."""


def narrowed(model: BallsModel, dims: Sequence[int]) -> list[BallsModel]:
    """Return a model with narrow latents, itself, and the interaction network of its width."""
    narrow = [replace(model, dim=dim) for dim in dims if dim != model.dim]
    return [*narrow, model, replace(model, core="interaction")] if dims else [model]


def rollout_rows(world: BallsWorld, pipelines: Sequence[Task]) -> list[Rows]:
    """Return where the rows come from: first those of the simulator and of the baselines."""
    names = {"game": world.data.label}
    return [Rows("rollouts", world.rolled_out(each), names) for each in (None, *pipelines)]


def curve_rows(world: BallsWorld, model: BallsModel, seed: int) -> Rows:
    """Return where the curve of a pretraining comes from."""
    names = {"game": world.data.label, "model": model.core, "dim": model.dim, "seed": seed}
    return Rows("curves", world.pretrained(seed, model), names, "curve")


@dataclass(frozen=True, kw_only=True)
class Balls(BallsExperiment):
    """Pretrain P on positions of balls, with latents of several widths, and score its rollouts.

    Source: RMR, section 4; Appendix C for the widths.
    Differs: the width is that of latents, messages and their hidden layers alike; the preset's own
    width and the interaction network stand beside.

    Attributes:
        dims: Widths of the latents; none: the preset's own alone.
        processors: Folders of `rmr-gym pretrain` on balls, whose pipelines are scored too.
    """

    folder_name = "{0.preset}-balls"

    dims: tuple[int, ...] = DIMS
    processors: tuple[Path, ...] = ()

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        given = [BallsFolder(folder) for folder in self.processors]
        for folder in given:
            folder.read()
        episodes = 40 if self.preset == "smoke" else 2000
        options = {"resolution": 8}
        playing = Playing(PLAYABLE, f"states-{episodes}", episodes, options=options)
        world = self.world(playing, progress_for)
        points = list(product(self.seed_list, narrowed(self.model, self.dims)))
        pretrained = [world.pretrained(seed, model) for seed, model in points]
        rows = rollout_rows(world, [*pretrained, *map(given_balls, given)])
        rows += [curve_rows(world, model, seed) for seed, model in points]
        facts = {"dims": list(self.dims), "processors": [str(path) for path in self.processors]}
        return self.balls_plan(rows, world, kind="balls", facts=facts)


EXPERIMENT = Balls
