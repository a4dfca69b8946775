"""What an agent is trained on: a world, RMR features or others of it, rewards to learn from."""

import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces, wrappers
from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common import vec_env
from stable_baselines3.common.atari_wrappers import ClipRewardEnv, NoopResetEnv
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from rmr_gym.agents.players.graded import game_id, game_name, game_options
from rmr_gym.core.errors import RMRError, known_name, letters, unknown_name, whole_number
from rmr_gym.core.seeding import check_seed
from rmr_gym.envs.atari.games import GAMES
from rmr_gym.envs.balls.physics import load_mujoco
from rmr_gym.models import pretrained
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder, find_shipped
from rmr_gym.stages.balls import BALLS_ARMS
from rmr_gym.stages.chain import ENCODERS, REFERENCES, UNTRAINED
from rmr_gym.wrappers import describe
from rmr_gym.wrappers.describe import AnyEnv
from rmr_gym.wrappers.features import BeliefOptions, Given, Options, stream_of
from rmr_gym.wrappers.views import PairedObservation

FRAMES = 4
FORMAT: dict[str, Any] = {"format": "rmr_gym agent", "version": 1}
"""How the configuration of an agent begins."""

Around = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]

BALLS, CHEETAH = "PushedBalls", "HalfCheetah-v5"

RANGES = np.array([1.0] * 8 + [0.1] * 9)
"""The half-cheetah's positions and velocities are multiplied by these, in training its reward by
the last, so that all are about as large as 1."""

GRIDS = (
    "BabyAI-GoToRedBallGrey-v0",
    "BabyAI-GoToRedBall-v0",
    "BabyAI-OneRoomS8-v0",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-MultiRoom-N2-S4-v0",
)
"""Worlds of MiniGrid whose mission is always the same, so that no agent has to read it."""

MOST_DISTRACTORS = 12
"""More leave something unreachable in nearly every room of 6 x 6 that is drawn."""

_PPO = {"n_steps": 128, "batch_size": 256, "n_epochs": 4, "ent_coef": 0.01}
_DQN = {"buffer_size": 20_000, "learning_starts": 1_000, "target_update_interval": 1_000}
ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ppo": (PPO, _PPO),
    "recurrent_ppo": (RecurrentPPO, _PPO),
    "rims_ppo": (RecurrentPPO, _PPO),
    "dqn": (DQN, _DQN),
    "qrdqn": (QRDQN, _DQN | {"exploration_fraction": 0.1}),
}
"""Algorithms with what they are made with beside SB3's defaults."""

BELIEF = "belief"
SLOTS = tuple(dict.fromkeys((*ENCODERS, *BALLS_ARMS)))
"""Features of a frozen encoder, by the arm that made it."""
ENCODED = (*SLOTS, BELIEF)
"""Features that need an artifact."""

FEATURES = (*ENCODED, "cnn", "ram", "state", "view")


def find_shipped_arm(world: str, arm: str) -> str | None:
    """Return the name of the artifact of an arm that comes with the package; None: none does."""
    encoder = "rmr_aligned" if world == BALLS else "rmr"
    shipped = find_shipped({encoder: world, BELIEF: f"{world}_{BELIEF}"}.get(arm, ""))
    return shipped and shipped.name


