"""Bouncing balls, natural: arms around P in a model of frames, latents of several widths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_distinct
from rmr_gym.experiments.worlds import PLAYABLE, BallsExperiment, Playing
from rmr_gym.runs.store import Task
from rmr_gym.stages.balls import BALLS_ARMS, BallsFolder, BallsWorld, given_balls
from rmr_gym.stages.presets import find_arm

GATED = ("rmr", "cswm", "random_p", "shuffled_p")
"""Arms that are compared unless others are asked for."""


def narrowed(world: BallsWorld, dims: Sequence[int]) -> list[BallsWorld]:
    """Return the world with its own latents, then with narrow ones and the interaction network."""
    own = world.preset.pixels.processor
    cores = [(own.core, dim) for dim in (own.dim, *dims)]
    cores += [("interaction", own.dim)] if dims else []
    return [_with_core(world, core, dim) for core, dim in dict.fromkeys(cores)]


def _with_core(world: BallsWorld, core: str, dim: int) -> BallsWorld:
    pixels = world.preset.pixels
    processor = replace(pixels.processor, core=core, dim=dim)
    preset = replace(world.preset, pixels=replace(pixels, processor=processor))
    return replace(world, preset=preset)


def arm_rows(
    world: BallsWorld, arms: Sequence[str], seed: int, donor: Task | None = None
) -> list[Rows]:
    """Return where the rows of a seed's warm start and of its arms come from."""
    processor = world.preset.pixels.processor
    names = {"game": world.data.label, "core": processor.core, "dim": processor.dim, "seed": seed}
    trained = {arm: world.trained(arm, seed, donor) for arm in arms}
    scored = [world.started(seed), *trained.values()]
    return [Rows("balls_natural", world.scored(task), names) for task in scored] + [
        Rows("curves", task, names | {"arm": arm}, "curve") for arm, task in trained.items()
    ]


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

    folder_name = "{0.preset}-balls-natural"

    arms: tuple[str, ...] = GATED
    dims: tuple[int, ...] = ()
    processor: Path | None = None

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_distinct("arm", self.arms)
        for arm in self.arms:
            find_arm(arm, BALLS_ARMS)
        donor = given_balls(BallsFolder(self.processor)) if self.processor else None
        world = self.world(self._playing, progress_for)
        points = product(narrowed(world, self.dims), self.seed_list)
        rows = [row for point, seed in points for row in arm_rows(point, self.arms, seed, donor)]
        facts = {"arms": list(self.arms), "dims": list(self.dims)}
        kind = "balls-natural"
        return self.balls_plan(rows, world, kind=kind, facts=facts)

    @property
    def _playing(self) -> Playing:
        episodes, resolution = (20, 16) if self.preset == "smoke" else (600, 32)
        options = {"balls": 3, "radii": 0.25, "colors": "distinct", "fps": 10}
        name = f"frames-{episodes}x{resolution}"
        return Playing(PLAYABLE, name, episodes, 60, options | {"resolution": resolution})


EXPERIMENT = BallsNatural
