"""`rmr-gym agent`: train, measure and watch agents on RMR features and what they compete with."""

from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean, median

import tyro

from rmr_gym.agents.sb3.agent import film, load_agent, record_agent, returns, train_agent
from rmr_gym.agents.sb3.worlds import AgentConfig, read_config
from rmr_gym.commands.console import print_rows, progress_bar, say

Positional = tyro.conf.Positional


@dataclass(frozen=True, kw_only=True)
class Train(AgentConfig):
    """Train an agent; run again after an interruption, it goes on at its last checkpoint.

    Attributes:
        steps: Steps over all copies, 4 frames each.
        checkpoints: How often the agent is kept.
        tensorboard: Log for TensorBoard, which must be installed, in the folder's tensorboard/.
        out: Folder of the agent; default: runs/agents/GAME-FEATURES-ALGORITHM-SEED.
    """

    steps: int = 100_000
    checkpoints: int = 10
    tensorboard: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check nothing yet: tyro would put the sentence into a box."""

    def execute(self) -> None:
        """Carry the command out."""
        config = AgentConfig(*(getattr(self, field.name) for field in fields(AgentConfig)))
        with progress_bar(f"training {config.label}") as progress:
            path = train_agent(
                config,
                self.out or Path("runs") / "agents" / config.label.replace(" ", "-"),
                steps=self.steps,
                checkpoints=self.checkpoints,
                tensorboard=self.tensorboard,
                progress=progress,
            )
        say(f"written: {path}")


def evaluate(agent: Positional[Path], episodes: int = 10, seed: int = 0) -> None:
    """Print the points that an agent makes, unclipped.

    Args:
        agent: Its folder.
        episodes: Number of episodes.
        seed: Of the episodes.
    """
    points = returns(read_config(agent), load_agent(agent), episodes=episodes, seed=seed)
    row = {"episodes": len(points), "mean": fmean(points), "median": float(median(points))}
    print_rows([row | {"lowest": min(points), "highest": max(points)}])


def enjoy(
    agent: Positional[Path], out: Path | None = None, steps: int = 500, seed: int = 0
) -> None:
    """Write a film of an episode: the game, how far each slot moves, and (PPO) the value.

    Args:
        agent: Its folder.
        out: The film, a name that ends in .gif, or in .mp4 (needs imageio[ffmpeg]); default:
            episode.gif in the agent's folder.
        steps: At most so many steps.
        seed: Of the episode.
    """
    path = out or agent / "episode.gif"
    say(f"written: {path}, {film(agent, path, steps=steps, seed=seed)} frames")


def record(
    agent: Positional[Path], out: Path, episodes: int = 16, seed: int = 0, overwrite: bool = False
) -> None:
    """Record episodes of an agent as a data set, with the columns of `rmr-gym record`.

    Run again after an interruption: episodes that are there are kept.

    Args:
        agent: Its folder.
        out: Folder of the data set.
        episodes: Episodes that it shall hold.
        seed: Of the episodes.
        overwrite: Delete the episodes that are there first.
    """
    with progress_bar(f"recording {agent.name}") as progress:
        dataset = record_agent(
            agent, out, episodes=episodes, seed=seed, overwrite=overwrite, progress=progress
        )
    say(repr(dataset))


AGENT = {"train": Train, "evaluate": evaluate, "enjoy": enjoy, "record": record}
