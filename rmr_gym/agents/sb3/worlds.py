"""The games as an agent sees them: its features, and rewards that it can learn from."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecTransposeImage

from rmr_gym.agents.sb3.config import BALLS, AgentConfig
from rmr_gym.agents.sb3.vec_env import RMRVecEnv
from rmr_gym.core.errors import RMRError
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder

FRAMES = 4
STATE = ("state", "velocities")
NOOP_MAX = 30

Around = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]


class RamBits(gym.ObservationWrapper[Any, Any, Any]):
    """Shows the bits of the RAM in one row."""

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        self.observation_space = spaces.Box(0, 1, (1024,), np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        """Return the bits, most significant first."""
        return np.unpackbits(observation["ram"])


class BallsState(gym.ObservationWrapper[Any, Any, Any]):
    """Shows positions and velocities of the balls in one row."""

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Dict)
        boxes: list[Any] = [space[name] for name in STATE]
        low, high = (
            np.concatenate([getattr(box, end).reshape(-1) for box in boxes])
            for end in ("low", "high")
        )
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: Any) -> np.ndarray:
        """Return x and y of each ball, then the velocities."""
        return np.concatenate([observation[name].reshape(-1) for name in STATE])


class Picture(gym.ObservationWrapper[Any, Any, Any]):
    """Shows the entry ``pixels`` alone."""

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Dict)
        self.observation_space = env.observation_space["pixels"]

    def observation(self, observation: Any) -> np.ndarray:
        """Return the picture."""
        return observation["pixels"]


class SignOfReward(gym.RewardWrapper[Any, Any]):
    """Rewards the sign of the points, as is usual in Atari games."""

    def reward(self, reward: Any) -> float:
        """Return -1, 0 or 1."""
        return float(np.sign(reward))


def make_games(
    config: AgentConfig, *, copies: int, learning: bool, around: Around | None = None
) -> VecEnv:
    """Return games that show an agent its features.

    An encoder of another game is an error; one of another world of balls, a warning.

    Args:
        config: Game and features.
        copies: Number of games.
        learning: Reward signs of points in Atari games; else the points.
        around: Put around each game, inside of what makes the features.

    Raises:
        RMRError: The encoder cannot be read, or was not made by the arm that the features name.
    """
    games = DummyVecEnv([partial(_game, config, learning, around)] * copies)
    if config.features in ("ram", "state"):
        return games
    if config.features == "cnn" and config.game == BALLS:
        return VecFrameStack(VecTransposeImage(games), FRAMES)
    if config.features == "cnn":
        sizes = EncoderConfig(config.game)
        frames = PretrainedEncoder(sizes, sizes.encoder())
        return RMRVecEnv(games, frames, output="frames", history=FRAMES)
    shown = "frames" if config.encodes_inside else "flat"
    return RMRVecEnv(games, encoder_of(config), shown, strict=config.game != BALLS)


def encoder_of(config: AgentConfig) -> PretrainedEncoder:
    """Return the encoder of a configuration that has one.

    Raises:
        RMRError: It cannot be read, or was not made by the arm that the features name.
    """
    assert config.encoder is not None
    encoder = PretrainedEncoder.from_pretrained(config.encoder)
    made_by = encoder.provenance.get("training", {}).get("arm")
    if made_by != config.features:
        raise RMRError(
            f"expected an encoder of the arm {config.features!r}, found one of {made_by!r} in "
            f"{config.encoder}: name the features after it, or export another"
        )
    return encoder


def _game(config: AgentConfig, learning: bool, around: Around | None) -> gym.Env[Any, Any]:
    balls = config.game == BALLS
    options: dict[str, Any] = {} if balls else {"noop_max": NOOP_MAX}
    env: Any = gym.make(config.env_id, render_mode="rgb_array", **options)
    env = TimeLimit(env, config.max_steps)
    if around is not None:
        env = around(env)
    if learning and not balls:
        env = SignOfReward(env)
    shows = {"ram": RamBits, "state": BallsState}
    if balls:
        shows["cnn"] = Picture
    return shows[config.features](env) if config.features in shows else env
