"""Which games a command means, and where their data and results lie."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rmr_gym.commands.console import ProgressFor
from rmr_gym.envs.games import GAMES, find_game
from rmr_gym.errors import RMRError

if TYPE_CHECKING:
    from rmr_gym.protocol.config import Preset, Recording
    from rmr_gym.protocol.stages import GameTask


Arithmetic = Literal["fp32", "bf16"]


def worker_count(workers: int | None, device: str) -> int:
    """Return how many processes compute: as asked, else one a core, or one alone with a GPU."""
    if workers is not None:
        return workers
    return (os.cpu_count() or 1) if device == "cpu" else 1


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
    cnn: str = "fp32",
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
        cnn: Arithmetic of the natural runs' convolutions: fp32 or bf16.
        workers: Processes that record side by side.
        progress_for: Gives progress callbacks by title.

    Raises:
        RMRError: An unknown game or device, fewer than one worker, or data of another game.
    """
    from rmr_gym.models.pipeline import find_device  # noqa: PLC0415
    from rmr_gym.protocol.stages import GameTask  # noqa: PLC0415
    from rmr_gym.protocol.store import Store  # noqa: PLC0415

    if workers < 1:
        raise RMRError(f"workers must be 1 or more, got {workers}")
    find_device(device)
    folder, store = data or root / "data", Store(root / "store").root
    names = game_names(games or preset.games)
    paths = [_recorded(name, preset.recording, folder, workers, progress_for) for name in names]
    return [
        GameTask(name, path, store, preset, device, cnn)
        for name, path in zip(names, paths, strict=True)
    ]


def _recorded(
    game: str, recording: "Recording", folder: Path, workers: int, progress_for: ProgressFor
) -> Path:
    from rmr_gym.agents.collect import collect  # noqa: PLC0415

    if (folder / game / "manifest.json").is_file():
        return folder / game
    episodes = recording.train_episodes + recording.validation_episodes
    path = folder / f"{game}-{episodes}x{recording.max_steps}"
    collect(
        game,
        path,
        episodes=episodes,
        max_steps=recording.max_steps,
        heads=recording.heads,
        frameskip=recording.frameskip,
        repeat_action_probability=recording.repeat_action_probability,
        workers=workers,
        progress=progress_for(f"recording {game}"),
    )
    return path