@dataclass(frozen=True)
class AgentConfig:
    """What fixes the training of an agent, but for its length.

    Attributes:
        game: Name of the game, for instance Pong or any other of ALE's; PushedBalls; HalfCheetah-v5
            of Gymnasium; or a world of MiniGrid, for instance BabyAI-GoToRedBallN3-v0, with 3
            distractors.
        features: What the agent sees: frozen slots of an encoder, by the arm that made it (rmr,
            cswm, random_p, shuffled_p, no_p, untrained, supervised), or with P what it makes of
            them (rmr_processed), or slots and what it makes of them if each action is held for some
            steps (rmr_ahead1, rmr_ahead4; at most 16); of games, a belief over RAM as
            probabilities of its bits (belief), as slots (belief_latents), or what it would read of
            the last frames without memory (belief_evidence); cnn (SB3's NatureCNN on the last 4
            frames, end to end); ram (its bits); of balls and of the half-cheetah, state
            (positions and velocities); of MiniGrid, view (the 7 x 7 cells ahead, one-hot).
        algorithm: ppo, recurrent_ppo (with an LSTM), rims_ppo (with RIMs), dqn or qrdqn; the
            half-cheetah, whose actions are torques, needs one of the first three.
        encoder: Folder or shipped name of the encoder, or of the belief; none with cnn, ram, state
            and view; default with rmr, of balls rmr_aligned, and with belief: the shipped one.
        seed: Of training.
        copies: Games that are played side by side.
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
        object.__setattr__(self, "game", find_world(self.game))
        check_seed(self.seed)
        known_name(f"features of {self.game}", self.arm, features_of(self.game))
        playable = [name for name in ALGORITHMS if self.game != CHEETAH or name.endswith("ppo")]
        known_name(f"algorithm for {self.game}", self.algorithm, playable)
        whole_number("copies", self.copies, 1)
        whole_number("max_steps", self.max_steps, 1)
        if self.encoder is None:
            object.__setattr__(self, "encoder", find_shipped_arm(self.game, self.arm))
        if self.encoder is None and self.arm in ENCODED:
            made = (
                "train --data DATA" if self.arm != BELIEF else f"encoder train --game {self.game}"
            )
            raise RMRError(
                f"expected an encoder with features {self.features!r}, found none, and none of "
                f"{self.game} is shipped: write one with `rmr-gym {made} --arm {self.arm}` and "
                "name its folder"
            )
        if self.encoder is not None and self.arm not in ENCODED:
            raise RMRError(
                f"expected no encoder with features {self.features!r}, found {self.encoder!r}: "
                "cnn, ram, state and view need none"
            )

    @property
    def arm(self) -> str:
        """The features without what P makes of them."""
        return parted(self.features)[0]

    def key(self) -> dict[str, Any]:
        """Return what counts of it in keys: an encoder does by its weights, not by its path."""
        return {name: value for name, value in asdict(self).items() if name != "encoder"}

    @property
    def label(self) -> str:
        """What it is called in titles of tasks."""
        return f"{self.game} {self.features} {self.algorithm} {self.seed}"

    @property
    def encodes_inside(self) -> bool:
        """Whether the encoder alone is inside of the agent, and a replay buffer holds bytes."""
        replays = issubclass(ALGORITHMS[self.algorithm][0], OffPolicyAlgorithm)
        return self.features in SLOTS and replays


def parted(features: str) -> tuple[str, Options]:
    """Return features without what P makes of them, and what is to be shown of their encoder.

    Raises:
        RMRError: Their arm has no P, or looks too far ahead.
    """
    if told := re.fullmatch(rf"{BELIEF}(?:_(latents|evidence))?", features):
        return BELIEF, BeliefOptions(told[1] or "bits")
    named = re.fullmatch(r"(.+)_(?:(processed)|ahead(\d+))", features)
    if named is None:
        return features, Options("flat")
    arm = known_name("arm with P", named[1], [name for name in SLOTS if name not in REFERENCES])
    return arm, Options("processed") if named[2] else Options("lookahead", ahead=int(named[3]))


def features_of(game: str) -> tuple[str, ...]:
    """Return the features that there are of a world, for reference the last."""
    if game == CHEETAH:
        return ("state",)
    if is_grid(game):
        return ("view",)
    if game == BALLS:
        return (*BALLS_ARMS, UNTRAINED, "cnn", "state")
    return (*ENCODERS, BELIEF, "cnn", "ram")


def is_grid(name: str) -> bool:
    """Tell whether a world is one of MiniGrid."""
    return name.startswith(("BabyAI-", "MiniGrid-"))


def grid_options(name: str) -> tuple[str, dict[str, Any]]:
    """Return id and options of a world of MiniGrid: N3 at the end means 3 distractors.

    Raises:
        RMRError: MiniGrid is missing, there is no such world, or so many distractors do not fit.
    """
    numbered = re.fullmatch(r"(BabyAI-GoToRedBall(?:Grey)?)N(-?\d+)(-v0)", name)
    env_id = numbered[1] + numbered[3] if numbered else name
    known_name("world of MiniGrid with a mission that never changes", env_id, GRIDS)
    number = int(numbered[2]) if numbered else 0
    if not 0 <= number <= MOST_DISTRACTORS:
        raise RMRError(f"expected 0 to {MOST_DISTRACTORS} distractors, found {number} in {name}")
    if find_spec("minigrid") is None:
        raise RMRError(
            f"expected MiniGrid, of which {name} is a world, found that it is not installed: "
            'install it with `pip install "rmr-gym[minigrid]"`'
        )
    return env_id, {"num_dists": number} if numbered else {}


def find_world(name: str) -> str:
    """Return the name of a game, pushed balls or half-cheetah, in any spelling, or of a MiniGrid.

    Raises:
        RMRError: There is none of the name.
    """
    if is_grid(name):
        grid_options(name)
        return name
    if letters(name) in ("pushedballs", "rmrpushedballsv0", "balls"):
        return BALLS
    if letters(name) == letters(CHEETAH):
        return CHEETAH
    try:
        return game_name(name)
    except RMRError as error:
        raise unknown_name("game", name, (*GAMES, BALLS, CHEETAH, *GRIDS)) from error


def read_config(folder: Path) -> AgentConfig:
    """Return the configuration of the agents in a folder.

    Raises:
        RMRError: It holds none, or one of another version.
    """
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if (kind := {name: record.get(name) for name in FORMAT}) != FORMAT:
            raise RMRError(f"this rmr-gym reads {FORMAT}, it holds {kind}")
        return AgentConfig(**record["config"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
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
        learning: Reward signs of points in Atari games; else the points. In MiniGrid success is
            always 1 point.
        around: Put around each game, inside of what makes the features.

    Raises:
        RMRError: The encoder cannot be read, or was not made by the arm that the features name.
    """
    games = vec_env.DummyVecEnv([partial(_game, config, learning, around)] * copies)
    if config.features in ("ram", "state", "view"):
        return games
    if config.features == "cnn" and config.game == BALLS:
        return vec_env.VecFrameStack(vec_env.VecTransposeImage(games), FRAMES)
    if config.features == "cnn":
        sizes = EncoderConfig(config.game)
        frames = PretrainedEncoder(sizes, sizes.encoder())
        return RMRVecEnv(games, frames, output="frames", history=FRAMES)
    shown = Options("frames") if config.encodes_inside else parted(config.features)[1]
    options: dict[str, Any] = asdict(shown) | {"strict": config.game != BALLS}
    kind = RMRVecBelief if config.arm == BELIEF else RMRVecEnv
    return kind(games, encoder_of(config), **options)


