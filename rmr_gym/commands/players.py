"""`rmr-gym players`: train, grade, measure and list the players that data are recorded with."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from rmr_gym.agents.players import graded
from rmr_gym.commands.console import print_rows, progress_bar, say
from rmr_gym.core.errors import RMRError
from rmr_gym.core.processes import in_processes

DONE = "worked on players"
Games = tyro.conf.Positional[tuple[str, ...]]


def train(
    games: Games = (),
    out: Path = Path("runs/players"),
    steps: int = 500_000,
    episodes: int = 10,
    seed: int = 0,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Train players from RAM with PPO, and keep a low, a middle and a high level of each game.

    Run again after an interruption: games that are finished are not trained again. The result can
    be recorded with: `rmr-gym record --weights OUT/weights`.

    Args:
        games: Names of games, any of ALE's; default: the paper's 24.
        out: Folder of the checkpoints; the graded weights go to OUT/weights.
        steps: Steps of training a game, 4 frames each.
        episodes: Episodes on which each checkpoint is measured before it is graded.
        seed: Of training and measuring.
        workers: Games that are trained side by side, each in a process.
    """
    names = _names(games)
    job = partial(_train_one, out=out, steps=steps, episodes=episodes, seed=seed)
    with progress_bar("training players") as progress:
        calls = [(name,) for name in names]
        for done, path in enumerate(in_processes(job, calls, workers, DONE), 1):
            progress(done, len(names))
            say(f"written: {path}")


def evaluate(
    games: Games = (),
    out: Path = Path("runs/players/returns.csv"),
    weights: Path | None = None,
    episodes: int = 10,
    max_steps: int = 4500,
    seed: int = 0,
    workers: int = os.cpu_count() or 1,
) -> None:
    """Measure the return of each of the 32 players of games, and write a table.

    Games that the table holds already are not measured again.

    Args:
        games: Names of games, any of ALE's; default: the paper's 24.
        out: CSV of one row a game and player.
        weights: Folder of trained players; default: those that come with the package.
        episodes: Episodes a player.
        max_steps: Steps after which an episode is cut; 4500 are five minutes of play.
        seed: Of the episodes.
        workers: Games that are measured side by side, each in a process.
    """
    from rmr_gym.agents.players.train import evaluate_players, write_returns  # noqa: PLC0415

    rows: list[dict[str, Any]] = [*graded.read_returns(out)]
    there = {row["game"] for row in rows}
    missing = [name for name in _names(games) if name not in there]
    measured = {"episodes": episodes, "max_steps": max_steps, "seed": seed}
    job = partial(evaluate_players, folder=weights or graded.SHIPPED, **measured)
    with progress_bar("measuring players") as progress:
        calls = [(name,) for name in missing]
        for done, found in enumerate(in_processes(job, calls, workers, DONE), 1):
            rows = sorted([*rows, *found], key=lambda row: row["game"])
            write_returns(out, rows)
            progress(done, len(missing))
    say(f"written: {out}")


def list_players(game: tyro.conf.Positional[str | None] = None) -> None:
    """Print what the shipped players score, beside random play and a human tester.

    Args:
        game: One game, for all of its 32 players; default: all games, their best player alone.
    """
    name = None if game is None else graded.game_name(game)
    rows = graded.read_returns()
    if name is not None:
        own = [{"player": row["head"], **row} for row in rows if row["game"] == name]
        if not own:
            raise RMRError(
                f"no players of {name} come with the package: `rmr-gym players train {name}` makes "
                "some; without them those without skill play"
            )
        print_rows(own, ("player", *graded.COLUMNS[2:]))
        known = graded.references()[name]
        say(f"published: random {known.random}, human {known.human}")
    else:
        print_rows([*_best_of_each(rows)])
    say(f"random and human: {graded.REFERENCE_SOURCE}")


def _best_of_each(rows: list[dict[str, str]]) -> Iterator[dict[str, Any]]:
    for name, known in graded.references().items():
        of_game = {row["head"]: float(row["mean_return"]) for row in rows if row["game"] == name}
        if of_game:
            player, best = max(of_game.items(), key=lambda item: item[1])
            yield {
                "game": name,
                "uniform-1": f"{of_game['uniform-1']:.1f}",
                "best": f"{best:.1f}",
                "player": player,
                "published random": f"{known.random:.1f}",
                "human": f"{known.human:.1f}",
            }


def _names(games: Sequence[str]) -> list[str]:
    from rmr_gym.experiments.atari import game_names  # noqa: PLC0415  (torch)

    return game_names(games or ("all",))


def _train_one(game: str, *, out: Path, steps: int, episodes: int, seed: int) -> Path:
    import torch  # noqa: PLC0415

    from rmr_gym.agents.players.train import grade, train_player  # noqa: PLC0415

    torch.set_num_threads(1)
    final = out / "weights" / f"{game}.safetensors"
    if final.exists():
        return final
    checkpoints = train_player(game, out, steps=steps, seed=seed)
    return grade(game, checkpoints, out / "weights", episodes=episodes, seed=seed)


PLAYERS = {"train": train, "evaluate": evaluate, "list": list_players}
