"""What an agent is trained on: a world, what it sees of it, and how it learns."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.envs.atari.games import GAMES, find_game
from rmr_gym.protocol.balls_encoder import UNTRAINED
from rmr_gym.protocol.balls_natural import BALLS_ARMS

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
        if self.features not in FEATURES:
            raise unknown_name("features", self.features, FEATURES)
        if self.algorithm not in ALGORITHMS:
            raise unknown_name("algorithm", self.algorithm, ALGORITHMS)
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
        """Return what decides results; an encoder counts by its weights and not by its path."""
        return {name: value for name, value in asdict(self).items() if name != "encoder"}

    @property
    def label(self) -> str:
        """What it is called in titles."""
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
    letters = re.sub(r"[^a-z]", "", name.casefold())
    if letters in ("pushedballs", "rmrpushedballsv", "balls"):
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
