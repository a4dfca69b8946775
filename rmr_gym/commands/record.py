"""`rmr-gym record`: games and other environments as data sets."""

import re
from pathlib import Path

from rmr_gym.commands.console import out_console, progress_bars
from rmr_gym.core.errors import RMRError
from rmr_gym.core.options import read_options


def record(
    game: str | None = None,
    env: str | None = None,
    out: Path | None = None,
    episodes: int = 96,
    max_steps: int | None = None,
    players: str | None = None,
    seed: int = 0,
    frameskip: int = 4,
    repeat_action_probability: float = 0.0,
    weights: Path | None = None,
    options: tuple[str, ...] = (),
    workers: int = 1,
    force: bool = False,
) -> None:
    """Record a game (paired RAM and pixels) or another environment, losslessly.

    One file an episode. Run again after an interruption: finished episodes are kept, the rest is
    recorded, and the data set ends byte-equal to that of an unbroken run.

    Args:
        game: Name of the game, for instance Pong, or any other of ALE's; or give --env.
        env: Id of any other registered environment, for instance rmr/BouncingBalls-v0.
        out: Folder of the data set; default: runs/data/NAME-EPISODES[xMAX_STEPS].
        episodes: Number of episodes.
        max_steps: Agent steps after which an episode is cut; default: 500 for a game, the
            environment's own limit otherwise.
        players: Who plays a game in turn: all (32 of graded skill), unskilled, uniform, or names
            joined by commas; see `rmr-gym players list`. Default: all; unskilled for a game of
            which no players are trained.
        seed: Seed of every draw.
        frameskip: Emulated frames an agent step of a game.
        repeat_action_probability: Sticky actions, 0 to 1; 0 keeps RAM deterministic.
        weights: Folder of trained players, from `rmr-gym players train`; default: the shipped.
        options: What the environment of --env is made with, for instance balls=4 resolution=32.
        workers: Processes that record side by side.
        force: Overwrite a data set that is there.
    """
    from rmr_gym.agents import record as recording  # noqa: PLC0415

    if (game is None) == (env is None):
        raise RMRError("expected either --game NAME or --env ID, to say what to record")
    wanted = str(game or env)
    known = recording.game_id(wanted)
    given = read_options(options, "balls=4")
    if known is not None:
        max_steps = 500 if max_steps is None else max_steps
        given |= {"frameskip": frameskip, "repeat_action_probability": repeat_action_probability}
    name = re.sub(r"-v\d+$", "", known) if game and known else wanted
    name, length = name.rpartition("/")[2], "" if max_steps is None else f"x{max_steps}"
    with progress_bars() as progress_for:
        dataset = recording.record(
            known or wanted,
            out or Path("runs") / "data" / f"{name}-{episodes}{length}",
            episodes=episodes,
            players=players,
            weights=weights,
            max_steps=max_steps,
            seed=seed,
            workers=workers,
            overwrite=force,
            progress=progress_for(f"recording {name}"),
            **given,
        )
    out_console.print(repr(dataset), markup=False)
