"""Imitation of a half-cheetah: what an expert shows, and play while the joints are moved."""

from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from gymnasium.wrappers import TransformObservation
from jaxtyping import Float

from rmr_gym.agents.players.graded import Policy
from rmr_gym.agents.sb3 import worlds
from rmr_gym.agents.sb3.agent import load_agent, play, record_agent, train_agent
from rmr_gym.domains.sequences import PLACES
from rmr_gym.runs.store import Artifact, Place, stage
from rmr_gym.stages.sequences import Imitation, SequenceTask, Sizes, fresh_model

CONFIG = worlds.AgentConfig(worlds.CHEETAH, "state", copies=16)
"""How the expert learns: PPO on positions and velocities."""


def perturbed(env: Any, strength: float) -> Any:
    """Return a half-cheetah whose joints are moved at random at every instant, before it is seen.

    Rewards and velocities stay those of the step; the episode's seed draws the noise too.

    Source: RIMs, Appendix C.7, "noise (in the joints of the half-cheetah body)".
    Differs: -; the paper states neither the kind of noise nor its strength.

    Args:
        env: The half-cheetah.
        strength: Deviation of the normal noise on each of the six angles, in radians.
    """
    world = env.unwrapped

    def moved(_: Any) -> Any:
        places, speeds = world.data.qpos.copy(), world.data.qvel.copy()
        places[-6:] += world.np_random.normal(0, strength, 6)
        world.set_state(places, speeds)
        return np.concatenate([places[1:], speeds])

    return TransformObservation(env, moved, None)


class Imitator:
    """Plays games side by side, from their beginning, by a model that sees positions alone.

    Args:
        model: From inputs, a generator and a state to a `SequenceOutput`.
    """

    def __init__(self, model: torch.nn.Module):
        self._model, self._state = model.eval(), None

    @torch.no_grad()
    def __call__(self, shown: Float[np.ndarray, "games 17"]) -> Float[np.ndarray, "games 6"]:
        """Return the torques, and remember."""
        seen = torch.from_numpy(shown[:, None, :PLACES]).float()
        outputs, _, self._state = self._model(seen, torch.Generator(), self._state)
        return outputs[:, 0].clamp(-1, 1).numpy()


@stage(version=1)
def expert(config: worlds.AgentConfig, test: Imitation, place: Place) -> Artifact:
    """Train an expert, record episodes in which it draws actions, and note its mean actions there.

    Source: RIMs, Appendix C.7. Differs: -; the paper does not say who the expert is.

    Args:
        config: How it learns.
        test: How long, what it shows, and how it is tested.
        place: Folder of the expert; its episodes are in ``episodes``.

    Returns:
        Tensors ``states`` [episodes time 17], as the expert sees them, and ``actions``
        [episodes time 6]; ``rows`` of `returns` for its mean actions.
    """
    train_agent(config, place.path, steps=test.steps)
    data = record_agent(place.path, place.path / "episodes", episodes=test.episodes)
    act = partial(load_agent(place.path).predict, deterministic=True)
    shown = [data.episode(i).observations["observation"][:-1] for i in range(test.episodes)]
    states = worlds.RANGES * np.stack(shown)
    actions = act(states.reshape(-1, 17))[0].reshape(*states.shape[:2], 6)
    tensors = {"states": torch.tensor(states).float(), "actions": torch.tensor(actions)}
    return Artifact(
        {"rows": returns(test, config.seed, lambda: lambda seen: act(seen)[0])}, tensors
    )


@stage(version=1)
def imitator(
    test: Imitation, task: SequenceTask, model: str, sizes: Sizes, seed: int, learned: Artifact
) -> Artifact:
    """Play by a model that `rmr_gym.stages.sequences.sequences` left; ``rows`` are of `returns`."""
    learner = fresh_model(task, model, sizes, seed)
    learner.load_state_dict(learned.part("model"))
    return Artifact({"rows": returns(test, seed, partial(Imitator, learner))})


def returns(test: Imitation, seed: int, player: Callable[[], Policy]) -> list[dict[str, float]]:
    """Return the mean return of some episodes for each strength of the perturbation.

    Args:
        test: Strengths and number of episodes.
        seed: Of the episodes; all who play with it begin alike.
        player: Makes who plays, once a strength.
    """
    rows = []
    for strength in test.strengths:
        around = partial(perturbed, strength=strength)
        points = play(CONFIG, player(), episodes=test.plays, seed=seed, around=around)
        rows.append({"strength": strength, "return": fmean(points)})
    return rows
