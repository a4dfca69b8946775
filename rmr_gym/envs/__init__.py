"""What can be stepped: the paired Atari environments and the table of games."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from rmr_gym.envs.games import GAMES, Game, find_game

if TYPE_CHECKING:
    from rmr_gym.envs.atari import PairedAtariEnv

__all__ = ["GAMES", "Game", "PairedAtariEnv", "find_game", "register_envs"]

_LAZY = {"PairedAtariEnv": "rmr_gym.envs.atari"}


def register_envs() -> None:
    """Register ``rmr/<Game>-v0`` for every game of the table; ``import rmr_gym`` has done it.

    The entry points are strings, so ALE is not imported before an environment is made. No
    ``max_episode_steps`` is registered: the limit is counted in emulated frames by ALE itself
    (108,000 by default: 30 minutes of play, 27,000 steps at frame skip 4) and reported as
    ``truncated``, so that it stays right when the frame skip is changed.
    """
    for game in GAMES.values():
        if game.env_id not in gym.registry:
            gym.register(
                id=game.env_id,
                entry_point="rmr_gym.envs.atari:PairedAtariEnv",
                kwargs={"game": game.name},
            )


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
