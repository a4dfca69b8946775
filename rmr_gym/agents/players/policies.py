"""The trained policies of each game: where their weights lie, and what they score."""

import csv
import hashlib
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

from rmr_gym.agents.players.heads import SKILLS
from rmr_gym.agents.players.ram_network import RamNetwork, load_networks
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.games import find_game

SHIPPED = Path(str(files("rmr_gym.agents.players") / "weights"))
"""Folder of the weights and returns that come with the package."""


@lru_cache(maxsize=4)
def networks(game: str, folder: Path = SHIPPED) -> dict[str, RamNetwork]:
    """Return a game's network of each skill: low, middle, high.

    Raises:
        RMRError: The folder holds no weights of the game, or not of every skill.
    """
    path = weights_path(game, folder)
    found, _ = load_networks(path)
    if set(found) != set(SKILLS):
        raise RMRError(f"expected networks of skill {SKILLS} in {path}, found {sorted(found)}")
    return found


def weights_path(game: str, folder: Path = SHIPPED) -> Path:
    """Return the file of a game's weights.

    Raises:
        RMRError: There is none.
    """
    path = folder / f"{find_game(game).name}.safetensors"
    if not path.is_file():
        raise RMRError(
            f"no trained policies of {find_game(game).name} in {folder}: train them with "
            f"`rmr-gym policies train {find_game(game).name}`, or record with --players unskilled"
        )
    return path


def weights_sha256(game: str, folder: Path = SHIPPED) -> str:
    """Return the sha256 of the file of a game's weights, in hex."""
    return hashlib.sha256(weights_path(game, folder).read_bytes()).hexdigest()


class Reference(NamedTuple):
    """Scores of a game that others measured; see `REFERENCE_SOURCE`."""

    random: float
    human: float


REFERENCE_SOURCE = "Wang et al. (2016), as tabulated for Agent57 by Badia et al. (2020)"


def references() -> dict[str, Reference]:
    """Return the published scores of random play and of a human tester, by game."""
    with as_file(files("rmr_gym.agents.players") / "weights" / "references.csv") as path:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    return {row["game"]: Reference(float(row["random"]), float(row["human"])) for row in rows}


def shipped_returns() -> list[dict[str, str]]:
    """Return the measured returns of the shipped heads, a row a game and head."""
    path = SHIPPED / "returns.csv"
    if not path.is_file():
        raise RMRError(f"no returns in {path}: measure them with `rmr-gym policies evaluate`")
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
