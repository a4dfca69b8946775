"""`rmr-gym pictures`: films of the worlds of balls, rollouts of arms, world models at work."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rmr_gym.commands.console import progress_bar, progress_bars, say
from rmr_gym.commands.stages import OnArmOfBalls
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import check_seed
from rmr_gym.envs.balls.config import PRESETS
from rmr_gym.experiments.base import folder_of_files, require_known
from rmr_gym.experiments.worlds import WorldOptions, balls_world, check_tests
from rmr_gym.report import pictures
from rmr_gym.report.charts import save_figure
from rmr_gym.runs.store import Store
from rmr_gym.stages.balls import BallsFolder, given_balls, imagined
from rmr_gym.stages.world_model import check_groups, drawn, to_draw

SHEET = 16
"""Frames on a sheet."""


def films(
    out: Path = Path("runs/films"),
    presets: tuple[str, ...] = ("all",),
    frames: int = 60,
    size: int = 160,
    seed: int = 0,
) -> None:
    """Play an episode of each preset; write a film (GIF) for people and a sheet of what models see.

    Args:
        out: Folder of PRESET.gif and PRESET.png.
        presets: Names, or all.
        frames: Steps of the episode; actions of the pushed balls are drawn at random.
        size: Height and width of the film in pixels.
        seed: Of the world and of the actions.
    """
    if frames < 1 or size < 1:
        raise RMRError(f"frames and size must be 1 or more, got {frames} and {size}")
    chosen = list(PRESETS) if presets == ("all",) else presets
    require_known("preset", chosen, PRESETS)
    for preset in chosen:
        seen, rendered, fps = play(preset, frames, size, seed)
        sheet = [seen[n * (len(seen) - 1) // (SHEET - 1)] for n in range(SHEET)]
        pictures.write_film(out / f"{preset}.gif", rendered, fps)
        pictures.write_sheet(out / f"{preset}.png", sheet)
        say(*(f"written: {out / preset}.{kind}" for kind in ("gif", "png")))


def play(
    preset: str, frames: int, size: int, seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """Play one episode of a preset: what models see, what people see, and the frames a second."""
    import gymnasium  # noqa: PLC0415

    options = {"render_mode": "rgb_array", "render_size": size, "max_episode_steps": frames}
    env = gymnasium.make(PRESETS[preset].env_id, **options)
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    seen, rendered, over = [observation["pixels"]], [np.asarray(env.render())], False
    while not over:
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append(observation["pixels"])
        rendered.append(np.asarray(env.render()))
        over = terminated or truncated
    fps = float(env.metadata["render_fps"])
    env.close()
    return seen, rendered, fps


@dataclass(frozen=True, kw_only=True)
class Rollouts(OnArmOfBalls):
    """Draw rollouts beside the truth and the masks of the slots, as pictures and films.

    What a run left in ROOT/store is found there; what it did not is trained now.

    Attributes:
        out: Folder of the pictures.
        seed: Fixes initial weights and batches.
        rollouts: Number of rollouts.
        steps: Frames of a rollout.
    """

    out: Path
    seed: int = 0
    rollouts: int = 3
    steps: int = 8

    def execute(self) -> None:
        """Carry the command out."""
        world = balls_world(self.data, self, self.device)
        donor = given_balls(BallsFolder(self.processor)) if self.processor else None
        task = world.trained(self.arm, self.seed, donor)
        with progress_bar(f"{self.arm}, seed {self.seed}") as progress:
            trained = Store(self.root / "store").compute(task, progress)
        drawn = imagined(world.data, self.pixels, trained, self.rollouts, self.steps)
        first = (drawn.truth[:, 0], drawn.predicted[:, 0], drawn.masks[:, 0])
        masks = save_figure(pictures.masks_figure(*first), self.out / f"masks_{self.arm}.png")
        say(f"written: {masks}")
        for n, (past, predicted, truth, shares) in enumerate(
            zip(drawn.past, drawn.predicted, drawn.truth, drawn.masks, strict=True)
        ):
            name = f"rollout_{self.arm}_{n}"
            picture = pictures.rollout_figure(past, predicted, truth)
            film = pictures.rollout_frames(past, predicted, truth, shares)
            _write_both(self.out, name, picture, film, 4.0)


@dataclass(frozen=True, kw_only=True)
class WorldModelPictures(WorldOptions):
    """Draw what a trained model sees, groups and predicts, first shown frames and then by itself.

    A model that is not in ROOT/store is trained first.

    Attributes:
        out: Folder of MODEL_N.png and MODEL_N.gif.
        model: Which model, as in `rmr-gym run world-models`.
        seed: Its seed.
        sequences: Number of sequences.
        seen: Frames that are shown.
        ahead: Frames that it predicts from its own predictions.
        test: Another data set, or environment, to take the sequences from.
        groups: Number of groups (K) in training; default: the preset's.
        test_groups: Number of groups now.
        processor: Folder of `rmr-gym pretrain` on balls, for the models with a P inside.
    """

    out: Path
    model: str = "rnem"
    seed: int = 0
    sequences: int = 3
    seen: int = 10
    ahead: int = 10
    test: Path | None = None
    groups: int | None = None
    test_groups: int | None = None
    processor: Path | None = None

    def execute(self) -> None:
        """Carry the command out."""
        check_seed(self.seed)
        folder_of_files(self.out)
        with progress_bars() as progress_for:
            (planned,) = self.planned([self.model], progress_for, self.groups, self.processor)
            if self.test_groups is not None:
                check_groups(self.model, self.test_groups)
            tests = self.found([self.test] if self.test else [], progress_for)
            check_tests([planned], tests)
            data, scoring = [planned.data, *tests][-1], planned.preset.scoring
            clips = to_draw(data, scoring.sequences, self.sequences, self.seen, self.ahead)
            progress = progress_for(f"{self.model}, seed {self.seed}")
            trained = Store(self.root / "store").compute(planned.trained(self.seed), progress)
        cut = scoring.cut if clips.binary else 0.0
        model = planned.network(trained, cut, self.test_groups)
        for row, sheet in enumerate(drawn(model, clips, self.sequences, self.seen)):
            name = f"{self.model}_{row}"
            film = pictures.film_frames(sheet.truth, sheet.predicted, sheet.shares)
            _write_both(self.out, name, pictures.groups_figure(*sheet), film, 8.0)


def _write_both(out: Path, name: str, picture: Figure, film: pictures.Film, fps: float) -> None:
    """Write a picture and a film of a name."""
    say(f"written: {save_figure(picture, out / f'{name}.png')}")
    say(f"written: {pictures.write_film(out / f'{name}.gif', film, fps)}")


PICTURES = {"films": films, "rollouts": Rollouts, "world-model": WorldModelPictures}
