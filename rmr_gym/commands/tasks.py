"""Which games a command means, where their data and results lie, and how its runs compute."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from rmr_gym.commands.console import ProgressFor, err_console, out_console
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.games import GAMES, find_game

if TYPE_CHECKING:
    from rmr_gym.protocol.computing import Computing
    from rmr_gym.protocol.config import Preset, Recording
    from rmr_gym.protocol.stages import GameTask


Arithmetic = Literal["fp32", "bf16"]
_FILES = (".csv", ".gif", ".html", ".json", ".png")
Flat = tyro.conf.OmitArgPrefixes
"""Annotation: the fields of these options are options of the command."""


@dataclass(frozen=True)
class CellRuns:
    """Options of every command that computes a run folder cell by cell.

    Attributes:
        preset: Sizes, steps, checkpoints, probes and the number of seeds.
        seeds: Number of paired seeds; None: the preset's.
        out: Run folder; default: one under ROOT, named after preset and command.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        workers: Processes that work side by side; default: one a core, 1 with a GPU.
        scheduler: Address of a Dask cluster that runs the cells instead, for instance
            tcp://host:8786; it must see all folders under the same paths.
    """

    preset: Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")] = "laptop"
    seeds: int | None = None
    out: Path | None = None
    root: Path = Path("runs")
    device: str = "cpu"
    workers: int | None = None
    scheduler: str | None = None

    @property
    def worker_count(self) -> int:
        """How many processes compute: as asked, else one a core, or one alone with a GPU."""
        if self.workers is not None:
            return self.workers
        return (os.cpu_count() or 1) if self.device == "cpu" else 1

    def seed_range(self, default: int) -> range:
        """Return the seeds.

        Raises:
            RMRError: None was asked for.
        """
        if self.seeds is not None and self.seeds < 1:
            raise RMRError(f"seeds must be 1 or more, got {self.seeds}")
        return range(self.seeds or default)

    def folder(self, *names: str) -> Path:
        """Return the run folder, by default named after the preset and what is given."""
        return self.out or self.root / "-".join([self.preset, *names])

    def computing(self, progress_for: ProgressFor) -> "Computing":
        """Return how the function behind a command is to compute."""
        return computing(self.worker_count, progress_for, self.scheduler)


@dataclass(frozen=True)
class Runs(CellRuns):
    """Options of every command that computes a table over games and seeds.

    Attributes:
        data: Folder of data sets, called GAME or GAME-EPISODESxSTEPS; default: ROOT/data. What is
            not there is recorded.
    """

    data: Path | None = None

    def chosen(self, objective: str | None = None) -> "Preset":
        """Return the preset, under another objective where one is given."""
        from rmr_gym.protocol.config import find_preset  # noqa: PLC0415

        return find_preset(self.preset).with_objective(objective)

    def tasks(
        self, games: Sequence[str], preset: "Preset", progress_for: ProgressFor
    ) -> "list[GameTask]":
        """Return a task a game; see `game_tasks`."""
        return game_tasks(
            *(games, preset, self.root),
            data=self.data,
            device=self.device,
            workers=self.worker_count,
            progress_for=progress_for,
        )


@dataclass(frozen=True)
class StackedRuns(Runs):
    """Options of commands whose trainings can run as one model.

    Attributes:
        stack: Trainings that run as one model; default: 40 on a GPU, 1 elsewhere.
    """

    stack: int | None = None

    def computing(self, progress_for: ProgressFor) -> "Computing":
        """Return how the function behind a command is to compute."""
        return replace(super().computing(progress_for), stack=self.stack)


@dataclass(frozen=True)
class NaturalRuns(StackedRuns):
    """Options of commands that train pixel encoders.

    Attributes:
        cnn: Arithmetic of the natural runs' convolutions: fp32, or bf16 with channels last.
    """

    cnn: Arithmetic = "fp32"

    def tasks(
        self, games: Sequence[str], preset: "Preset", progress_for: ProgressFor
    ) -> "list[GameTask]":
        """Return a task a game; see `game_tasks`."""
        return [replace(task, cnn=self.cnn) for task in super().tasks(games, preset, progress_for)]


def computing(workers: int, progress_for: ProgressFor, scheduler: str | None = None) -> "Computing":
    """Return how the command that was typed is to compute."""
    from rmr_gym.protocol.computing import Computing  # noqa: PLC0415

    command = shlex.join(["rmr-gym", *sys.argv[1:]])
    return Computing(command, workers, scheduler, progress_for=progress_for)


def many_files(out: Path) -> Path:
    """Return a folder for several files.

    Raises:
        RMRError: It is called like a file.
    """
    if out.suffix in _FILES:
        raise RMRError(
            f"expected a folder for --out, which holds several files, got {out}: leave "
            f"{out.suffix} out"
        )
    return out


def conclude(out: Path | None, problems: Sequence[str]) -> None:
    """Print where the results are, and what went wrong."""
    if out is not None:
        out_console.print(f"written: {out}", markup=False, soft_wrap=True)
    for problem in problems:
        err_console.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)


def game_names(games: Sequence[str]) -> list[str]:
    """Return the names that were meant, "all" being the paper's 24.

    Raises:
        RMRError: An unknown game, or one named twice.
    """
    if tuple(games) == ("all",):
        return list(GAMES)
    names = [find_game(game).name for game in games]
    if len(set(names)) != len(names):
        raise RMRError(f"each game may be named once, got {', '.join(names)}")
    return names


def game_tasks(
    games: Sequence[str],
    preset: "Preset",
    root: Path,
    *,
    data: Path | None,
    device: str,
    workers: int,
    progress_for: ProgressFor,
) -> "list[GameTask]":
    """Return a task a game; data sets that are not there are recorded.

    Args:
        games: Names of games, or "all"; none: the preset's.
        preset: Sizes, and how data are recorded.
        root: Folder of finished stages.
        data: Folder of data sets, called GAME or GAME-EPISODESxSTEPS; None: ``root/data``.
        device: Where to compute.
        workers: Processes that record side by side.
        progress_for: Gives progress callbacks by title.

    Raises:
        RMRError: An unknown game or device, fewer than one worker, or data of another game.
    """
    from rmr_gym.models.rmr.pipeline import find_device  # noqa: PLC0415
    from rmr_gym.protocol.stages import GameTask  # noqa: PLC0415
    from rmr_gym.protocol.store import Store  # noqa: PLC0415

    if workers < 1:
        raise RMRError(f"workers must be 1 or more, got {workers}")
    find_device(device)
    folder, store = data or root / "data", Store(root / "store").root
    names = game_names(games or preset.games)
    paths = [_recorded(name, preset.recording, folder, workers, progress_for) for name in names]
    return [
        GameTask(name, path, store, preset, device) for name, path in zip(names, paths, strict=True)
    ]


def _recorded(
    game: str, recording: "Recording", folder: Path, workers: int, progress_for: ProgressFor
) -> Path:
    from rmr_gym.agents.record import record  # noqa: PLC0415

    if (folder / game / "manifest.json").is_file():
        return folder / game
    episodes = recording.train_episodes + recording.validation_episodes
    path = folder / f"{game}-{episodes}x{recording.max_steps}"
    record(
        game,
        path,
        episodes=episodes,
        max_steps=recording.max_steps,
        players=recording.heads,
        frameskip=recording.frameskip,
        repeat_action_probability=recording.repeat_action_probability,
        workers=workers,
        progress=progress_for(f"recording {game}"),
    )
    return path


def read_options(texts: Sequence[str], instance: str) -> dict[str, Any]:
    """Return the values of options ``name=value`` by name, as JSON or, failing that, as text.

    Args:
        texts: The options; parts of a name may be separated by dots.
        instance: One as it should be, for the error.

    Raises:
        RMRError: One is written otherwise, or comes twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in found or not all(map(str.isidentifier, name.split("."))):
            raise RMRError(
                f"expected each option once, as name=value, for instance {instance}, found {text!r}"
            )
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
