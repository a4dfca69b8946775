"""Stable-Baselines3 on RMR features: frozen outside the agent, or fine-tuned inside it.

Run it: `python examples/sb3_agent.py` (or `--how fine_tuned`, `--encoder FOLDER`).
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.agents.sb3.policies import RMRFeaturesExtractor
from rmr_gym.agents.sb3.worlds import RMRVecEnv
from rmr_gym.models.pretrained import PretrainedEncoder


def outside(game: str, encoder: PretrainedEncoder, copies: int) -> PPO:
    """PPO on features that a wrapper computes once a step, for all environments together."""
    venv = DummyVecEnv([lambda: gym.make(f"rmr/{game}-v0", pixels="palette")] * copies)
    return PPO("MlpPolicy", RMRVecEnv(venv, encoder), n_steps=32, batch_size=64, device="cpu")


def inside(game: str, encoder: PretrainedEncoder, copies: int) -> DQN:
    """DQN on frames of bytes, with an encoder inside that learns on."""
    venv = DummyVecEnv([lambda: gym.make(f"rmr/{game}-v0", pixels="palette")] * copies)
    frames = RMRVecEnv(venv, encoder, output="frames", history=2)
    policy = {
        "features_extractor_class": RMRFeaturesExtractor,
        "features_extractor_kwargs": {"encoder": encoder, "mode": "fine_tuned"},
    }
    return DQN(
        "CnnPolicy", frames, policy_kwargs=policy, buffer_size=1000, learning_starts=32,
        target_update_interval=100, device="cpu",
    )  # fmt: skip


def save_and_load(agent: BaseAlgorithm, path: Path) -> None:
    """Save the agent, load it, and compare what both would do."""
    agent.save(path)
    again = type(agent).load(path, device="cpu")
    observation = agent.get_env().reset()
    actions = [which.predict(observation, deterministic=True)[0] for which in (agent, again)]
    print(f"saved {path.name}; loaded, it does the same: {np.array_equal(*actions)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--how", default="frozen", choices=["frozen", "fine_tuned"])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--encoder", default="pong", help="name of a shipped one, or a folder")
    parser.add_argument("--steps", type=int, default=2048)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/sb3_agent"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    make = outside if options.how == "frozen" else inside
    encoder = PretrainedEncoder.from_pretrained(options.encoder)
    agent = make(options.game, encoder, options.copies).learn(options.steps)
    print(f"{type(agent).__name__} learnt for {agent.num_timesteps} steps")
    save_and_load(agent, options.out / f"{options.game}-{options.how}.zip")


if __name__ == "__main__":
    main()