def encoder_of(config: AgentConfig) -> PretrainedEncoder:
    """Return the encoder of a configuration that has one.

    Raises:
        RMRError: It cannot be read, or was not made by the arm that the features name.
    """
    assert config.encoder is not None
    encoder = PretrainedEncoder.from_pretrained(config.encoder)
    made_by = encoder.provenance.get("training", {}).get("arm")
    if made_by != config.arm:
        raise RMRError(
            f"expected an encoder of the arm {config.arm!r}, found one of {made_by!r} in "
            f"{config.encoder}: name the features after it, or export another"
        )
    return encoder


def weights_of(config: AgentConfig) -> str | None:
    """Return the hash of an encoder's weights, once it is known to fit; None without one."""
    if config.encoder is None:
        return None
    encoder_of(config)
    return pretrained.read_record(pretrained.find_artifact(config.encoder))["weights_sha256"]


def _game(config: AgentConfig, learning: bool, around: Around | None) -> gym.Env[Any, Any]:
    balls = config.game == BALLS
    env: Any = wrappers.TimeLimit(_made(config.game), config.max_steps)
    if around is not None:
        env = around(env)
    if config.features == "view":
        return wrappers.FlattenObservation(ClipRewardEnv(env))
    if config.game == CHEETAH:
        env = wrappers.TransformObservation(env, lambda state: RANGES * state, None)
        return wrappers.TransformReward(env, lambda r: RANGES[-1] * r) if learning else env
    if learning and not balls:
        env = ClipRewardEnv(env)
    if config.features == "ram":
        bits = spaces.Box(0, 1, (1024,), np.uint8)  # most significant first
        return wrappers.TransformObservation(env, lambda shown: np.unpackbits(shown["ram"]), bits)
    if config.features == "state":
        return wrappers.FlattenObservation(wrappers.FilterObservation(env, ("state", "velocities")))
    if config.features == "cnn" and balls:
        pixels = env.observation_space["pixels"]
        return wrappers.TransformObservation(env, itemgetter("pixels"), pixels)
    return env


