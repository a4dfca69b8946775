"""What can be stepped: the paired Atari environments, the table of games, bouncing balls."""

from typing import TYPE_CHECKING

import gymnasium as gym

from rmr_gym.core import lazy_names
from rmr_gym.envs.atari.games import GAMES as GAMES
from rmr_gym.envs.atari.games import Game as Game
from rmr_gym.envs.atari.games import find_game as find_game
from rmr_gym.envs.balls.config import PRESETS

if TYPE_CHECKING:
    from rmr_gym.envs.atari.env import PairedAtariEnv as PairedAtariEnv
    from rmr_gym.envs.atari.vector import PairedAtariVectorEnv as PairedAtariVectorEnv
    from rmr_gym.envs.balls.env import BouncingBallsEnv as BouncingBallsEnv
    from rmr_gym.envs.balls.env import BouncingBallsVectorEnv as BouncingBallsVectorEnv

__getattr__ = lazy_names(
    __name__,
    {
        "atari.env": "PairedAtariEnv",
        "atari.vector": "PairedAtariVectorEnv",
        "balls.env": "BouncingBallsEnv BouncingBallsVectorEnv",
    },
)


def register_envs() -> None:
    """Register every game of the table and the bouncing balls; ``import rmr_gym`` has done it.

    The entry points are strings, so neither ALE nor MuJoCo is imported before an environment is
    made. No ``max_episode_steps`` is registered for the games: the limit is counted in emulated
    frames by ALE itself (108,000 by default: 30 minutes of play, 27,000 steps at frame skip 4) and
    reported as ``truncated``, so that it stays right when the frame skip is changed.
    """
    for game in GAMES.values():
        _register(game.env_id, "PairedAtari", game=game.name)
    for name, preset in PRESETS.items():
        _register(preset.env_id, "BouncingBalls", preset.steps, preset=name)


def _register(env_id: str, stem: str, steps: int | None = None, **arguments: str) -> None:
    if env_id not in gym.registry:
        gym.register(
            id=env_id,
            entry_point=f"rmr_gym.envs:{stem}Env",
            vector_entry_point=f"rmr_gym.envs:{stem}VectorEnv",
            max_episode_steps=steps,
            kwargs=arguments,
        )
