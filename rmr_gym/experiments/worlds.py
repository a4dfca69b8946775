"""What experiments on worlds of balls share: data that are recorded or played, options, plans."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import tyro

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.core.options import read_options
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Manifest
from rmr_gym.envs.balls.config import BallsConfig, configure
from rmr_gym.experiments.base import Experiment, Plan, ProgressFor, Rows, require_distinct
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.stages import world_model as stage
from rmr_gym.stages.balls import BallsFolder, BallsPreset, BallsWorld, RecordedBalls, given_balls
from rmr_gym.stages.presets import as_json
from rmr_gym.stages.world_model import PlannedModel, RecordedFrames

PLAYABLE = ("rmr/BouncingBalls", "rmr/PushedBalls")
"""How the ids begin of environments of balls whose walls are the same in every episode."""

FRAMED = ("rmr/RNEMBalls", "rmr/S2RMBalls")
"""How the ids begin of environments that are played for world models: binary frames of balls."""

DECIDING = ("preset", "steps", "overrides", "groups", "processor")
"""Options that decide what trained models are."""
HELD_OUT = "validation"
"""What the validation episodes of the training data are called among test sets."""
TRUTH = {"observe": ["radii", "velocities"]}
PLAYED: dict[str, tuple[int, dict[str, Any]]] = {
    "smoke": (8, {"resolution": 16, "fps": 10.0}),
    "laptop": (1_500, {"resolution": 32, "fps": 10.0}),
    "paper": (50_000, {}),
}
"""Episodes that are played of an environment, and its options, by preset; frames that are seen as
crops keep their size and rate in every preset. With half the side, balls at half the frames a
second move as many pixels a frame as those of the paper."""
SLOW = 0.5
"""Pixels a frame under which a warning says that there is little motion to learn."""

_LITTLE_MOTION = (
    "balls move %.2f pixels a frame in %s, expected half a pixel or more to learn motion from: "
    "record fewer frames a second (--fps 10, --options fps=10) or larger frames"
)
_log = logging.getLogger(__name__)

Overrides = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.arg(name="set", metavar="NAME=VALUE [NAME=VALUE ...]"),
    tyro.conf.UseAppendAction,
]
"""Annotation: the option --set, which may come again."""


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
    folder = root / "data" / f"{data.name}-{playing.name}"
    sizes = {"episodes": playing.episodes, "max_steps": playing.max_steps, **playing.options}
    record(name, folder, **sizes, progress=progress_for(f"playing {data.name}"))
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
    seeds: int | None = 3

    @property
    def config(self) -> dict[str, Any]:
        """The options of the stages."""
        stages = {option.name for option in fields(BallsPreset)} - {"preset"}
        return {name: value for name, value in as_json(self).items() if name in stages}

    def world(self, playing: Playing, progress_for: ProgressFor) -> BallsWorld:
        """Return the data set under the preset; an environment is played first.

        Raises:
            RMRError: See `find_data` and `balls_world`.
        """
        find_device(self.device)
        folder = find_data(self.data, playing, self.root, progress_for)
        return balls_world(folder, self, self.device)

    def balls_plan(self, rows: list[Rows], world: BallsWorld, **facts: Any) -> Plan:
        """Return the plan of a run, with what run.json says of all of them and further facts."""
        facts = {
            "preset": self.preset,
            "games": [world.data.label],
            "datasets": {world.data.label: world.data.summary()},
        } | facts
        return Plan(rows, facts)


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """Options of everything that trains world models.

    Attributes:
        data: Folder of the data set that they are trained on, or an environment that is played
            into ROOT/data where it is not there yet, for instance rmr/RNEMBalls4-v0. Groups and
            collisions are scored where observe=["radii","velocities"] was recorded.
        preset: smoke, laptop or paper: sizes and steps.
        fps: Frames a second at which environments are played; default: the preset's.
        steps: Gradient steps at most; default: the preset's.
        overrides: Options of the preset that are overridden in the models that have them, for
            instance training.learning_rate=7e-4 scoring.cut=0 sizes.rims.active=5.
        root: Folder of data sets and finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """

    data: Path
    preset: str = "laptop"
    fps: float | None = None
    steps: int | None = None
    overrides: Overrides = ()
    root: Path = Path("runs")
    device: str = "cpu"

    def planned(
        self,
        models: Sequence[str],
        progress_for: ProgressFor,
        groups: int | None = None,
        processor: Path | None = None,
    ) -> list[PlannedModel]:
        """Return models whose tasks can be computed; an environment is played last.

        Args:
            models: Which models.
            progress_for: Gives progress callbacks by title.
            groups: K in training, for those that have several groups.
            processor: Folder of `rmr-gym pretrain` on balls, for those that have a P inside.

        Raises:
            RMRError: Something that was asked for cannot be.
        """
        find_device(self.device)
        overrides = self._overrides({stage.GROUPS: groups, "training.steps": self.steps})
        stage.refuse_unknown(models, self.preset, overrides)
        presets = [stage.chosen_preset(model, self.preset, overrides) for model in models]
        pretrained = _processor(models, processor)
        data = RecordedFrames(self._folder(self.data, progress_for), presets[0].validation_share)
        if (pace := data.pace or SLOW) < SLOW:
            _log.warning(_LITTLE_MOTION, pace, data.label)
        fitted = [
            stage.chosen_preset(model, self.preset, overrides, data.frames) for model in models
        ]
        return [
            _with_processor(PlannedModel(data, model, preset, device=self.device), pretrained)
            for model, preset in zip(models, fitted, strict=True)
        ]

    def _overrides(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is overridden by its name, with options that have a name of their own."""
        texts = [text for part in self.overrides for text in part]
        given = [f"{path}={value}" for path, value in options.items() if value is not None]
        return read_options([*given, *texts], "training.learning_rate=7e-4")

    def found(self, tests: Sequence[Path], progress_for: ProgressFor) -> list[RecordedFrames]:
        """Return test sets; environments among them are played."""
        return [RecordedFrames(self._folder(test, progress_for)) for test in tests]

    def _folder(self, data: Path, progress_for: ProgressFor) -> Path:
        if self.preset not in PLAYED:
            return data
        episodes, options = PLAYED[self.preset]
        options = TRUTH | ({} if "S2RM" in data.name else options)
        options |= {} if self.fps is None else {"fps": self.fps}
        rate = f"-{options['fps']:g}fps" if "fps" in options else ""
        playing = Playing(FRAMED, self.preset + rate, episodes, options=options)
        return find_data(data, playing, self.root, progress_for)