def _made(game: str) -> gym.Env[Any, Any]:
    """Make a game, one of ALE's own like ours: all actions, none sticky, 1 to 30 no-ops first."""
    if game == CHEETAH:
        mujoco = load_mujoco()
        before = mujoco.get_mju_user_warning()  # Gymnasium's model is old, MuJoCo says
        mujoco.set_mju_user_warning(str)
        try:
            return gym.make(game, render_mode="rgb_array")
        finally:
            mujoco.set_mju_user_warning(before)
    if is_grid(game):
        from minigrid import wrappers as views  # noqa: PLC0415 - optional

        env_id, options = grid_options(game)
        env = _Quiet(gym.make(env_id, render_mode="rgb_array", **options))
        return views.ImgObsWrapper(views.OneHotPartialObsWrapper(env))
    if game == BALLS:
        return gym.make("rmr/PushedBalls-v0", render_mode="rgb_array")
    env_id = str(game_id(game))
    options = game_options(env_id) if env_id.startswith("ALE/") else {}
    env = NoopResetEnv(gym.make(env_id, render_mode="rgb_array", **options), 30)
    return PairedObservation(env, pixels="palette") if options else env


class _Quiet(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps MiniGrid from printing a line for each room that it drew in vain."""

    def reset(self, **options: Any) -> Any:
        with redirect_stdout(None):
            return super().reset(**options)


class RMRVecEnv(vec_env.VecEnvWrapper):
    """`rmr_gym.wrappers.features.RMRVectorObservation` for Stable-Baselines3.

    One forward for all environments; ``infos[i]["terminal_observation"]`` holds features too.

    Args:
        venv: Environments that show whole screens or pictures of balls, alone or as entry
            ``pixels`` of a Dict.
        encoder: As in `rmr_gym.wrappers.features.RMRObservationWrapper`, like all that follow.
        output: As there.
        **options: Further fields of `rmr_gym.wrappers.features.Options`.

    Raises:
        RMRError: As `rmr_gym.wrappers.features.RMRVectorObservation`.

    Example:
        >>> from stable_baselines3 import PPO
        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> from rmr_gym.agents.sb3.worlds import RMRVecEnv
        >>> venv = RMRVecEnv(make_vec_env("rmr/Pong-v0", 8), "pong")  # doctest: +SKIP
        >>> agent = PPO("MlpPolicy", venv)  # doctest: +SKIP
    """

    of_ram: ClassVar[bool] = False

    def __init__(
        self, venv: VecEnv | AnyEnv, encoder: Given = None, output: str = "", **options: Any
    ):
        if not isinstance(venv, VecEnv):
            raise RMRError(
                f"expected a VecEnv of Stable-Baselines3, found {type(venv).__name__}: make one "
                "with stable_baselines3.common.env_util.make_vec_env"
            )
        self._stream = stream_of(venv, encoder, output, options, of_ram=self.of_ram)
        super().__init__(venv, observation_space=self._stream.space)
        self._taken = np.zeros(venv.num_envs, np.int64)

    def reset(self) -> Any:
        """Begin an episode in every environment."""
        return self._stream.begin(self.venv.reset())

    def step_async(self, actions: np.ndarray) -> None:
        """Send the actions."""
        self._taken = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Return what the environments answered."""
        observations, rewards, dones, infos = self.venv.step_wait()
        name, last = "terminal_observation", partial(self._stream.last, self._taken)
        final = describe.with_final({"final_obs": [info.get(name) for info in infos]}, dones, last)
        infos = [
            {**info, name: shown} if over else info
            for info, shown, over in zip(infos, final["final_obs"], dones, strict=True)
        ]
        return self._stream.step(observations, self._taken, dones), rewards, dones, infos


class RMRVecBelief(RMRVecEnv):
    """`rmr_gym.wrappers.features.RMRVectorBelief` for Stable-Baselines3; see `RMRVecEnv`.

    With a known start the environments must show ``ram``, as `rmr_gym`'s do. Options are those of
    `rmr_gym.wrappers.features.BeliefOptions`.
    """

    of_ram: ClassVar[bool] = True
