"""What a trained agent meets, as a data set: agent, data, P, features, agent."""

from pathlib import Path
from typing import Any

from rmr_gym.agents.sb3.config import AgentConfig, read_config
from rmr_gym.agents.sb3.train import chooser, load_agent
from rmr_gym.agents.sb3.worlds import make_games
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import MANIFEST
from rmr_gym.protocol.training import Progress
from rmr_gym.wrappers.record import RecordTransitions


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

    The columns are those of `rmr_gym.agents.collect.collect` for games (screen as palette indices
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
    if episodes < 1:
        raise RMRError(f"expected 1 or more episodes, found {episodes}")
    config, agent = read_config(folder), load_agent(folder)
    there = 0 if overwrite or not (path / MANIFEST).is_file() else _episodes_of(path)

    def recorder(env: Any) -> Any:
        return RecordTransitions(env, path, head=head_of(config), overwrite=overwrite)

    venv = make_games(config, copies=1, learning=False, around=recorder)
    try:
        for index in range(there, episodes):
            agent.set_random_seed(integer_seed(seed, "recording agent", config.game, index))
            venv.seed(integer_seed(seed, "agent's episode", config.game, index))
            observation, choose = venv.reset(), chooser(agent)
            over = False
            while not over:
                observation, _, dones, _ = venv.step(choose(observation))
                over = bool(dones[0])
            if progress is not None:
                progress(index + 1, episodes)
    finally:
        venv.close()
    return TransitionDataset(path)


def head_of(config: AgentConfig) -> str:
    """Return what a data set calls the agent that played."""
    return f"{config.algorithm} on {config.features}"


def _episodes_of(path: Path) -> int:
    return len(TransitionDataset(path).episodes)
