"""What RMR features cost: batched against one by one, beyond the encoder, and in SB3's training.

Both sides of every comparison run in turn in one process; the fastest round of each counts.

Run it: `python benchmarks/wrappers.py` (options: `--help`; `--csv` writes the rows).
"""

import argparse
import csv
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.agents.sb3.worlds import RMRVecEnv
from rmr_gym.core.palette import palette_to_gray, palette_to_rgb
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.wrappers.features import RMRObservationWrapper, RMRVectorObservation
from rmr_gym.wrappers.screens import Shrinker


class Replay(gym.Env):
    """Shows the screens of a game that was played, again and again, at no cost."""

    def __init__(self, screens: np.ndarray):
        self.observation_space = gym.spaces.Box(0, 255, screens.shape[1:], np.uint8)
        self.action_space = gym.spaces.Discrete(18)
        self._screens = itertools.cycle(screens)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return next(self._screens), {}

    def step(self, action: Any) -> Any:
        return next(self._screens), 0.0, False, False, {}


class ReplayVector(VectorEnv):
    """Many of them, at no cost either."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, screens: np.ndarray):
        self.num_envs, self._screens = screens.shape[1], itertools.cycle(screens)
        self.single_observation_space = gym.spaces.Box(0, 255, screens.shape[2:], np.uint8)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.single_action_space = gym.spaces.Discrete(18)
        self.action_space = gym.spaces.MultiDiscrete([18] * self.num_envs)
        self._still = np.zeros(self.num_envs), *np.zeros((2, self.num_envs), bool), {}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return next(self._screens), {}

    def step(self, actions: Any) -> Any:
        return next(self._screens), *self._still


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]
PHASES = 16
"""Screens of a replay."""

Row = dict[str, object]


def row(what: str, measure: str, value: float, goal: str = "", note: str = "") -> Row:
    """Print and return one figure."""
    print(f"{what:42} {measure:40} {value:9.4g}  {goal:7} {note}", flush=True)
    return {"what": what, "measure": measure, "value": value, "goal": goal, "note": note}


def fastest(rounds: int, phases: int = 1, **sides: Callable[[], Any]) -> dict[str, float]:
    """Run the sides in turn; return the seconds of the fastest round of each.

    Args:
        rounds: How often.
        phases: Rounds after which what is shown repeats; the fastest of each phase is taken, and
            the mean over the phases.
        sides: What to run.
    """
    best = {name: np.full(phases, np.inf) for name in sides}
    for number in range(rounds * phases):
        for name, run in sides.items():
            start = clock()
            run()
            at = number % phases
            best[name][at] = min(best[name][at], clock() - start)
    return {name: float(seconds.mean()) for name, seconds in best.items()}


def random_encoder(dim: int) -> PretrainedEncoder:
    """Make an encoder of the laptop preset's sizes; what it learnt does not matter for speed."""
    config = EncoderConfig("Pong", dim=dim)
    encoder = build(config.encoder, torch_generator(0))
    encoder.standardise_by(torch.full((84, 84), 90.0), 30.0)
    return PretrainedEncoder(config, encoder)


def batched(encoder: PretrainedEncoder, count: int, rounds: int) -> Iterator[Row]:
    """Compare the vector wrapper with one wrapper around each environment."""
    played = palette_to_gray(play("Pong", count))
    actions = np.zeros(count, np.int64)
    vector = RMRVectorObservation(ReplayVector(played), encoder)
    each = [RMRObservationWrapper(Replay(screens), encoder) for screens in played.swapaxes(0, 1)]
    games = RMRVectorObservation(gym.make_vec("rmr/Pong-v0", count, workers=0), encoder)
    apart = SyncVectorEnv([lambda: RMRObservationWrapper(gym.make("rmr/Pong-v0"), encoder)] * count)
    for env in (vector, *each, games, apart):
        env.reset()
    seconds = fastest(
        rounds,
        PHASES,
        vector=lambda: vector.step(actions),
        each=lambda: [env.step(0) for env in each],
        games_vector=lambda: games.step(actions),
        games_each=lambda: apart.step(actions),
    )
    for title, one, other, goal in (
        ("wrapper alone", "vector", "each", ">= 4"),
        ("with emulator", "games_vector", "games_each", ""),
    ):
        rates = [f"{count / seconds[side]:.0f}" for side in (one, other)]
        note = f"steps/s: {rates[0]} with one forward for all, {rates[1]} with one each"
        ratio = seconds[other] / seconds[one]
        yield row(
            f"{count} environments, {title}", "vector over single wrappers", ratio, goal, note
        )


