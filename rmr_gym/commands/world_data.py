"""How environments are played that are named in place of data sets of world models."""

from pathlib import Path
from typing import Any

from rmr_gym.commands.console import progress_bars

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
    """Return the folder of a data set, see `rmr_gym.experiments.worlds.find_data`.

    As many episodes are played as the preset says; pictures of crops keep their size in every
    preset.
    """
    from rmr_gym.experiments.worlds import Playing  # noqa: PLC0415
    from rmr_gym.experiments.worlds import find_data as found  # noqa: PLC0415

    if preset not in PLAYED:
        return data
    episodes, options = PLAYED[preset]
    options = TRUTH | ({} if "S2RM" in data.name else options)
    with progress_bars() as progress_for:
        return found(data, Playing(WORLDS, preset, episodes, options=options), root, progress_for)
