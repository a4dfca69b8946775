"""An agent of Stable-Baselines3 in a folder: trained, measured, recorded and filmed.

The folder holds ``config.json``, ``README.md``, a card, and a folder for each checkpoint, called by
its steps: ``policy.safetensors``, whose header says what training returned, and
``optimizer.safetensors``. Reading them runs no code.
"""

import json
import shlex
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from rmr_gym.agents import record
from rmr_gym.agents.players.graded import Policy
from rmr_gym.agents.sb3 import worlds
from rmr_gym.agents.sb3.policies import POLICY_SIZES, Embedded, RIMsPolicy, RMRFeaturesExtractor
from rmr_gym.agents.sb3.worlds import ALGORITHMS, AgentConfig, encoder_of, make_games, read_config
from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError, whole_number
from rmr_gym.core.files import replacing, write_atomically
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Manifest
from rmr_gym.models.pretrained import CARD, card_of
from rmr_gym.report.pictures import check_film, write_film
from rmr_gym.wrappers.describe import describe, installed

POLICY, OPTIMIZER = "policy.safetensors", "optimizer.safetensors"
PACKAGES = ("rmr-gym", "torch", "stable-baselines3", "sb3-contrib", "gymnasium", "numpy")
GRID_PPO = {"n_steps": 64, "batch_size": 512, "learning_rate": 1e-3}
GRID_CORES: dict[str, dict[str, Any]] = {
    "recurrent_ppo": {"lstm_hidden_size": 140},
    "rims_ppo": {"rims": replace(POLICY_SIZES, units=20)},
}
"""In MiniGrid: PPO reads 64 steps at a time; cores of 115,360 (LSTM) and 117,096 parameters."""
RUNNER_PPO = {"batch_size": 128, "n_epochs": 10, "learning_rate": 5e-4, "ent_coef": 0.0}
RUNNER_PPO |= {"gamma": 0.98, "gae_lambda": 0.92}

STRIP = 40
"""Height of what a film shows below the screen."""


