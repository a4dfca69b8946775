"""Bouncing balls: rollouts of P beside baselines; arms around P in a model of frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from rmr_gym.domains.balls import BallsModel
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_known
from rmr_gym.experiments.worlds import PLAYABLE, BallsExperiment, Playing
from rmr_gym.runs.store import Task
from rmr_gym.stages.balls import BALLS_ARMS, BallsFolder, BallsWorld, given_balls

DIMS = (2, 4, 8, 16, 32, 64)
"""Widths of the latents in RMR, Appendix C."""

GATED = ("rmr", "cswm", "random_p", "shuffled_p")
"""Arms that are compared unless others are asked for."""


def narrowed(model: BallsModel, dims: Sequence[int]) -> list[BallsModel]:
    """Return a model, itself with narrow latents, and the interaction network of its width."""
    others = [*(replace(model, dim=dim) for dim in dims), replace(model, core="interaction")]
    return list(dict.fromkeys([model, *(others if dims else ())]))


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

    kind = "balls"

    dims: tuple[int, ...] = DIMS
    processors: tuple[Path, ...] = ()

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        given = [BallsFolder(folder) for folder in self.processors]
        for folder in given:
            folder.read()
        episodes = 40 if self.preset == "smoke" else 2000
        playing = Playing(PLAYABLE, f"states-{episodes}", episodes, options={"resolution": 8})
        world = self.world(playing, progress_for)
        points = list(product(self.seed_list, narrowed(self.model, self.dims)))
        pretrained = [world.pretrained(seed, model) for seed, model in points]
        rolled = [None, *pretrained, *map(given_balls, given)]
        names = {"game": world.data.label}
        rows = [Rows("rollouts", world.rolled_out(task), names) for task in rolled]
        for (seed, model), task in zip(points, pretrained, strict=True):
            point = names | {"model": model.core, "dim": model.dim, "seed": seed}
            rows.append(Rows("curves", task, point, "curve"))
        processors = [str(path) for path in self.processors]
        return self.balls_plan(rows, world, dims=list(self.dims), processors=processors)


@dataclass(frozen=True, kw_only=True)
class BallsNatural(BallsExperiment):
    """Train arms that predict frames of balls around a P, with paired seeds, and score them.

    Source: RMR, section 4: frozen P against P trained end to end, three seeds; Appendix C for the
    widths.
    Differs: controls with a random and with a shuffled P stand beside them; the width is that of
    latents, messages and their hidden layers alike.

    Attributes:
        arms: rmr (frozen pretrained P), cswm (P trained end to end), random_p, shuffled_p, no_p,
            tuned_p (pretrained, then trained); with _aligned behind, the abstract encoder and
            decoder are handed over too.
        dims: Widths of the latents beside the preset's own; if there are any, the interaction
            network as P too.
        processor: Folder of `rmr-gym pretrain` on balls, of the preset's sizes, to take P from;
            default: P is pretrained on the positions of the same data set.
    """

    kind = "balls_natural"
    folder_name = "{0.preset}-balls-natural"

    arms: tuple[str, ...] = GATED
    dims: tuple[int, ...] = ()
    processor: Path | None = None

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_known("arm", self.arms, BALLS_ARMS)
        given = BallsFolder(self.processor) if self.processor else None
        donor = given_balls(given) if given and given.read() else None
        episodes, resolution = (20, 16) if self.preset == "smoke" else (600, 32)
        options = {"balls": 3, "radii": 0.25, "colors": "distinct", "fps": 10}
        options["resolution"] = resolution
        name = f"frames-{episodes}x{resolution}"
        world = self.world(Playing(PLAYABLE, name, episodes, 60, options), progress_for)
        rows = []
        for model, seed in product(narrowed(self.pixels.processor, self.dims), self.seed_list):
            rows += arm_rows(_with_processor(world, model), self.arms, seed, donor)
        return self.balls_plan(rows, world, arms=list(self.arms), dims=list(self.dims))


def _with_processor(world: BallsWorld, model: BallsModel) -> BallsWorld:
    pixels = replace(world.preset.pixels, processor=model)
    return replace(world, preset=replace(world.preset, pixels=pixels))


def arm_rows(world: BallsWorld, arms: Sequence[str], seed: int, donor: Task | None) -> list[Rows]:
    """Return where the rows of a seed's warm start and of its arms come from."""
    processor = world.preset.pixels.processor
    names = {"game": world.data.label, "core": processor.core, "dim": processor.dim, "seed": seed}
    trained = {arm: world.trained(arm, seed, donor) for arm in arms}
    scored = [world.started(seed), *trained.values()]
    return [Rows("balls_natural", world.scored(task), names) for task in scored] + [
        Rows("curves", task, names | {"arm": arm}, "curve") for arm, task in trained.items()
    ]
