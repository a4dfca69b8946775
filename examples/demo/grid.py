"""What the demonstration computes: an experiment of one's own, with stages of one's own."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import UInt8
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

from demo.pictures import belief_frames
from rmr_gym.agents.players.graded import networks, select_players
from rmr_gym.agents.sb3.agent import Keep, beside, movements, random_returns
from rmr_gym.agents.sb3.worlds import BALLS, AgentConfig, make_games
from rmr_gym.core.files import write_atomically
from rmr_gym.core.metrics import bit_f1
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import ram_to_bits
from rmr_gym.domains.atari import frame_transform
from rmr_gym.experiments.atari import AtariExperiment, abstract_rows, natural_rows
from rmr_gym.experiments.base import Plan, ProgressFor, Rows
from rmr_gym.models.pretrained import WEIGHTS, PretrainedEncoder, find_artifact
from rmr_gym.report.pictures import Pixels, enlarged, film_bytes
from rmr_gym.runs.store import NOWHERE, Artifact, Room, Store, stage
from rmr_gym.stages.games import PRETRAIN_SEED
from rmr_gym.stages.presets import AtariPreset, Natural, Pretraining, Probing
from rmr_gym.wrappers.features import RMRBeliefWrapper, RMRObservationWrapper

ARMS = ("untrained", "rmr", "cswm")
READERS = ("frames alone", "belief")
PLAYER = "high-e05-h50"
UNSEEN = 1000
"""Episodes are reset with seeds from here on; no belief learned from any of them."""

WINDOW = 25
"""Steps that are scored together."""

SETTINGS: dict[str, Any] = {
    "pretraining": Pretraining(400, 16, checkpoints=(80, 160, 240, 320, 400), validation_rows=200),
    "natural": Natural("infonce", checkpoints=(50, 100, 200), batch=32),
    "probing": Probing(("ridge",), train_rows=800, test_rows=500),
}
"""How P and encoders are trained and probed: as long as a minute and a half allows."""

EPISODE = 200
LEARNING: dict[str, Any] = {"n_steps": 40, "learning_rate": 1e-3, "gamma": 0.95}
"""Steps of an episode of pushed balls, and how PPO learns it: hits follow soon on pushes."""


def watched(env: gym.Env[Any, Any], game: str, name: str, steps: int, seed: int) -> Iterator[Any]:
    """Play an episode of a game and yield what the environment shows, from the reset on.

    Args:
        env: Shows RAM.
        game: Of which the player's networks are.
        name: Of a player.
        steps: At most so many.
        seed: Of the episode and of the player's choices.
    """
    (player,) = select_players([name])
    choose = player.policy(generator(seed, "film"), networks(game).get(player.skill))
    shown, _ = env.reset(seed=seed)
    yield shown
    for _ in range(steps):
        shown, _, terminated, truncated, _ = env.step(choose(shown))
        yield shown
        if terminated or truncated:
            return


def track(
    game: str,
    belief: PretrainedEncoder,
    steps: int,
    start: str,
    player: str,
    seed: int,
    noop_max: int = 0,
) -> dict[str, np.ndarray]:
    """Play an episode with a belief around the game; read its frames without memory beside.

    Args:
        game: Name of the game.
        belief: Of the game.
        steps: At most so many.
        start: As in `rmr_gym.wrappers.features.RMRBeliefWrapper`.
        player: Name of the player.
        seed: Of the episode.
        noop_max: At most so many frames without input before the first observation.

    Returns:
        An entry an instant: screens, truth (bits), and the bits as the `READERS` have them.
    """
    options = {"pixels": "palette", "render_mode": "rgb_array", "noop_max": noop_max}
    made = gym.make(f"rmr/{game}-v0", **options)
    env = RMRBeliefWrapper(made, belief, start=start, keep=("ram", "pixels"))
    met, shrink, config = [], frame_transform(84, 84), belief.config
    frames: deque[np.ndarray] = deque(maxlen=config.instants)
    for shown in watched(env, game, player, steps, seed):
        frame = shrink(shown["pixels"][None, ..., 0])[0]
        frames.extend([frame] * (1 if frames else config.instants))
        clip = torch.from_numpy(np.concatenate(frames)[None])
        alone = (belief.encoder(clip) + belief.encoder.mean > 0.5)[0].numpy()
        met.append((env.render(), ram_to_bits(shown["ram"]) > 0, alone, shown["features"] > 0.5))
    env.close()
    names = ("screens", "truth", *READERS)
    return {name: np.stack(part) for name, part in zip(names, zip(*met, strict=True), strict=True)}


@stage(version=1)
def tracked(game: str, weights: Sequence[str], steps: int, episodes: int) -> Artifact:
    """Track RAM with a shipped belief in episodes that nothing was learned from; film the first.

    Args:
        game: Name of the game.
        weights: Hashes of what is shipped, which decides the result.
        steps: At most so many, of each episode.
        episodes: How many.

    Returns:
        Tensors ``belief`` and ``slots``, the bytes of a GIF each: the first episode as it is read,
        and as the shipped encoder's slots show it. The record holds ``rows``: bit F1 of the bytes
        that the belief was scored on, by reader, episode (seed) and `WINDOW` of steps.
    """
    del weights
    belief = PretrainedEncoder.from_pretrained(f"{game}_belief")
    scored = belief.provenance["data"]["scored"]
    met: dict[str, np.ndarray] = {}
    rows = []
    for seed in reversed(range(UNSEEN, UNSEEN + episodes)):
        met = track(game, belief, steps, "known", PLAYER, seed)
        for begin in range(1, len(met["truth"]), WINDOW):
            part = {name: bits[begin : begin + WINDOW, scored] for name, bits in met.items()}
            place = {"seed": seed, "step": begin + len(part["truth"]) - 1}
            for reader in READERS:
                f1 = bit_f1(part[reader], part["truth"]).micro_f1
                rows.append({"reader": reader, **place, "micro_f1": f1})
    frames = belief_frames(
        met["screens"], met["truth"], {name: met[name] for name in READERS}, scored
    )
    return Artifact({"rows": rows}, {"belief": _film(frames), "slots": _film(_slots(game, steps))})


def _slots(game: str, steps: int) -> list[Pixels]:
    """Put the shipped encoder around a game, and draw how far each of its slots moves."""
    made = gym.make(f"rmr/{game}-v0", pixels="palette", render_mode="rgb_array")
    env = RMRObservationWrapper(made, keep=("ram",))
    episode = watched(env, game, PLAYER, steps, UNSEEN)
    screens, seen = zip(*((env.render(), shown["features"]) for shown in episode), strict=True)
    env.close()
    frames = beside([*screens], movements(np.stack(seen)))
    return [enlarged(frame, 2) for frame in frames[::2]]


def _film(frames: Sequence[Pixels]) -> UInt8[Tensor, " bytes"]:
    return torch.frombuffer(bytearray(film_bytes(frames, fps=12.0)), dtype=torch.uint8)


@stage(version=1)
def pushed(steps: int, copies: int, room: Room = NOWHERE) -> Artifact:
    """Train an agent that pushes a ball against another one; random play stands beside.

    Returns:
        Tensor ``agent``, the bytes of a GIF of an episode after training. The record holds
        ``rows``: mean return of the latest episodes by step.
    """
    config = AgentConfig(BALLS, "state", copies=copies, max_steps=EPISODE)
    points = fmean(random_returns(config, episodes=copies))
    rows = [{"features": "random", "step": step, "return": points} for step in (0, steps)]

    def keep(agent: Any, passed: Sequence[int]) -> None:
        latest = fmean(episode["r"] for episode in agent.ep_info_buffer)
        rows.append({"features": "state", "step": passed[-1], "return": latest})

    marks = [*range(copies * EPISODE, steps + 1, copies * EPISODE)]
    games = VecMonitor(make_games(config, copies=copies, learning=True))
    sizes: dict[str, Any] = {"batch_size": 8 * copies, "stats_window_size": copies}
    agent = PPO("MlpPolicy", games, seed=0, device="cpu", **sizes, **LEARNING)
    agent.learn(steps + copies * LEARNING["n_steps"], Keep(marks, keep, steps, room.progress))
    shown, frames = games.reset(), []
    for _ in range(EPISODE // 2):
        shown, *_ = games.step(agent.predict(np.asarray(shown))[0])
        frames += [screen[::2, ::2] for screen in games.env_method("render", indices=[0])]
    games.close()
    return Artifact({"rows": rows}, {"agent": _film(frames)})


@dataclass(frozen=True)
class Demo(AtariExperiment):
    """Show what the package does: a demonstration on one seed, and no test of anything.

    Attributes:
        seeds: The one.
        steps: Of an episode that is tracked.
        episodes: That are tracked, of each game.
        agent_steps: That the agent of pushed balls learns for.
        copies: Worlds of balls that it plays in side by side.
    """

    kind = "demo"
    folder_name = "demo"

    seeds: int | None = 1
    steps: int = 150
    episodes: int = 4
    agent_steps: int = 40_000
    copies: int = 16

    @staticmethod
    def proposals(name: str = "smoke") -> dict[str, Any]:
        """Return the settings of a preset with those that a demonstration has in their place."""
        return AtariPreset.proposals(name) | SETTINGS

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed, what others wait for first."""
        games = self.recorded(progress_for)
        rows = [row for game in games for row in abstract_rows(game, PRETRAIN_SEED)]
        films = [Rows("agent", pushed(self.agent_steps, self.copies), {"env": BALLS, "seed": 0})]
        for game in games:
            shipped = [_hash(name) for name in (game.name, f"{game.name}_belief")]
            task = tracked(game.name, shipped, self.steps, self.episodes)
            films.append(Rows("belief", task, {"game": game.name}))
        rows += [row for arm in ARMS for row in natural_rows(games[-1], arm, 0)]

        def finish(out: Path, store: Store) -> None:
            for row in films:
                artifact = store.find(row.task)
                for kind, film in artifact.tensors.items() if artifact else ():
                    name = f"{kind}_{row.names.get('game', BALLS)}.gif"
                    write_atomically(out / name, film.numpy().tobytes())

        return replace(self.atari_plan([*rows, *films], games), finish=finish)


def _hash(name: str) -> str:
    return hashlib.sha256((find_artifact(name) / WEIGHTS).read_bytes()).hexdigest()
