"""`rmr-gym record` and `dataset`: make, look at, check, exchange and join data sets."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import err_console, out_console, print_rows, progress_bars
from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.options import read_options

if TYPE_CHECKING:
    from rmr_gym.data.dataset import TransitionDataset

app = SubcommandApp()
FORMATS = ("minari",)
Positional = tyro.conf.Positional
From = Annotated[str, tyro.conf.arg(name="from", metavar="{minari}")]
To = Annotated[str, tyro.conf.arg(metavar="{minari}")]


@app.command
def info(path: Positional[Path], duplicates: bool = False) -> None:
    """Print what a data set holds: columns, heads, returns, lengths, sizes.

    Args:
        path: Folder of the data set.
        duplicates: Also count byte-equal observations, which reads them all.
    """
    from rmr_gym.data.dataset import TransitionDataset  # noqa: PLC0415

    dataset = TransitionDataset(path)
    out_console.print(repr(dataset), markup=False, highlight=False, soft_wrap=True)
    for line in _facts(dataset):
        out_console.print(line, markup=False, highlight=False, soft_wrap=True)
    heads = _heads(dataset)
    if heads:
        print_rows(heads, tuple(heads[0]))
    if duplicates:
        columns = [column.name for column in dataset.manifest.observations]
        print_rows([_duplicates(dataset, name) for name in columns], _DUPLICATES)
    _warn_if_written(path)


@app.command
def verify(path: Positional[Path]) -> None:
    """Read every episode against its checksums; exit code 2 if one is damaged or missing.

    Args:
        path: Folder of the data set.
    """
    from rmr_gym.data.verify import find_problems  # noqa: PLC0415

    with progress_bars() as progress_for:
        problems = find_problems(path, progress_for(f"verifying {path}"))
    _warn_if_written(path)
    for problem in problems:
        err_console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise RMRError(
            f"{path}: damaged or missing episodes: {len(problems)}; delete the damaged files and "
            "run the command that made the data set again, which writes only what is not there"
        )
    out_console.print(f"{path}: every episode is whole", markup=False, soft_wrap=True)


@app.command
def export(
    path: Positional[Path],
    id: str,
    to: To = "minari",
    out: Path | None = None,
    force: bool = False,
) -> None:
    """Write a data set in another format, bit-equal in every column.

    Args:
        path: Folder of the data set.
        id: Id of the Minari data set, for instance rmr/pong-v0.
        to: Format to write.
        out: Folder of Minari's data sets; default: MINARI_DATASETS_PATH, or Minari's own.
        force: Replace the Minari data set of that id.
    """
    from rmr_gym.data.dataset import TransitionDataset  # noqa: PLC0415
    from rmr_gym.data.minari import export_minari  # noqa: PLC0415

    _require_format(to)
    dataset = TransitionDataset(path)
    with progress_bars() as progress_for:
        progress = progress_for(f"exporting {path}")
        folder = export_minari(dataset, id, root=out, overwrite=force, progress=progress)
    out_console.print(f"written: {folder}", markup=False, soft_wrap=True)


@app.command(name="import")
def import_(
    id: Positional[str],
    path: Positional[Path],
    from_: From = "minari",
    root: Path | None = None,
    force: bool = False,
) -> None:
    """Write a data set of another format as one of rmr-gym; run again, it goes on where it was.

    Args:
        id: Id of the local Minari data set, for instance D4RL/door/human-v2.
        path: Folder of the data set to write.
        from_: Format to read.
        root: Folder of Minari's data sets; default: MINARI_DATASETS_PATH, or Minari's own.
        force: Delete the data set that is in PATH first.
    """
    from rmr_gym.data.minari import import_minari  # noqa: PLC0415

    _require_format(from_)
    with progress_bars() as progress_for:
        progress = progress_for(f"importing {id}")
        dataset = import_minari(id, path, root=root, overwrite=force, progress=progress)
    out_console.print(repr(dataset), markup=False, highlight=False, soft_wrap=True)


@app.command
def merge(
    out: Positional[Path], sources: Positional[tuple[Path, ...]], force: bool = False
) -> None:
    """Join data sets that differ in seeds and heads only; run again, it goes on where it was.

    Args:
        out: Folder of the new data set.
        sources: Folders of the data sets, in the order of their episodes in the new one.
        force: Delete the data set that is in OUT first.
    """
    from rmr_gym.data.verify import merge_datasets  # noqa: PLC0415

    with progress_bars() as progress_for:
        progress = progress_for(f"merging into {out}")
        dataset = merge_datasets(out, sources, overwrite=force, progress=progress)
    out_console.print(repr(dataset), markup=False, highlight=False, soft_wrap=True)


_DUPLICATES = ("column", "rows", "repeated", "within an episode", "across episodes")


def _duplicates(dataset: "TransitionDataset", column: str) -> dict[str, Any]:
    from rmr_gym.data.verify import duplicate_report  # noqa: PLC0415

    report = duplicate_report(dataset.by_episode(column))
    counts = (report.rows, report.repeated, report.within, report.across)
    return dict(zip(_DUPLICATES, (column, *counts), strict=True))


def _facts(dataset: "TransitionDataset") -> list[str]:
    manifest = dataset.manifest
    versions = ", ".join(f"{name} {found}" for name, found in manifest.versions.items())
    lines = [
        f"environment {manifest.env_id} {manifest.env_kwargs}, settings {manifest.settings}",
        f"recorded with {versions or 'unknown versions'}; fingerprint {dataset.fingerprint}",
    ]
    if not dataset.episodes:
        return lines
    lengths = [episode.length for episode in dataset.episodes]
    stored, raw = dataset.stored_bytes(), dataset.raw_bytes()
    return [
        *lines,
        f"lengths {min(lengths)} to {max(lengths)}, mean {sum(lengths) / len(lengths):.1f}; "
        f"interrupted {sum(episode.interrupted for episode in dataset.episodes)}",
        f"{stored / 1e6:.2f} MB on disk, {stored / len(dataset):.1f} bytes a step, of "
        f"{raw / 1e6:.2f} MB uncompressed, {raw / len(dataset):.1f} bytes a step",
    ]


def _heads(dataset: "TransitionDataset") -> list[dict[str, Any]]:
    by_head: dict[str, list[Any]] = {}
    for episode in dataset.episodes:
        by_head.setdefault(episode.head, []).append(episode)
    return [
        {
            "head": head,
            "episodes": len(episodes),
            "steps": sum(episode.length for episode in episodes),
            "mean return": sum(episode.total_reward for episode in episodes) / len(episodes),
            "least": min(episode.total_reward for episode in episodes),
            "most": max(episode.total_reward for episode in episodes),
        }
        for head, episodes in by_head.items()
    ]


def _require_format(name: str) -> None:
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)


def _warn_if_written(path: Path) -> None:
    from rmr_gym.data.verify import being_written  # noqa: PLC0415

    if being_written(path):
        err_console.print(
            f"note: a recorder is writing to {path}; episodes that it has not finished are not "
            "seen, and may look as if they were missing",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )


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