def overhead(encoder: PretrainedEncoder, game: str, count: int, rounds: int) -> Iterator[Row]:
    """Compare a wrapped step with the forward of the encoder in it."""
    indices = play(game, count)
    gray = palette_to_gray(indices)
    shrink = Shrinker(84, 84)
    frames = itertools.cycle([torch.from_numpy(shrink(g.astype(np.float32))) for g in gray])
    actions = np.zeros(count, np.int64)
    for kind, shown, pixels in (
        ("gray", gray, "gray"),
        ("palette", indices, "palette"),
        ("rgb", palette_to_rgb(indices), "auto"),
    ):
        envs = RMRVectorObservation(ReplayVector(shown), encoder, pixels=pixels)
        envs.reset()
        with torch.inference_mode():
            seconds = fastest(
                rounds,
                PHASES,
                step=lambda envs=envs: envs.step(actions),
                forward=lambda: encoder.encoder(next(frames)),
            )
        step, forward = (1e6 * seconds[name] / count for name in ("step", "forward"))
        note = f"microseconds a frame: {step:.0f}, of which the encoder {forward:.0f}"
        goal = "<= 0.15" if game == "Pong" else ""
        yield row(f"{game}, {kind}", "overhead beyond the encoder", step / forward - 1, goal, note)


def training(encoder: PretrainedEncoder, copies: int, steps: int, rounds: int) -> Iterator[Row]:
    """Compare PPO on frozen features with PPO on frames through SB3's NatureCNN."""

    def games() -> DummyVecEnv:
        return DummyVecEnv([lambda: gym.make("rmr/Pong-v0", pixels="gray")] * copies)

    sizes: Any = {"n_steps": steps, "batch_size": min(256, steps * copies), "device": "cpu"}
    frozen = PPO("MlpPolicy", RMRVecEnv(games(), encoder), **sizes)
    frames = RMRVecEnv(games(), encoder, output="frames", history=4)
    network = PPO("CnnPolicy", frames, **sizes)
    seconds = fastest(
        rounds,
        frozen=lambda: frozen.learn(steps * copies, reset_num_timesteps=False),
        network=lambda: network.learn(steps * copies, reset_num_timesteps=False),
    )
    rates = {name: steps * copies / spent for name, spent in seconds.items()}
    note = f"steps/s: {rates['frozen']:.0f} and {rates['network']:.0f}"
    ratio = rates["frozen"] / rates["network"]
    yield row(
        f"PPO, {copies} copies of Pong", "frozen features over NatureCNN", ratio, ">= 5", note
    )


def play(game: str, count: int) -> np.ndarray:
    """Return palette indices [steps, count, 210, 160] of random play."""
    envs = gym.make_vec(f"rmr/{game}-v0", count, workers=0, pixels="palette")
    envs.reset(seed=0)
    envs.action_space.seed(0)
    shown = [envs.step(envs.action_space.sample())[0]["pixels"] for _ in range(PHASES + 50)]
    return np.stack(shown[50:])[..., 0]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=16, help="environments of a vector")
    parser.add_argument("--games", nargs="+", default=["Pong", "Breakout", "MsPacman", "Freeway"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--copies", type=int, default=8, help="environments in training")
    parser.add_argument("--steps", type=int, default=64, help="of each copy a round of training")
    parser.add_argument("--training-rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu where others run"
    )
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    global clock  # noqa: PLW0603
    clock = CLOCKS[options.clock]
    torch.set_num_threads(options.threads)
    encoder = random_encoder(options.dim)
    rows = list(batched(encoder, options.count, options.rounds))
    for game in options.games:
        rows += overhead(encoder, game, options.count, options.rounds)
    rows += training(encoder, options.copies, options.steps, options.training_rounds)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
