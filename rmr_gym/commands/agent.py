"""`rmr-gym agent`: train, measure and watch agents on RMR features and what they compete with."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import out_console, print_rows, progress_bars
from rmr_gym.envs.atari.games import find_game

app = SubcommandApp()
Positional = tyro.conf.Positional
Features = Annotated[
    str,
    tyro.conf.arg(metavar="{rmr,cswm,random_p,shuffled_p,no_p,untrained,supervised,cnn,ram,state}"),
]
Algorithm = Annotated[str, tyro.conf.arg(metavar="{ppo,recurrent_ppo,rims_ppo,dqn,qrdqn}")]


@app.command
def train(
    game: str,
    features: Features = "rmr",
    encoder: str | None = None,
    algorithm: Algorithm = "ppo",
    steps: int = 100_000,
    seed: int = 0,
    copies: int = 8,
    max_steps: int = 4500,
    checkpoints: int = 10,
    tensorboard: bool = False,
    out: Path | None = None,
) -> None:
    """Train an agent; run again after an interruption, it goes on at its last checkpoint.

    Args:
        game: Name of the game, for instance Pong; or PushedBalls.
        features: What the agent sees: frozen slots of an encoder (the arm that made it), cnn
            (SB3's NatureCNN on the last 4 frames, end to end), ram (its bits), or, of balls, state
            (their positions and velocities).
        encoder: Folder or shipped name of the encoder; default with rmr: the game's shipped one. Of
            balls none is shipped: write one with `rmr-gym train`.
        algorithm: ppo, recurrent_ppo (with an LSTM), rims_ppo (with RIMs), dqn or qrdqn.
        steps: Steps over all copies, 4 frames each.
        seed: Of training.
        copies: Games that are played side by side.
        max_steps: Steps after which an episode is cut.
        checkpoints: How often the agent is kept.
        tensorboard: Log for TensorBoard, which must be installed, in the folder's tensorboard/.
        out: Folder of the agent; default: runs/agents/GAME-FEATURES-ALGORITHM-SEED.
    """
    from rmr_gym.agents.sb3.train import train_agent  # noqa: PLC0415
    from rmr_gym.agents.sb3.worlds import BALLS, AgentConfig, find_world  # noqa: PLC0415

    name = find_world(game)
    if features == "rmr" and encoder is None and name != BALLS:
        encoder = find_game(name).rom
    config = AgentConfig(name, features, algorithm, encoder, seed, copies, max_steps)
    folder = out or Path("runs") / "agents" / f"{name}-{features}-{algorithm}-{seed}"
    with progress_bars() as progress_for:
        path = train_agent(
            config,
            folder,
            steps=steps,
            checkpoints=checkpoints,
            tensorboard=tensorboard,
            progress=progress_for(f"training on {name}, {features}"),
        )
    out_console.print(f"written: {path}", markup=False, soft_wrap=True)


@app.command
def evaluate(agent: Positional[Path], episodes: int = 10, seed: int = 0) -> None:
    """Print the points that an agent makes, unclipped.

    Args:
        agent: Its folder.
        episodes: Number of episodes.
        seed: Of the episodes.
    """
    from statistics import fmean, median  # noqa: PLC0415

    from rmr_gym.agents.sb3.play import returns  # noqa: PLC0415

    points = returns(agent, episodes=episodes, seed=seed)
    row = {"episodes": len(points), "mean": fmean(points), "median": float(median(points))}
    row |= {"lowest": min(points), "highest": max(points)}
    print_rows([row], tuple(row))


@app.command
def enjoy(
    agent: Positional[Path], out: Path | None = None, steps: int = 500, seed: int = 0
) -> None:
    """Write a film of an episode: the game, and beside it how far each slot moves.

    Args:
        agent: Its folder.
        out: The film, a name that ends in .gif, or in .mp4 (needs imageio[ffmpeg]); default:
            episode.gif in the agent's folder.
        steps: At most so many steps.
        seed: Of the episode.
    """
    from rmr_gym.agents.sb3.film import film  # noqa: PLC0415

    path = out or agent / "episode.gif"
    frames = film(agent, path, steps=steps, seed=seed)
    out_console.print(f"written: {path}, {frames} frames", markup=False, soft_wrap=True)


@app.command
def record(
    agent: Positional[Path],
    out: Path,
    episodes: int = 16,
    seed: int = 0,
    overwrite: bool = False,
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
    from rmr_gym.agents.sb3.play import record_agent  # noqa: PLC0415

    with progress_bars() as progress_for:
        dataset = record_agent(
            agent,
            out,
            episodes=episodes,
            seed=seed,
            overwrite=overwrite,
            progress=progress_for(f"recording {agent.name}"),
        )
    out_console.print(repr(dataset), markup=False, highlight=False, soft_wrap=True)
