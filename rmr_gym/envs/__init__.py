"""What can be stepped: the paired Atari environments, the table of games, bouncing balls."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from rmr_gym.envs.atari.games import GAMES, Game, find_game
from rmr_gym.envs.balls.config import PRESETS

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
        _register(game.env_id, "atari", "PairedAtari", game=game.name)
    for name, preset in PRESETS.items():
        _register(preset.env_id, "balls", "BouncingBalls", preset.steps, preset=name)


def _register(
    env_id: str, folder: str, stem: str, steps: int | None = None, **arguments: str
) -> None:
    if env_id not in gym.registry:
        gym.register(
            id=env_id,
            entry_point=f"rmr_gym.envs.{folder}.env:{stem}Env",
            vector_entry_point=f"rmr_gym.envs.{folder}.vector:{stem}VectorEnv",
            max_episode_steps=steps,
            kwargs=arguments,
        )


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
