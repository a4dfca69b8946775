"""What an agent is trained on: a world, what it sees of it, and rewards that it can learn from."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import (
    FilterObservation,
    FlattenObservation,
    TimeLimit,
    TransformObservation,
    TransformReward,
)
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecTransposeImage

from rmr_gym.agents.sb3.vec_env import RMRVecEnv
from rmr_gym.core.errors import RMRError, known_name, letters, unknown_name
from rmr_gym.envs.atari.games import GAMES, find_game
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
from rmr_gym.stages.balls import BALLS_ARMS
from rmr_gym.stages.chain import UNTRAINED

FRAMES = 4
STATE = ("state", "velocities")
NOOP_MAX = 30

Around = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]

BALLS, BALLS_ID = "PushedBalls", "rmr/PushedBalls-v0"

REPLAYING = ("dqn", "qrdqn")
"""Algorithms that learn from a replay buffer."""

ALGORITHMS = ("ppo", "recurrent_ppo", "rims_ppo", *REPLAYING)

_OF_GAMES = ("rmr", "cswm", "random_p", "shuffled_p", "no_p", "untrained", "supervised")
_OF_BALLS = (*BALLS_ARMS, UNTRAINED)
ENCODED = tuple(dict.fromkeys((*_OF_GAMES, *_OF_BALLS)))
"""Features of a frozen encoder, by the arm that made it."""

FEATURES = (*ENCODED, "cnn", "ram", "state")


@dataclass(frozen=True)
class AgentConfig:
    """What fixes the training of an agent, but for its length.

    Attributes:
        game: Name of the game, or "PushedBalls".
        features: Arm of the encoder whose frozen slots the agent sees; "cnn" for SB3's NatureCNN on
            the last 4 frames; "ram" for RAM bits (games); "state" for positions and velocities of
            all balls.
        algorithm: In `ALGORITHMS`.
        encoder: Folder or shipped name of the encoder; None with "cnn", "ram" and "state".
        seed: Of training.
        copies: Environments that are played side by side.
        max_steps: Steps after which an episode is cut.

    Raises:
        RMRError: Unknown names, or features that do not fit the game or the encoder.
    """

    game: str
    features: str = "rmr"
    algorithm: str = "ppo"
    encoder: str | None = None
    seed: int = 0
    copies: int = 8
    max_steps: int = 4500

    def __post_init__(self) -> None:
        known_name("features", self.features, FEATURES)
        known_name("algorithm", self.algorithm, ALGORITHMS)
        if min(self.copies, self.max_steps) < 1:
            raise RMRError(f"expected 1 or more copies and max_steps, found {self}")
        if self.features not in (possible := features_of(self.game)):
            raise RMRError(
                f"expected features of {self.game} among {', '.join(possible)}, found "
                f"{self.features!r}"
            )
        if (self.encoder is None) == (self.features in ENCODED):
            raise RMRError(
                "expected an encoder with features that an arm's encoder makes, and none with cnn, "
                f"ram and state, found features {self.features!r} with encoder {self.encoder!r}"
            )

    def key(self) -> dict[str, Any]:
        """Return what counts of it in keys: an encoder does by its weights, not by its path."""
        return {name: value for name, value in asdict(self).items() if name != "encoder"}

    @property
    def label(self) -> str:
        """What it is called in titles of tasks."""
        return f"{self.game} {self.features} {self.algorithm} {self.seed}"

    @property
    def encodes_inside(self) -> bool:
        """Whether the encoder is inside of the agent, so that its replay buffer holds bytes."""
        return self.features in ENCODED and self.algorithm in REPLAYING

    @property
    def env_id(self) -> str:
        """Id of the environment."""
        return BALLS_ID if self.game == BALLS else find_game(self.game).env_id


def features_of(game: str) -> tuple[str, ...]:
    """Return the features that there are of a game, or of the pushed balls."""
    return (*_OF_BALLS, "cnn", "state") if game == BALLS else (*_OF_GAMES, "cnn", "ram")


def find_world(name: str) -> str:
    """Return the name of a game, or of the pushed balls, in any spelling.

    Raises:
        RMRError: There is none of the name.
    """
    if letters(name) in ("pushedballs", "rmrpushedballsv0", "balls"):
        return BALLS
    try:
        return find_game(name).name
    except RMRError as error:
        raise unknown_name("game", name, (*GAMES, BALLS)) from error


def read_config(folder: Path) -> AgentConfig:
    """Return the configuration of the agents in a folder.

    Raises:
        RMRError: It holds none.
    """
    path = folder / "config.json"
    try:
        return AgentConfig(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RMRError(
            f"expected the folder of an agent, found none in {folder} ({error}): train one with "
            "`rmr-gym agent train`"
        ) from error


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
        env = TransformReward(env, lambda points: float(np.sign(float(points))))
    shown = {"ram": _ram_bits, "state": _balls_state}
    if balls:
        shown["cnn"] = _picture
    return shown[config.features](env) if config.features in shown else env


def _ram_bits(env: Any) -> gym.Env[Any, Any]:
    """Show the bits of the RAM in one row, most significant first."""
    bits = spaces.Box(0, 1, (1024,), np.uint8)
    return TransformObservation(env, lambda seen: np.unpackbits(seen["ram"]), bits)


def _balls_state(env: Any) -> gym.Env[Any, Any]:
    """Show x and y of each ball, then the velocities, in one row."""
    return FlattenObservation(FilterObservation(env, STATE))


def _picture(env: Any) -> gym.Env[Any, Any]:
    """Show the entry ``pixels`` alone."""
    return TransformObservation(env, itemgetter("pixels"), env.observation_space["pixels"])