def train_agent(
    config: AgentConfig,
    folder: Path,
    *,
    steps: int,
    checkpoints: int = 10,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train an agent, keeping it on the way; a run that was stopped goes on at its last checkpoint.

    A replay buffer is not kept: it fills anew after a stop.

    Args:
        config: What to train.
        folder: Where it goes. One that is there must be of the same configuration.
        steps: Steps over all copies.
        checkpoints: How often the agent is kept, evenly spread over the steps.
        tensorboard: Log to ``tensorboard`` in the folder, for TensorBoard.
        progress: Called with (steps done, ``steps``).

    Returns:
        The last checkpoint.

    Raises:
        RMRError: The folder holds an agent of another configuration, or bad settings.
    """
    whole_number("steps", steps, 1)
    if not 1 <= checkpoints <= steps:
        raise RMRError(f"expected 1 to {steps} checkpoints, found {checkpoints}")
    if tensorboard and find_spec("tensorboard") is None:
        raise RMRError("expected TensorBoard to be installed: `pip install tensorboard`")
    if (folder / "config.json").exists() and read_config(folder) != config:
        raise RMRError(
            f"{folder} holds an agent of another configuration, {read_config(folder)}: choose "
            "another folder"
        )
    every = -(-steps // checkpoints)
    kept = kept_agents(folder)
    enough = [path for path in kept if int(path.stem) >= steps]
    if enough:
        return enough[0]
    venv = VecMonitor(make_games(config, copies=config.copies, learning=True))
    record = json.dumps(worlds.FORMAT | {"config": asdict(config)}, indent=1)
    write_atomically(folder / "config.json", record)
    log = str(folder / "tensorboard") if tensorboard else None
    agent = _go_on(config, kept[-1], venv, log) if kept else _begin(config, venv, log)
    ahead = [mark for mark in range(every, steps, every) if mark > agent.num_timesteps]
    save_at = partial(_save, config, folder)
    keep = Keep(ahead, lambda agent, passed: save_at(agent, passed[-1]), steps, progress)
    agent.learn(steps - agent.num_timesteps, callback=keep, reset_num_timesteps=not kept)
    venv.close()
    return save_at(agent, steps)


def _begin(config: AgentConfig, venv: VecEnv, log: str | None) -> BaseAlgorithm:
    make, options = ALGORITHMS[config.algorithm]
    policy, extractor = _policy_of(config)
    own = {"view": GRID_PPO, "state": RUNNER_PPO if config.game == worlds.CHEETAH else {}}
    options = options | (own.get(config.features, {}) if "n_epochs" in options else {})
    fixed = {"seed": integer_seed(config.seed, "agent", config.game), "device": "cpu", **options}
    return make(policy, venv, policy_kwargs=extractor, tensorboard_log=log, **fixed)


def _go_on(config: AgentConfig, path: Path, venv: VecEnv, log: str | None) -> BaseAlgorithm:
    agent = _restored(config, _begin(config, venv, log), path)
    agent.set_random_seed(integer_seed(config.seed, "agent", config.game, agent.num_timesteps))
    return agent


def _save(config: AgentConfig, folder: Path, agent: BaseAlgorithm, steps: int) -> Path:
    """Write an agent, whole or not at all, so that whatever is there is finished."""
    points = [episode["r"] for episode in agent.ep_info_buffer or ()]
    mean = f"{np.mean(points):.4g}" if points else ""
    facts = {"steps": str(agent.num_timesteps), "episodes": str(len(points)), "return": mean}
    facts |= {"encoder": str(worlds.weights_of(config))}
    held = agent.policy.optimizer.state_dict()["state"]
    moments = {f"{row}.{name}": held[row][name] for row in held for name in held[row]}
    path = folder / f"{steps:09d}"
    with replacing(path) as hidden:
        save_model(agent.policy, str(hidden / POLICY), facts)
        save_file(moments, hidden / OPTIMIZER)
    write_atomically(folder / CARD, _card(config, folder))
    return path


def _restored(config: AgentConfig, agent: BaseAlgorithm, path: Path) -> BaseAlgorithm:
    """Give an agent the weights of a checkpoint and its optimizer's state.

    Raises:
        RMRError: The checkpoint is damaged, or of an agent of other sizes or with another encoder.
    """
    optimizer = agent.policy.optimizer
    states = defaultdict[int, dict[str, Any]](dict)
    try:
        load_model(agent.policy, path / POLICY)
        for name, tensor in load_file(path / OPTIMIZER).items():
            number, _, part = name.partition(".")
            states[int(number)][part] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": states, "param_groups": groups})
        facts = _facts(path)
        agent.num_timesteps = int(facts["steps"])
        if facts["encoder"] != str(worlds.weights_of(config)):
            raise RMRError(f"it learnt on another encoder than {config.encoder} is now")
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise RMRError(f"{path} cannot be used ({error}): delete it, and train on") from error
    return agent


def _facts(path: Path) -> dict[str, str]:
    """Return what the header of a checkpoint says of its training."""
    with safe_open(path / POLICY, "pt") as file:
        return file.metadata()


def _card(config: AgentConfig, folder: Path) -> str:
    """Return the card of the agents in a folder in Markdown."""
    curve = [_facts(path) | {"checkpoint": path.name} for path in kept_agents(folder)]
    metrics = [{name: row[name] for name in ("checkpoint", "return", "episodes")} for row in curve]
    given = {name: value for name, value in asdict(config).items() if value is not None}
    given |= {"steps": int(curve[-1]["checkpoint"]), "checkpoints": len(curve)}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    training = given | {"command": shlex.join(["rmr-gym", "agent", "train", *options])}
    versions = {name: installed(name) for name in PACKAGES}
    return card_of(config, {"training": training, "metrics": metrics, "versions": versions})


def _policy_of(config: AgentConfig) -> tuple[Any, dict[str, Any]]:
    """Return the policy, with the encoder inside where a replay buffer shall hold bytes."""
    on_pixels = config.features == "cnn"
    made: dict[str, Any] = {"features_extractor_class": NatureCNN} if on_pixels else {}
    if config.features == "view":
        made = {"features_extractor_class": Embedded, **GRID_CORES.get(config.algorithm, {})}
    if config.game == worlds.CHEETAH:
        made = {"log_std_init": -1.0}
    if config.algorithm == "rims_ppo":
        return RIMsPolicy, made
    kind = "LstmPolicy" if config.algorithm == "recurrent_ppo" else "Policy"
    if not config.encodes_inside:
        return f"{'Cnn' if on_pixels else 'Mlp'}{kind}", made
    return f"Cnn{kind}", {
        "features_extractor_class": RMRFeaturesExtractor,
        "features_extractor_kwargs": {"encoder": encoder_of(config), "mode": "frozen"},
    }


def kept_agents(folder: Path) -> list[Path]:
    """Return the agents that a folder holds, least trained first."""
    return sorted(path for path in folder.glob("*") if path.name.isdigit())


def load_agent(folder: Path, path: Path | None = None) -> BaseAlgorithm:
    """Return the most trained agent of a folder, without games; no code of the folder runs.

    Args:
        folder: Of the agent.
        path: One of its checkpoints; None: the last one.

    Raises:
        RMRError: There is none, or it is damaged.
    """
    config, kept = read_config(folder), kept_agents(folder)
    if not kept:
        raise RMRError(f"expected a trained agent in {folder}, found none: train it first")
    with closing(make_games(config, copies=config.copies, learning=False)) as venv:
        agent = _begin(config, venv, None)
    agent.env = None
    return _restored(config, agent, path or kept[-1])


class Keep(BaseCallback):
    """Keeps an agent whenever training passes a mark.

    Args:
        marks: Numbers of steps, in order.
        keep: Called with the model and the marks that it has passed since the last call.
        steps: Of the whole training.
        progress: Called with (steps done, ``steps``).
    """

    def __init__(
        self,
        marks: Sequence[int],
        keep: Callable[[BaseAlgorithm, Sequence[int]], object],
        steps: int,
        progress: Progress | None = None,
    ):
        super().__init__()
        self._ahead, self._keep, self._steps, self._progress = marks, keep, steps, progress

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self._progress is not None:
            self._progress(min(self.num_timesteps, self._steps), self._steps)
        passed = [mark for mark in self._ahead if mark <= self.num_timesteps]
        self._ahead = self._ahead[len(passed) :]
        if passed:
            self._keep(self.model, passed)


def returns(
    config: AgentConfig, agent: BaseAlgorithm, *, episodes: int, seed: int = 0
) -> Sequence[float]:
    """Return the points of each of some episodes.

    Args:
        config: Where it plays and what it sees.
        agent: Who plays.
        episodes: How many; the n-th of a seed begins alike for every agent of the game.
        seed: Of the episodes and of the agent's choices.

    Raises:
        RMRError: No episodes.
    """
    agent.set_random_seed(integer_seed(seed, "evaluating agent", config.game))
    return play(config, record.chooser(agent), episodes=episodes, seed=seed)


def random_returns(config: AgentConfig, *, episodes: int, seed: int = 0) -> Sequence[float]:
    """Return the points that actions chosen at random make in the episodes of `returns`."""
    rng = generator(seed, "random player", config.game)
    with closing(make_games(config, copies=1, learning=False)) as venv:
        actions: Any = venv.action_space

    def choose(observation: Any) -> Any:
        if isinstance(actions, spaces.Box):
            return rng.uniform(actions.low, actions.high, (len(observation), *actions.shape))
        return rng.integers(actions.n, size=len(observation))

    return play(config, choose, episodes=episodes, seed=seed)


def play(
    config: AgentConfig, choose: Policy, *, episodes: int, seed: int, around: Any = None
) -> list[float]:
    """Play episodes side by side, each to its end, and return the points of each.

    Args:
        config: Game and features.
        choose: Chooses an action for each of the games.
        episodes: How many.
        seed: Of the episodes.
        around: Put around each game, see `rmr_gym.agents.sb3.worlds.make_games`.
    """
    copies = whole_number("episodes", episodes, 1)
    venv = make_games(config, copies=copies, learning=False, around=around)
    venv.seed(integer_seed(seed, "evaluation", config.game))
    observation = venv.reset()
    points, playing = np.zeros(episodes), np.ones(episodes, bool)
    while playing.any():
        observation, rewards, dones, _ = venv.step(choose(observation))
        points[playing] += rewards[playing]
        playing &= ~dones
    venv.close()
    return points.tolist()


class AgentPlan(record.Plan):
    """The plan of episodes that an agent plays; its ``env`` is the agent's configuration."""

    def manifest(self) -> Manifest:
        """Return the manifest of the data set that the plan leads to."""
        (inside,) = record.environment_of(self).get_attr("inside")
        return describe(inside, heads=(f"{self.env.algorithm} on {self.env.features}",))

    def episode_seed(self, index: int) -> int:
        """Return what the game is reset with for an episode."""
        return integer_seed(self.seed, "agent's episode", self.env.game, index)

    def environment(self) -> Any:
        """Make the game, watched inside of what makes the agent's features."""
        return make_games(self.env, copies=1, learning=False, around=record.Watched)

    def play(self, indices: Sequence[int]) -> Generator[list[record.Step], None, None]:
        """Play an episode; the game begins the next by itself, which is no part of it."""
        venv, index = record.environment_of(self), indices[0]
        seed = integer_seed(self.seed, "recording agent", self.env.game, index)
        self.policy.set_random_seed(seed)
        venv.seed(self.episode_seed(index))
        observation, choose = venv.reset(), record.chooser(self.policy)
        yield venv.get_attr("first")
        while True:
            observation, *_ = venv.step(choose(observation))
            yield venv.get_attr("last")


def record_agent(
    folder: Path,
    path: Path,
    *,
    episodes: int,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransitionDataset:
    """Record episodes of a folder's most trained agent.

    The columns are those of `rmr_gym.agents.record.record` for games (screen as palette indices
    and RAM, whatever the agent sees) and the whole observation for balls. Episodes that are there
    are kept, those that miss are recorded; one depends on the agent, the seed and its number alone.

    Args:
        folder: Of the agent.
        path: Folder of the data set.
        episodes: Episodes that it shall hold.
        seed: Of the episodes and of the agent's choices.
        overwrite: Delete the episodes that are there first.
        progress: Called with (episodes that are there, ``episodes``).

    Raises:
        RMRError: No agent, no episodes, or a folder that holds other data.
    """
    plan = AgentPlan(read_config(folder), seed, None, policy=load_agent(folder))
    return record.record_plan(plan, path, episodes, overwrite=overwrite, progress=progress)


def film(folder: Path, out: Path, *, steps: int = 500, seed: int = 0) -> int:
    """Write a film of an episode of a folder's most trained agent.

    The screen is at the left. If the agent sees slots, or a belief over RAM, a cell for each slot
    or byte is at the right, row by row: the brighter, the further it is from where it was a step
    ago, next to the largest movement so far. Below is the course of the value, which is the sum of
    discounted rewards that the agent expects; of PPO alone.

    Args:
        folder: Of the agent.
        out: The film, a name that ends in .gif or .mp4.
        steps: At most so many steps.
        seed: Of the episode and of the agent's choices.

    Returns:
        The number of frames.

    Raises:
        RMRError: There is no agent in the folder, or the film cannot be written.
    """
    check_film(out)
    agent, config = load_agent(folder), read_config(folder)
    agent.set_random_seed(integer_seed(seed, "film", config.game))
    venv = make_games(config, copies=1, learning=False)
    venv.seed(integer_seed(seed, "evaluation", config.game))
    observation, choose = venv.reset(), record.chooser(agent)
    over, screens, seen = False, list[Any](venv.get_images()), list[Any]([observation])
    while not over and len(screens) <= steps:
        observation, _, (over,), _ = venv.step(choose(observation))
        if not over:
            screens += venv.get_images()
            seen.append(observation)
    venv.close()
    shown = np.concatenate(seen)
    if config.encoder is not None:
        encoder, slots = encoder_of(config), shown
        if config.encodes_inside:
            frames = torch.from_numpy(shown).reshape(-1, *encoder.config.frame_shape)
            slots = encoder.encoder(frames).detach().numpy()
        slots = slots.reshape(len(slots), encoder.config.slots, -1) if slots.ndim == 2 else slots
        screens = beside(screens, movements(slots[:, : encoder.config.slots]))
    if isinstance(agent, PPO):
        with torch.no_grad():
            values = agent.policy.predict_values(agent.policy.obs_to_tensor(shown)[0])
        screens = above(screens, values[:, 0].numpy())
    write_film(out, screens, fps=15.0)
    return len(screens)


def movements(slots: Float[np.ndarray, "time slots dim"]) -> Float[np.ndarray, "time slots"]:
    """Return how far each slot moved, from 0 to 1; 0 in the first frame."""
    moved = np.linalg.norm(np.diff(slots, axis=0, prepend=slots[:1]), axis=2)
    largest = np.maximum.accumulate(moved.max(axis=1, keepdims=True))
    return moved / np.where(largest > 0, largest, 1)


def beside(
    shown: list[UInt8[np.ndarray, "height width 3"]], moved: Float[np.ndarray, "time slots"]
) -> list[UInt8[np.ndarray, "height wide 3"]]:
    """Return screens with a cell a slot at their right, twice as many rows as columns or so."""
    slots, height = moved.shape[1], len(shown[0])
    columns = max(1, round((slots / 2) ** 0.5))
    rows = -(-slots // columns)
    cell = max(1, height // rows)
    cells = np.pad((255 * moved).astype(np.uint8), ((0, 0), (0, rows * columns - slots)))
    panels = np.kron(cells.reshape(-1, rows, columns), np.ones((1, cell, cell), np.uint8))
    panels = np.pad(panels, ((0, 0), (0, max(0, height - rows * cell)), (4, 0)))[:, :height]
    panels = np.repeat(panels[..., None], 3, axis=3)
    return [np.hstack(pair) for pair in zip(shown, panels, strict=True)]


def above(
    screens: list[UInt8[np.ndarray, "height wide 3"]], values: Float[np.ndarray, " time"]
) -> list[UInt8[np.ndarray, "higher wide 3"]]:
    """Return screens above the course of a value up to now, from its lowest to its highest."""
    count, width = len(values), screens[0].shape[1]
    share = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    strips = np.zeros((count, STRIP, width, 3), np.uint8)
    for now, row in enumerate(np.rint((1 - share) * (STRIP - 1)).astype(int)):
        strips[now:, row, now * width // count : (now + 1) * width // count + 1] = 255
    return [np.vstack(pair) for pair in zip(screens, strips, strict=True)]