def _processor(models: Sequence[str], folder: Path | None) -> BallsFolder | None:
    """Return the folder of the P inside some models, which all or none of them need."""
    needing = [model for model in models if stage.find_world_model(model).arm]
    if folder is None and needing:
        raise RMRError(
            f"the model {needing[0]} takes its P from a processor: give the folder that `rmr-gym "
            "pretrain` wrote"
        )
    if folder is None:
        return None
    if not needing:
        raise RMRError(f"the model {' and '.join(models)} has no P inside: leave the processor out")
    stage.donor_sizes(BallsFolder(folder).read())
    return BallsFolder(folder)


def _with_processor(model: PlannedModel, pretrained: BallsFolder | None) -> PlannedModel:
    """Return a model with the P of a folder inside, if it has one."""
    arm = model.entry.arm
    if pretrained is None or arm is None:
        return model
    sizes = model.preset.sizes.with_processor(stage.donor_sizes(pretrained.read()))
    donor = given_balls(pretrained) if arm.pretrained else None
    return replace(model, preset=replace(model.preset, sizes=sizes), donor=donor)


@dataclass(frozen=True, kw_only=True)
class WorldExperiment(WorldOptions, Experiment):
    """Options of experiments with world models.

    Attributes:
        tests: Other data sets, or environments, to score on beside the validation episodes of the
            data, for instance with more balls.
    """

    tests: tuple[Path, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """The options that decide what trained models are."""
        return {name: value for name, value in vars(self).items() if name in DECIDING}

    def test_sets(
        self, models: Sequence[PlannedModel], lengths: Sequence[int], progress_for: ProgressFor
    ) -> list[RecordedFrames]:
        """Return the test sets, once it is known that models can be trained and scored.

        Args:
            models: On one data set.
            lengths: Frames of the longest sequence that each is scored on.
            progress_for: Gives progress callbacks by title.

        Raises:
            RMRError: See `check_tests`; or no episode is long enough.
        """
        tests = self.found(self.tests, progress_for)
        check_tests(models, tests)
        for model, frames in zip(models, lengths, strict=True):
            _check_lengths(model, tests, frames)
        return tests

    def world_plan(
        self, rows: list[Rows], models: Sequence[PlannedModel], tests: Mapping[str, Any]
    ) -> Plan:
        """Return the plan of a run, with what run.json says of all of them.

        Args:
            rows: Where the rows of the scores come from.
            models: On one data set.
            tests: What run.json says of each test set.
        """
        data, rows = models[0].data.summary(), [*rows]
        for model, seed in product(models, self.seed_list):
            names = {"model": model.label, "seed": seed}
            rows.append(Rows("world_model_curves", model.trained(seed), names, "validations"))
        facts = {
            "preset": self.preset,
            "models": [model.label for model in models],
            "steps": {model.label: model.preset.training.steps for model in models},
            "data": data,
            "tests": tests,
            "presets": {model.label: as_json(model.preset) for model in models},
        }
        return Plan(rows, facts, {"data": data["fingerprint"]})


def check_tests(models: Sequence[PlannedModel], tests: Sequence[RecordedFrames]) -> None:
    """Make sure that test sets are like the training data, share no episode and have own names.

    Raises:
        RMRError: Frames of another size, another number of actions, a shared episode, or two sets
            of one name.
    """
    require_distinct("test set", [HELD_OUT, *(test.label for test in tests)])
    data = models[0].data
    usual, choices = data.frames
    known = {episode.checksum for episode in data.open().dataset.episodes}
    for test in tests:
        shape, actions = test.frames
        if shape != usual:
            raise RMRError(
                f"expected frames of {usual[0]} x {usual[1]} in {test.label}, as in training, "
                f"found {shape[0]} x {shape[1]}: record it as the training data were, balls with "
                f"resolution={usual[0]}"
            )
        if actions != choices:
            raise RMRError(
                f"expected {choices} actions in {test.label}, as in training, found {actions}: "
                "record it in the world of the training data"
            )
        episodes = [episode.checksum for episode in test.open().dataset.episodes]
        if shared := len(known.intersection(episodes)):
            raise RMRError(
                f"expected test sets that are not trained on, found {test.label}, {shared} of "
                f"whose {len(episodes)} episodes are in the training data: record it with another "
                "--seed, or leave it out, since the validation episodes are scored anyway"
            )


def _check_lengths(model: PlannedModel, tests: Sequence[RecordedFrames], frames: int) -> None:
    """Make sure that some episode is long enough wherever a model is trained or scored."""
    wanted = [("training", model.data, model.preset.training.unroll + 1)]
    wanted += [("validation", model.data, frames), *(("test", test, frames) for test in tests)]
    for part, data, least in wanted:
        longest = data.longest("training" if part == "training" else "validation")
        if longest < least:
            raise RMRError(
                f"expected a {part} episode of {least} frames or more in {data.path}, found at "
                f"most {longest}: record longer episodes or choose a preset of shorter sequences"
            )
