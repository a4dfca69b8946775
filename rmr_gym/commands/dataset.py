"""`rmr-gym record` and `dataset`: make, look at, check, exchange and join data sets."""

import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from rmr_gym.agents import record as recording
from rmr_gym.agents.players import graded
from rmr_gym.commands.console import print_rows, progress_bar, say, warn
from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.core.options import read_options
from rmr_gym.data import dataset as datasets
from rmr_gym.data.minari import export_minari, import_minari

FORMATS = ("minari",)
Positional = tyro.conf.Positional
From = Annotated[str, tyro.conf.arg(name="from", metavar="{minari}")]
To = Annotated[str, tyro.conf.arg(metavar="{minari}")]


def info(path: Positional[Path], duplicates: bool = False) -> None:
    """Print what a data set holds: columns, heads, returns, lengths, sizes.

    Args:
        path: Folder of the data set.
        duplicates: Also count byte-equal observations, which reads them all.
    """
    dataset = datasets.TransitionDataset(path)
    say(repr(dataset), *_facts(dataset))
    if dataset.episodes:
        print_rows(_heads(dataset))
    if duplicates:
        columns = [spec.name for spec in dataset.manifest.observations]
        counted = {name: datasets.duplicate_report(dataset.by_episode(name)) for name in columns}
        print_rows([{"column": name} | counts for name, counts in counted.items()])
    _warn_if_written(path)


def verify(path: Positional[Path]) -> None:
    """Read every episode against its checksums; exit code 2 if one is damaged or missing.

    Args:
        path: Folder of the data set.
    """
    with progress_bar(f"verifying {path}") as progress:
        problems = datasets.find_problems(path, progress)
    _warn_if_written(path)
    for problem in problems:
        warn(problem, style="red")
    if problems:
        raise RMRError(
            f"{path}: damaged or missing episodes: {len(problems)}; delete the damaged files and "
            "run the command that made the data set again, which writes only what is not there"
        )
    say(f"{path}: every episode is whole")


def export(
    path: Positional[Path], id: str, to: To = "minari", out: Path | None = None, force: bool = False
) -> None:
    """Write a data set in another format, bit-equal in every column.

    Args:
        path: Folder of the data set.
        id: Id of the Minari data set, for instance rmr/pong-v0.
        to: Format to write.
        out: Folder of Minari's data sets; default: MINARI_DATASETS_PATH, or Minari's own.
        force: Replace the Minari data set of that id.
    """
    known_name("format", to, FORMATS)
    dataset = datasets.TransitionDataset(path)
    with progress_bar(f"exporting {path}") as progress:
        folder = export_minari(dataset, id, root=out, overwrite=force, progress=progress)
    say(f"written: {folder}")


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
    known_name("format", from_, FORMATS)
    with progress_bar(f"importing {id}") as progress:
        dataset = import_minari(id, path, root=root, overwrite=force, progress=progress)
    say(repr(dataset))


def merge(
    out: Positional[Path], sources: Positional[tuple[Path, ...]], force: bool = False
) -> None:
    """Join data sets that differ in seeds and heads only; run again, it goes on where it was.

    Args:
        out: Folder of the new data set.
        sources: Folders of the data sets, in the order of their episodes in the new one.
        force: Delete the data set that is in OUT first.
    """
    with progress_bar(f"merging into {out}") as progress:
        dataset = datasets.merge_datasets(out, sources, overwrite=force, progress=progress)
    say(repr(dataset))


def _facts(dataset: datasets.TransitionDataset) -> list[str]:
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


def _heads(dataset: datasets.TransitionDataset) -> list[dict[str, Any]]:
    import pandas as pd  # noqa: PLC0415

    rows = [(episode.head, episode.length, episode.total_reward) for episode in dataset.episodes]
    heads = pd.DataFrame(rows, columns=["head", "steps", "points"]).groupby("head", sort=False)
    columns = {"episodes": ("steps", "size"), "steps": ("steps", "sum")}
    columns |= {"mean return": ("points", "mean"), "least": ("points", "min")}
    return heads.agg(**columns, most=("points", "max")).reset_index().to_dict("records")


def _warn_if_written(path: Path) -> None:
    if datasets.being_written(path):
        warn(
            f"note: a recorder is writing to {path}; episodes that it has not finished are not "
            "seen, and may look as if they were missing"
        )


def record(
    game: str | None = None,
    env: str | None = None,
    out: Path | None = None,
    episodes: int = 96,
    max_steps: int | None = None,
    players: str | None = None,
    policy: str | None = None,
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
        policy: Who plays instead: module:function, a function from an observation to an action in a
            module of this folder or an installed one, or a model of Stable-Baselines3 that the
            module has loaded.
        seed: Seed of every draw.
        frameskip: Emulated frames an agent step of a game.
        repeat_action_probability: Sticky actions, 0 to 1; 0 keeps RAM deterministic.
        weights: Folder of trained players, from `rmr-gym players train`; default: the shipped.
        options: What the environment of --env is made with, for instance balls=4 resolution=32.
        workers: Processes that record side by side.
        force: Overwrite a data set that is there.
    """
    if (game is None) == (env is None):
        raise RMRError("expected either --game NAME or --env ID, to say what to record")
    wanted = str(game or env)
    known = graded.game_id(wanted)
    given = read_options(options, "balls=4")
    if known is not None:
        max_steps = 500 if max_steps is None else max_steps
        given |= {"frameskip": frameskip, "repeat_action_probability": repeat_action_probability}
    name = re.sub(r"-v\d+$", "", known) if game and known else wanted
    name, length = name.rpartition("/")[2], "" if max_steps is None else f"x{max_steps}"
    with progress_bar(f"recording {name}") as progress:
        dataset = recording.record(
            known or wanted,
            out or Path("runs") / "data" / f"{name}-{episodes}{length}",
            episodes=episodes,
            players=players,
            policy=None if policy is None else recording.load_policy(policy),
            weights=weights,
            max_steps=max_steps,
            seed=seed,
            workers=workers,
            overwrite=force,
            progress=progress,
            **given,
        )
    say(repr(dataset))


DATASET = {"info": info, "verify": verify, "export": export, "import": import_, "merge": merge}
