"""What can be stepped: the paired Atari environments, the table of games, bouncing balls."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from rmr_gym.envs.atari.games import GAMES, Game, find_game
from rmr_gym.envs.balls.presets import register_balls

if TYPE_CHECKING:
    from rmr_gym.envs.atari.env import PairedAtariEnv
    from rmr_gym.envs.atari.vector import PairedAtariVectorEnv
    from rmr_gym.envs.balls.env import BouncingBallsEnv
    from rmr_gym.envs.balls.vector import BouncingBallsVectorEnv

__all__ = [
    "GAMES",
    "BouncingBallsEnv",
    "BouncingBallsVectorEnv",
    "Game",
    "PairedAtariEnv",
    "PairedAtariVectorEnv",
    "find_game",
    "register_envs",
]

_LAZY = {
    "BouncingBallsEnv": "rmr_gym.envs.balls.env",
    "BouncingBallsVectorEnv": "rmr_gym.envs.balls.vector",
    "PairedAtariEnv": "rmr_gym.envs.atari.env",
    "PairedAtariVectorEnv": "rmr_gym.envs.atari.vector",
}


def register_envs() -> None:
    """Register every game of the table and the bouncing balls; ``import rmr_gym`` has done it.

    The entry points are strings, so neither ALE nor MuJoCo is imported before an environment is
    made. No ``max_episode_steps`` is registered for the games: the limit is counted in emulated
    frames by ALE itself (108,000 by default: 30 minutes of play, 27,000 steps at frame skip 4) and
    reported as ``truncated``, so that it stays right when the frame skip is changed.
    """
    for game in GAMES.values():
        if game.env_id not in gym.registry:
            gym.register(
                id=game.env_id,
                entry_point="rmr_gym.envs.atari.env:PairedAtariEnv",
                vector_entry_point="rmr_gym.envs.atari.vector:PairedAtariVectorEnv",
                kwargs={"game": game.name},
            )
    register_balls()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
