"""Data sets of world models: a folder, or an environment that is played now."""

from pathlib import Path
from typing import Any

from rmr_gym.commands.console import progress_bars
from rmr_gym.core.errors import RMRError

WORLDS = ("rmr/RNEMBalls", "rmr/S2RMBalls")
"""How the ids of environments begin that are played: binary frames of balls."""
TRUTH = {"observe": ["radii", "velocities"]}
PLAYED: dict[str, tuple[int, dict[str, Any]]] = {
    "smoke": (8, {"resolution": 16}),
    "laptop": (1_000, {"resolution": 32}),
    "paper": (50_000, {}),
}
"""Episodes that are played of an environment, and its options, by preset."""


def find_data(data: Path, preset: str, root: Path) -> Path:
    """Return the folder of a data set.

    Args:
        data: The folder; or the id of an environment, ``rmr/RNEMBalls4-v0`` for instance, which is
            then played, as many episodes as the preset says, into ``ROOT/data``. What is there
            already is not played again. Pictures of crops keep their size in every preset.
        preset: Name of the preset.
        root: Folder of finished stages.

    Raises:
        RMRError: It cannot be recorded, or it is no environment of binary frames of balls.
    """
    import gymnasium as gym  # noqa: PLC0415

    name = data.as_posix()
    if data.exists() or name not in gym.registry or preset not in PLAYED:
        return data
    if not name.startswith(WORLDS):
        raise RMRError(
            f"expected a folder, or an environment whose id begins with {' or '.join(WORLDS)}, got "
            f"{name}: record it with `rmr-gym record` and give the folder"
        )
    from rmr_gym.agents.record import record  # noqa: PLC0415

    episodes, options = PLAYED[preset]
    options = {} if "S2RM" in name else options
    with progress_bars() as progress_for:
        record(
            name,
            folder := root / "data" / f"{data.name}-{preset}",
            episodes=episodes,
            progress=progress_for(f"playing {data.name}"),
            **TRUTH,
            **options,
        )
    return folder
