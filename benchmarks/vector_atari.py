"""Measure steps a second of games played side by side: our vector, Gymnasium's two, a single loop.

Run `python benchmarks/vector_atari.py` (about a minute on 2 cores; `--quick` for a look). Rows go
to `results/vector_atari.csv`. The arms take turns in short trials and the best trial of each
counts, because the machine may be shared; its load is written beside it. All arms show RAM and gray
pixels of the same game, play the same random actions, and hand out new arrays at every step.
"""

import argparse
import csv
import os
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import rmr_gym  # noqa: F401

ROOT = Path(__file__).parents[1]
OURS = "make_vec, {workers} workers"
Arm = Callable[[], None]


def vector_arm(envs: gym.vector.VectorEnv[Any, Any, Any], rounds: int) -> Arm:
    actions = np.random.default_rng(0).integers(18, size=(rounds, envs.num_envs))
    envs.reset(seed=0)

    def play() -> None:
        for chosen in actions:
            envs.step(chosen)

    return play


def single_arm(env: gym.Env[Any, Any], steps: int) -> Arm:
    actions = np.random.default_rng(0).integers(18, size=steps).tolist()
    env.reset(seed=0)

    def play() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return play


def interleaved(arms: dict[str, Arm], trials: int) -> dict[str, float]:
    """Return the best seconds of every arm, the arms taking turns."""
    for play in arms.values():
        play()
    best = dict.fromkeys(arms, np.inf)
    for _ in range(trials):
        for name, play in arms.items():
            begin = time.perf_counter()
            play()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


def make_arms(
    stack: ExitStack, env_id: str, count: int, workers: int, rounds: int
) -> dict[str, Arm]:
    def own(processes: int) -> Arm:
        envs = gym.make_vec(env_id, count, workers=processes)
        stack.callback(envs.close)
        return vector_arm(envs, rounds)

    def gymnasium_s(mode: str) -> Arm:
        envs = gym.make_vec(env_id, count, vectorization_mode=mode)
        stack.callback(envs.close)
        return vector_arm(envs, rounds)

    return {
        "AsyncVectorEnv, shared memory": gymnasium_s("async"),
        "SyncVectorEnv": gymnasium_s("sync"),
        "single loop": single_arm(gym.make(env_id), count * rounds),
        "make_vec, this process": own(0),
        OURS.format(workers=workers): own(workers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few trials")
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "vector_atari.csv")
    options = parser.parse_args()
    rounds, trials = 10, 5 if options.quick else 100
    with ExitStack() as stack:
        env_id = f"rmr/{options.game}-v0"
        arms = make_arms(stack, env_id, options.num_envs, options.workers, rounds)
        best = interleaved(arms, trials)
    steps, ours = options.num_envs * rounds, best[OURS.format(workers=options.workers)]
    rows = [
        {
            "game": options.game,
            "num_envs": options.num_envs,
            "arm": name,
            "steps_per_second": f"{steps / seconds:.0f}",
            "our_speed_up": f"{seconds / ours:.3f}",
            "trials": trials,
            "gymnasium": version("gymnasium"),
            "ale-py": version("ale-py"),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load": f"{os.getloadavg()[0]:.2f}",
        }
        for name, seconds in best.items()
    ]
    for row in rows:
        print(f"{row['arm']:32} {row['steps_per_second']:>8} steps/s {row['our_speed_up']:>8}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
