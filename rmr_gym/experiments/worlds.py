"""Data sets of worlds of balls: a folder, or an environment that is played now."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Manifest
from rmr_gym.envs.balls.config import BallsConfig, configure
from rmr_gym.experiments.base import Experiment, Plan, ProgressFor, Rows
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.stages.balls import BallsPreset, BallsWorld, RecordedBalls
from rmr_gym.stages.presets import as_json

PLAYABLE = ("rmr/BouncingBalls", "rmr/PushedBalls")
"""How the ids begin of environments of balls whose walls are the same in every episode."""

SEEDS = 3
"""As many seeds as in RMR, section 4, unless another number is asked for."""


@dataclass(frozen=True)
class Playing:
    """How an environment is played that is named in place of a data set.

    Attributes:
        worlds: How the ids of those begin that may be played.
        name: Tells the folder from that of the same environment, played otherwise.
        episodes: How many are played.
        max_steps: After which an episode is cut; None: the environment's own.
        options: Of the environment.
    """

    worlds: tuple[str, ...]
    name: str
    episodes: int
    max_steps: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def find_data(data: Path, playing: Playing, root: Path, progress_for: ProgressFor) -> Path:
    """Return the folder of a data set.

    Args:
        data: The folder; or the id of an environment, ``rmr/RNEMBalls4-v0`` for instance, which is
            then played into ``ROOT/data``. What is there already is not played again.
        playing: How it is played.
        root: Folder of data sets and finished stages.
        progress_for: Gives progress callbacks by title.

    Raises:
        RMRError: It cannot be recorded, or it is no such environment.
    """
    import gymnasium as gym  # noqa: PLC0415

    name = data.as_posix()
    if data.exists() or name not in gym.registry:
        return data
    if not name.startswith(playing.worlds):
        raise RMRError(
            f"expected a folder, or an environment whose id begins with "
            f"{' or '.join(playing.worlds)}, got {name}: record it with `rmr-gym record` and give "
            "the folder"
        )
    record(
        name,
        folder := root / "data" / f"{data.name}-{playing.name}",
        episodes=playing.episodes,
        max_steps=playing.max_steps,
        progress=progress_for(f"playing {data.name}"),
        **playing.options,
    )
    return folder


def is_of_balls(data: Path) -> bool:
    """Tell whether a folder is a data set of balls whose positions are there."""
    try:
        manifest = TransitionDataset(data).manifest
    except RMRError:
        return False
    spec = manifest.columns.get("state")
    return manifest.game is None and spec is not None and spec.shape[1:] == (2,)


def balls_world(data: Path, preset: BallsPreset, device: str = "cpu") -> BallsWorld:
    """Return a data set of balls under a preset; radii are those of the world it was recorded from.

    Raises:
        RMRError: No such device, no data set of balls, or one whose radii or number vary.
    """
    find_device(device)
    manifest = TransitionDataset(data).manifest
    label = (manifest.env_id or "balls").split("/")[-1].split("-")[0]
    recorded = RecordedBalls(label, data, preset.validation_share, _radii(manifest))
    return BallsWorld(recorded, preset, device)


def _radii(manifest: Manifest) -> tuple[float, ...]:
    kwargs = manifest.env_kwargs
    names = [option.name for option in fields(BallsConfig)]
    options = {name: kwargs[name] for name in names if name in kwargs}
    config = configure(kwargs.get("preset", "rmr"), options)
    if config.kinds or config.fewest < config.most or config.fixed_ball:
        raise RMRError(
            "expected balls whose number and radii are the same in every episode, and no fixed "
            "ball: record rmr/BouncingBalls-v0"
        )
    return tuple(radius for radius, _ in config.all_kinds)


@dataclass(frozen=True, kw_only=True)
class BallsExperiment(BallsPreset, Experiment):
    """Options of experiments on a data set of balls; those of the stages come from the preset.

    Attributes:
        data: Folder of a data set, or an environment that is played into ROOT/data where it is
            not there yet, for instance rmr/BouncingBalls-v0.
    """

    data: Path

    def world(self, playing: Playing, progress_for: ProgressFor) -> BallsWorld:
        """Return the data set under the preset; an environment is played first.

        Raises:
            RMRError: See `find_data` and `balls_world`.
        """
        find_device(self.device)
        folder = find_data(self.data, playing, self.root, progress_for)
        return balls_world(folder, self, self.device)

    def balls_plan(self, rows: list[Rows], world: BallsWorld, **parts: Any) -> Plan:
        """Return the plan of a run, with what run.json says of all of them.

        Args:
            rows: Where the rows of the tables come from.
            world: The data set under the preset.
            **parts: Fields of `Plan`; ``facts`` are added to what is said anyway.
        """
        stages = {option.name for option in fields(BallsPreset)} - {"preset"}
        config = {name: value for name, value in as_json(self).items() if name in stages}
        facts = {
            "preset": self.preset,
            "games": [world.data.label],
            "seeds": list(self.seed_list),
            "datasets": {world.data.label: world.data.summary()},
        } | parts.pop("facts", {})
        return Plan(rows=rows, config=config, facts=facts, **parts)

    @property
    def seed_list(self) -> range:
        """The paired seeds."""
        return self.seed_range(SEEDS)
