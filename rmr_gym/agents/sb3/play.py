"""What a trained agent does: the points that it makes, and its episodes as a data set."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rmr_gym.agents.record import (
    Plan,
    Policy,
    Progress,
    Step,
    Watched,
    chooser,
    environment_of,
    record_plan,
)
from rmr_gym.agents.sb3.train import load_agent
from rmr_gym.agents.sb3.worlds import AgentConfig, make_games, read_config
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Manifest
from rmr_gym.wrappers.describe import describe


def returns(
    folder: Path, *, episodes: int, seed: int = 0, agent: BaseAlgorithm | None = None
) -> Sequence[float]:
    """Return the points of each of some episodes.

    Args:
        folder: Of the agent.
        episodes: How many; the n-th of a seed begins alike for every agent of the game.
        seed: Of the episodes and of the agent's choices.
        agent: Who plays; None: the most trained one of the folder.

    Raises:
        RMRError: No episodes, or no agent.
    """
    config = read_config(folder)
    agent = agent or load_agent(folder)
    agent.set_random_seed(integer_seed(seed, "evaluating agent", config.game))
    return play(config, chooser(agent), episodes=episodes, seed=seed)


def random_returns(config: AgentConfig, *, episodes: int, seed: int = 0) -> Sequence[float]:
    """Return the points that actions chosen at random make in the episodes of `returns`."""
    rng = generator(seed, "random player", config.game)
    venv = make_games(config, copies=1, learning=False)
    actions: Any = venv.action_space
    venv.close()
    return play(
        config, lambda _: rng.integers(actions.n, size=episodes), episodes=episodes, seed=seed
    )


def play(config: AgentConfig, choose: Policy, *, episodes: int, seed: int) -> list[float]:
    """Play episodes side by side, each to its end, and return the points of each.

    Args:
        config: Game and features.
        choose: Chooses an action for each of the games.
        episodes: How many.
        seed: Of the episodes.
    """
    if episodes < 1:
        raise RMRError(f"expected 1 or more episodes, found {episodes}")
    venv = make_games(config, copies=episodes, learning=False)
    venv.seed(integer_seed(seed, "evaluation", config.game))
    observation = venv.reset()
    points, playing = np.zeros(episodes), np.ones(episodes, bool)
    while playing.any():
        observation, rewards, dones, _ = venv.step(choose(observation))
        points[playing] += rewards[playing]
        playing &= ~dones
    venv.close()
    return points.tolist()


@dataclass(frozen=True)
class AgentPlan(Plan):
    """The plan of episodes that an agent plays; its ``env`` is the agent's configuration."""

    def manifest(self) -> Manifest:
        """Return the manifest of the data set that the plan leads to."""
        (inside,) = environment_of(self).get_attr("inside")
        return describe(inside, heads=(f"{self.env.algorithm} on {self.env.features}",))

    def episode_seed(self, index: int) -> int:
        """Return what the game is reset with for an episode."""
        return integer_seed(self.seed, "agent's episode", self.env.game, index)

    def environment(self) -> Any:
        """Make the game, watched inside of what makes the agent's features."""
        return make_games(self.env, copies=1, learning=False, around=Watched)

    def play(self, indices: Sequence[int]) -> Generator[list[Step], None, None]:
        """Play an episode; the game begins the next by itself, which is no part of it."""
        venv, index = environment_of(self), indices[0]
        self.policy.set_random_seed(
            integer_seed(self.seed, "recording agent", self.env.game, index)
        )
        venv.seed(self.episode_seed(index))
        observation, choose = venv.reset(), chooser(self.policy)
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
    return record_plan(plan, path, episodes, overwrite=overwrite, progress=progress)
