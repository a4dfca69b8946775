"""Training agents of Stable-Baselines3 on one game, on features that a name chooses."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from sb3_contrib import QRDQN, RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from rmr_gym.agents.sb3.extractor import RMRFeaturesExtractor
from rmr_gym.agents.sb3.rims_policy import RIMsPolicy
from rmr_gym.agents.sb3.worlds import AgentConfig, encoder_of, make_games, read_config
from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.core.seeding import integer_seed

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


def train_agent(
    config: AgentConfig,
    folder: Path,
    *,
    steps: int,
    checkpoints: int = 10,
    tensorboard: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Train an agent, keeping it on the way; a run that was stopped goes on at its last checkpoint.

    A replay buffer is not kept: it fills anew after a stop.

    Args:
        config: What to train.
        folder: Where it goes: ``config.json`` and ``<steps>.zip``. One that is there must be of
            the same configuration.
        steps: Steps over all copies.
        checkpoints: How often the agent is kept, evenly spread over the steps.
        tensorboard: Log to ``tensorboard`` in the folder, for TensorBoard.
        progress: Called with (steps done, ``steps``).

    Returns:
        The file of the trained agent.

    Raises:
        RMRError: The folder holds an agent of another configuration, or bad settings.
    """
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
    marks = sorted({min(every * (number + 1), steps) for number in range(checkpoints)})
    kept = kept_agents(folder)
    enough = [path for path in kept if int(path.stem) >= steps]
    if enough:
        return enough[0]
    venv = VecMonitor(make_games(config, copies=config.copies, learning=True))
    write_atomically(folder / "config.json", json.dumps(asdict(config), indent=1))
    log = str(folder / "tensorboard") if tensorboard else None
    agent = _go_on(config, kept[-1], venv, log) if kept else _begin(config, venv, log)
    ahead = [mark for mark in marks if mark > agent.num_timesteps]
    keep = Keep(ahead[:-1], lambda agent, passed: _save(agent, folder, passed[-1]), steps, progress)
    agent.learn(steps - agent.num_timesteps, callback=keep, reset_num_timesteps=not kept)
    venv.close()
    return _save(agent, folder, steps)


def _begin(config: AgentConfig, venv: VecEnv, log: str | None) -> BaseAlgorithm:
    make, options = ALGORITHMS[config.algorithm]
    policy, extractor = _policy_of(config)
    return make(
        policy,
        venv,
        seed=integer_seed(config.seed, "agent", config.game),
        device="cpu",
        policy_kwargs=extractor,
        tensorboard_log=log,
        **options,
    )


def _go_on(config: AgentConfig, path: Path, venv: VecEnv, log: str | None) -> BaseAlgorithm:
    make, _ = ALGORITHMS[config.algorithm]
    agent = make.load(path, env=venv, device="cpu", tensorboard_log=log)
    agent.set_random_seed(integer_seed(config.seed, "agent", config.game, agent.num_timesteps))
    return agent


def _save(agent: BaseAlgorithm, folder: Path, steps: int) -> Path:
    """Write an agent, whole or not at all, so that whatever is there is finished."""
    content = BytesIO()
    agent.save(content)
    return write_atomically(folder / f"{steps:09d}.zip", content.getvalue())


def _policy_of(config: AgentConfig) -> tuple[Any, dict[str, Any]]:
    """Return the policy, with the encoder inside where a replay buffer shall hold bytes."""
    if config.algorithm == "rims_ppo":
        pixels = {"features_extractor_class": NatureCNN}
        return RIMsPolicy, pixels if config.features == "cnn" else {}
    kind = "LstmPolicy" if config.algorithm == "recurrent_ppo" else "Policy"
    if config.features == "cnn":
        return f"Cnn{kind}", {}
    if not config.encodes_inside:
        return f"Mlp{kind}", {}
    inside = {"encoder": encoder_of(config), "mode": "frozen"}
    return f"Cnn{kind}", {
        "features_extractor_class": RMRFeaturesExtractor,
        "features_extractor_kwargs": inside,
    }


def kept_agents(folder: Path) -> list[Path]:
    """Return the agents that a folder holds, least trained first."""
    return sorted(path for path in folder.glob("*.zip") if path.stem.isdigit())


def load_agent(folder: Path) -> BaseAlgorithm:
    """Return the most trained agent of a folder.

    SB3's files hold pickles: load only what you or somebody you trust wrote.

    Raises:
        RMRError: There is none.
    """
    config, kept = read_config(folder), kept_agents(folder)
    if not kept:
        raise RMRError(f"expected a trained agent in {folder}, found none: train it first")
    make, _ = ALGORITHMS[config.algorithm]
    return make.load(kept[-1], device="cpu")


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
        progress: Callable[[int, int], None] | None = None,
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
