"""What the commands of world models share: tasks, options of their runs, what they print."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rmr_gym.commands.console import out_console, print_rows
from rmr_gym.commands.tasks import CellRuns, conclude, many_files, read_options
from rmr_gym.commands.world_data import find_data
from rmr_gym.core.errors import RMRError

if TYPE_CHECKING:
    from rmr_gym.protocol.world_models import WorldTask

Settings = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.arg(name="set", metavar="NAME=VALUE [NAME=VALUE ...]"),
    tyro.conf.UseAppendAction,
]
"""Annotation: the option --set of every command that trains by a preset; it may come again."""


@dataclass(frozen=True, kw_only=True)
class WorldRuns(CellRuns):
    """Options of every command that computes a run folder over world models and seeds.

    Attributes:
        data: Folder of the data set that they are trained on, or an environment that is played
            now, for instance rmr/RNEMBalls4-v0.
        preset: Sizes and steps.
        seeds: Number of paired seeds.
        steps: Gradient steps at most; default: the preset's.
        settings: Settings of the preset that are changed, those of sizes as sizes.NAME in the
            models that have them, for instance learning_rate=7e-4 sizes.rims.active=5; run.json
            has those of each model.
    """

    data: Path
    seeds: int = 1
    steps: int | None = None
    settings: Settings = ()

    def run_folder(self, name: str) -> Path:
        """Return the run folder.

        Raises:
            RMRError: It is called like a file.
        """
        return many_files(self.folder(name))

    def tasks(
        self,
        models: Iterable[str],
        groups: int | None = None,
        processor: Path | None = None,
    ) -> "list[WorldTask]":
        """Return a task a model.

        Args:
            models: Which models.
            groups: K in training, for those that have several groups.
            processor: Of those that have a P inside.
        """
        from rmr_gym.protocol.settings import has_setting  # noqa: PLC0415
        from rmr_gym.protocol.world_model_presets import (  # noqa: PLC0415
            find_world_model,
            find_world_preset,
        )

        training, sizes = read_settings(self.settings)
        entries = {model: find_world_model(model) for model in models}
        for model in models:
            find_world_preset(self.preset, model)
        known = [
            {name for name in sizes if has_setting(entry.sizes[self.preset], name)}
            for entry in entries.values()
        ]
        nowhere, made = {*sizes} - set().union(*known), []
        for (model, entry), names in zip(entries.items(), known, strict=True):
            donor, count = (processor if entry.arm else None), (groups if entry.grouped else None)
            own = {name: sizes[name] for name in sizes if name in names | nowhere}
            how = (self.preset, self.root, self.device, donor, self.steps, training, own)
            made.append(_planned(self.data, model, count, *how))
        data = find_data(self.data, self.preset, self.root)
        return [replace(task, data=data) for task in made]

    def found(self, tests: Sequence[Path]) -> list[Path]:
        """Return the folders of test sets; environments among them are played."""
        return [find_data(test, self.preset, self.root) for test in tests]


def make_task(
    data: Path,
    model: str,
    groups: int | None,
    preset: str,
    root: Path,
    device: str,
    processor: Path | None = None,
    steps: int | None = None,
    settings: Settings = (),
) -> "WorldTask":
    """Return the task of some data; an environment is played last.

    Raises:
        RMRError: Something that was asked for cannot be.
    """
    how = (preset, root, device, processor, steps, *read_settings(settings))
    return replace(_planned(data, model, groups, *how), data=find_data(data, preset, root))


def read_settings(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is set of the training, and of the sizes without their prefix.

    Raises:
        RMRError: A setting is not written as it should be, comes twice, or has an option.
    """
    from rmr_gym.protocol.world_models import SIZES  # noqa: PLC0415

    changes = read_options([each for some in settings for each in some], "learning_rate=7e-4")
    for name in ("steps", f"{SIZES}groups", f"{SIZES}processor"):
        if name in changes:
            option = f"--{name.removeprefix(SIZES)}"
            raise RMRError(f"expected {name} to be given as {option}, got --set {name}")
    sizes = {
        name.removeprefix(SIZES): tuple(value) if isinstance(value, list) else value
        for name, value in changes.items()
        if name.startswith(SIZES)
    }
    return {n: value for n, value in changes.items() if not n.startswith(SIZES)}, sizes


def _planned(
    data: Path,
    model: str,
    groups: int | None,
    preset: str,
    root: Path,
    device: str,
    processor: Path | None,
    steps: int | None,
    training: Mapping[str, Any],
    sizes: Mapping[str, Any],
) -> "WorldTask":
    from rmr_gym.models.rmr.pipeline import find_device  # noqa: PLC0415
    from rmr_gym.protocol.settings import altered  # noqa: PLC0415
    from rmr_gym.protocol.store import Store  # noqa: PLC0415
    from rmr_gym.protocol.world_model_presets import find_world_preset  # noqa: PLC0415
    from rmr_gym.protocol.world_models import WorldTask  # noqa: PLC0415
    from rmr_gym.stages.balls import BallsFolder  # noqa: PLC0415

    chosen = altered(find_world_preset(preset, model), training)
    if steps is not None:
        if steps < 1:
            raise RMRError(f"expected --steps of 1 or more, got {steps}: leave it out or raise it")
        chosen = replace(chosen, steps=steps, check_every=min(chosen.check_every, steps))
    find_device(device)
    resized = tuple(sizes.items())
    task = WorldTask(data, root / "store", model, chosen, groups, device, processor, resized)
    if processor is not None:
        BallsFolder(processor).read()
    return replace(task, store=Store(task.store).root)


def print_table(rows: Iterable[Mapping[Any, Any]], shown: Mapping[str, str]) -> None:
    """Print columns of rows under other names; what is None stays empty."""
    readable = [
        {label: "" if row[name] is None else row[name] for name, label in shown.items()}
        for row in rows
    ]
    print_rows(readable, tuple(shown.values()))


def report_run(out: Path, table: str, shown: Mapping[str, str], problems: Sequence[str]) -> None:
    """Print a table of a run folder, write its report and print what it says."""
    import pandas as pd  # noqa: PLC0415

    from rmr_gym.experiments.reports import write_report  # noqa: PLC0415

    scores = pd.read_csv(out / table).convert_dtypes()
    print_table(scores.astype(object).where(scores.notna(), None).to_dict("records"), shown)
    report, said = write_report(out)
    out_console.print(said, markup=False, highlight=False, soft_wrap=True)
    for path in (*sorted(out.glob("*.csv")), report):
        out_console.print(f"written: {path}", markup=False, soft_wrap=True)
    conclude(None, problems)
