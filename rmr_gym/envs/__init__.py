"""What can be stepped: paired Atari environments, the table of games, balls, battles, trains."""

import gymnasium as gym

from rmr_gym.envs.atari.games import GAMES
from rmr_gym.envs.balls.config import PRESETS


def register_envs() -> None:
    """Register every game, the balls, battles and trains; ``import rmr_gym`` has done it.

    The entry points are strings, so neither ALE nor MuJoCo is imported before an environment is
    made. No ``max_episode_steps`` is registered for the games: the limit is counted in emulated
    frames by ALE itself (108,000 by default: 30 minutes of play, 27,000 steps at frame skip 4) and
    reported as ``truncated``, so that it stays right when the frame skip is changed.
    """
    for game in GAMES.values():
        homes = ("atari.env:PairedAtariEnv", "atari.vector:PairedAtariVectorEnv")
        _register(game.env_id, homes, None, game=game.name)
    for name, preset in PRESETS.items():
        homes = ("balls.env:BouncingBallsEnv", "balls.env:BouncingBallsVectorEnv")
        _register(preset.env_id, homes, preset.steps, preset=name)
    _register("rmr/Battles-v0", ("grids:BattlesEnv", None), 40)
    _register("rmr/Trains-v0", ("grids:TrainsEnv", None), 30)


def _register(
    env_id: str, homes: tuple[str, str | None], steps: int | None, **arguments: str
) -> None:
    if env_id not in gym.registry:
        gym.register(
            id=env_id,
            entry_point=f"rmr_gym.envs.{homes[0]}",
            vector_entry_point=homes[1] and f"rmr_gym.envs.{homes[1]}",
            max_episode_steps=steps,
            kwargs=arguments,
        )
