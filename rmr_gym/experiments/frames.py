"""What experiments with world models share: options, checks of data, what run.json says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import tyro

from rmr_gym.core.errors import RMRError
from rmr_gym.core.options import read_options
from rmr_gym.experiments.base import Experiment, Plan, ProgressFor, Rows, require_distinct
from rmr_gym.experiments.worlds import Playing, find_data
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.stages.balls import BallsFolder, given_balls
from rmr_gym.stages.presets import as_json
from rmr_gym.stages.world_model import (
    GROUPS,
    PlannedModel,
    RecordedFrames,
    chosen_preset,
    donor_sizes,
    find_world_model,
    refuse_unknown,
)

DECIDING = ("preset", "steps", "overrides", "groups", "processor")
"""Options that decide what trained models are."""
HELD_OUT = "validation"
"""What the validation episodes of the training data are called among test sets."""
WORLDS = ("rmr/RNEMBalls", "rmr/S2RMBalls")
"""How the ids of environments begin that are played: binary frames of balls."""
TRUTH = {"observe": ["radii", "velocities"]}
PLAYED: dict[str, tuple[int, dict[str, Any]]] = {
    "smoke": (8, {"resolution": 16}),
    "laptop": (1_000, {"resolution": 32}),
    "paper": (50_000, {}),
}
"""Episodes that are played of an environment, and its options, by preset; frames that are seen as
crops keep their size in every preset."""

Overrides = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.arg(name="set", metavar="NAME=VALUE [NAME=VALUE ...]"),
    tyro.conf.UseAppendAction,
]
"""Annotation: the option --set, which may come again."""


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """Options of everything that trains world models.

    Attributes:
        data: Folder of the data set that they are trained on, or an environment that is played
            into ROOT/data where it is not there yet, for instance rmr/RNEMBalls4-v0. Groups and
            collisions are scored where observe=["radii","velocities"] was recorded.
        preset: smoke, laptop or paper: sizes and steps.
        steps: Gradient steps at most; default: the preset's.
        overrides: Options of the preset that are overridden in the models that have them, for
            instance training.learning_rate=7e-4 scoring.cut=0 sizes.rims.active=5.
        root: Folder of data sets and finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """

    data: Path
    preset: str = "laptop"
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
        overrides = self._overrides({GROUPS: groups, "training.steps": self.steps})
        refuse_unknown(models, self.preset, overrides)
        presets = [chosen_preset(model, self.preset, overrides) for model in models]
        pretrained = _processor(models, processor)
        data = RecordedFrames(self._folder(self.data, progress_for), presets[0].validation_share)
        fitted = [chosen_preset(model, self.preset, overrides, data.frames) for model in models]
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
        playing = Playing(WORLDS, self.preset, episodes, options=options)
        return find_data(data, playing, self.root, progress_for)


def _processor(models: Sequence[str], folder: Path | None) -> BallsFolder | None:
    """Return the folder of the P inside some models, which all or none of them need."""
    needing = [model for model in models if find_world_model(model).arm]
    if folder is None and needing:
        raise RMRError(
            f"the model {needing[0]} takes its P from a processor: give the folder that `rmr-gym "
            "pretrain` wrote"
        )
    if folder is None:
        return None
    if not needing:
        raise RMRError(f"the model {' and '.join(models)} has no P inside: leave the processor out")
    donor_sizes(BallsFolder(folder).read())
    return BallsFolder(folder)


def _with_processor(model: PlannedModel, pretrained: BallsFolder | None) -> PlannedModel:
    """Return a model with the P of a folder inside, if it has one."""
    arm = model.entry.arm
    if pretrained is None or arm is None:
        return model
    sizes = model.preset.sizes.with_processor(donor_sizes(pretrained.read()))
    donor = given_balls(pretrained) if arm.pretrained else None
    return replace(model, preset=replace(model.preset, sizes=sizes), donor=donor)


@dataclass(frozen=True, kw_only=True)
class WorldExperiment(WorldOptions, Experiment):
    """Options of experiments with world models.

    Attributes:
        tests: Other data sets, or environments, to score on beside the validation episodes of the
            data, for instance with more balls.
    """

    seeds: int | None = 1
    tests: tuple[Path, ...] = ()

    @property
    def seed_list(self) -> range:
        """The paired seeds."""
        return self.seed_range(1)

    def world_plan(
        self,
        rows: list[Rows],
        models: Sequence[PlannedModel],
        tests: Sequence[RecordedFrames],
        **parts: Any,
    ) -> Plan:
        """Return the plan of a run, with what run.json says of all of them.

        Args:
            rows: Where the rows of the scores come from.
            models: On one data set.
            tests: What they are scored on beside.
            **parts: Fields of `Plan`; ``facts`` are added to those of all.
        """
        seeds, data = self.seed_list, models[0].data.summary()
        validations = [
            Rows("world_model_curves", model.trained(seed), names, "validations")
            for model, seed in product(models, seeds)
            for names in [{"model": model.label, "seed": seed}]
        ]
        facts = {
            "preset": self.preset,
            "models": [model.label for model in models],
            "steps": {model.label: model.preset.training.steps for model in models},
            "seeds": list(seeds),
            "data": data,
            "tests": {test.label: test.summary() for test in tests},
            "presets": {model.label: as_json(model.preset) for model in models},
        } | parts.pop("facts", {})
        config: dict[str, Any] = {"data": data["fingerprint"]}
        for name, value in vars(self).items():
            if name in DECIDING:
                config[name] = str(value) if isinstance(value, Path) else value
        return Plan(rows=[*rows, *validations], config=config, facts=facts, **parts)


def check_tests(models: Sequence[PlannedModel], tests: Sequence[RecordedFrames]) -> None:
    """Make sure that test sets are like the training data, share no episode and have own names.

    Raises:
        RMRError: Frames of another size, another number of actions, a shared episode, or two sets
            of one name.
    """
    names = [HELD_OUT, *(test.label for test in tests)]
    require_distinct("test set", names)
    for test in tests:
        _check_test(models[0].data, test)


def _check_test(data: RecordedFrames, test: RecordedFrames) -> None:
    (usual, choices), (shape, actions) = data.frames, test.frames
    if shape != usual:
        raise RMRError(
            f"expected frames of {usual[0]} x {usual[1]} in {test.label}, as in training, found "
            f"{shape[0]} x {shape[1]}: record it as the training data were, balls with "
            f"resolution={usual[0]}"
        )
    if actions != choices:
        raise RMRError(
            f"expected {choices} actions in {test.label}, as in training, found {actions}: record "
            "it in the world of the training data"
        )
    known, episodes = (
        [episode.checksum for episode in part.open().dataset.episodes] for part in (data, test)
    )
    shared = len({*known} & {*episodes})
    if shared:
        raise RMRError(
            f"expected test sets that are not trained on, found {test.label}, {shared} of whose "
            f"{len(episodes)} episodes are in the training data: record it with another --seed, or "
            "leave it out, since the validation episodes are scored anyway"
        )


def check_lengths(model: PlannedModel, tests: Sequence[RecordedFrames], frames: int) -> None:
    """Make sure that some episode is long enough wherever a model is trained or scored.

    Args:
        model: The model.
        tests: Test sets, beside the validation episodes.
        frames: Of the longest sequence that is scored.

    Raises:
        RMRError: There is none.
    """
    wanted = [("training", model.data, model.preset.training.unroll + 1)]
    wanted += [("validation", model.data, frames), *(("test", test, frames) for test in tests)]
    for part, data, least in wanted:
        longest = data.longest("training" if part == "training" else "validation")
        if longest < least:
            raise RMRError(
                f"expected a {part} episode of {least} frames or more in {data.path}, found at "
                f"most {longest}: record longer episodes or choose a preset of shorter sequences"
            )
