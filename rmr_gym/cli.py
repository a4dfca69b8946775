"""`rmr-gym`: the command line, the only place that knows every part of the suite."""

import os
import re
import select
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands import abstract as abstract_commands
from rmr_gym.commands import agent as agent_commands
from rmr_gym.commands import balls as balls_commands
from rmr_gym.commands import dataset as dataset_commands
from rmr_gym.commands import encoder as encoder_commands
from rmr_gym.commands import players as player_commands
from rmr_gym.commands import sweep as sweep_commands
from rmr_gym.commands import world_model as world_model_commands
from rmr_gym.commands.console import err_console, out_console, print_rows, progress_bars
from rmr_gym.commands.measure import measure
from rmr_gym.commands.tasks import Flat, NaturalRuns, conclude, read_options
from rmr_gym.core.errors import RMRError
from rmr_gym.core.memory import keep_freed_memory

if TYPE_CHECKING:
    from rmr_gym.data.dataset import TransitionDataset
    from rmr_gym.protocol.config import Preset
    from rmr_gym.protocol.stages import GameTask
    from rmr_gym.protocol.store import Artifact

app = SubcommandApp()

Preset_ = Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")]
Positional = tyro.conf.Positional


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `rmr-gym`.

    The exit code is 2 for input that the user can mend, 130 after Ctrl-C, and 141, in silence,
    where whoever read the output has closed it, as in ``rmr-gym --help | head -1``.
    """
    try:
        try:
            _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _output_closed():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        sys.exit(141)


def _output_closed() -> bool:
    """Tell this from other broken pipes, such as that of a worker which died."""
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


def _run(arguments: Sequence[str] | None) -> None:
    keep_freed_memory()
    try:
        app.cli(
            prog="rmr-gym",
            description="Reasoning-Modulated Representations: record, train, probe, compare.",
            args=arguments,
        )
    except RMRError as error:
        err_console.print(
            f"rmr-gym: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)
    except KeyboardInterrupt:
        err_console.print("stopped; run the same command again and it goes on where it was")
        sys.exit(130)


app.command(
    balls_commands.app, name="balls", help="Pretrain P on ball positions; score its rollouts."
)
app.command(
    dataset_commands.app, name="dataset", help="Look into, check, exchange and join data sets."
)
app.command(
    player_commands.app, name="players", help="Train, measure and list the recorded players."
)
app.command(
    abstract_commands.app, name="abstract", help="Table 2: abstract models beside the paper's."
)
app.command(encoder_commands.app, name="encoder", help="Make, show and list pretrained encoders.")
app.command(agent_commands.app, name="agent", help="Train, measure and watch agents.")
app.command(
    sweep_commands.app, name="sweep", help="Transfer matrix, bottleneck; how far a sweep is."
)
app.command(
    world_model_commands.app,
    name="world-model",
    help="Models of whole worlds from frames: train, evaluate, rollout.",
)
app.command(measure)


@app.command
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


@app.command
def pretrain(
    data: Path,
    out: Path,
    preset: Preset_ = "laptop",
    processor: str = "mpnn",
    root: Path = Path("runs"),
    device: str = "cpu",
    force: bool = False,
) -> None:
    """Train a processor on a data set's RAM and write it as an artifact folder.

    Args:
        data: Folder of a recorded data set.
        out: Folder of the artifact to write.
        preset: Sizes and steps.
        processor: Core of P: mpnn, deep_sets, mlp or none.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        force: Overwrite an artifact that is there.
    """
    from rmr_gym.protocol import stages  # noqa: PLC0415

    task = _task(data, preset, root, device)
    model = replace(task.preset.model, core=processor)
    task = replace(task, preset=replace(task.preset, model=model))
    _refuse_existing(out, force)
    with progress_bars() as progress_for:
        artifact = stages.pretrained(task, progress_for(f"pretraining on {task.game} RAM"))
    _export(out, artifact, task, force, kind="processor")
    print_rows(artifact.record["rows"], ("model", "step", "slot_accuracy", "bit_f1"))


@app.command
def train(
    data: Path,
    out: Path,
    processor: Path | None = None,
    arm: str = "rmr",
    seed: int = 0,
    objective: str | None = None,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
    force: bool = False,
) -> None:
    """Train a pixel encoder through P, on pixels alone, and write it as an artifact folder.

    Args:
        data: Folder of a recorded data set.
        out: Folder of the artifact to write.
        processor: Artifact of `rmr-gym pretrain`; needed by the arms rmr and shuffled_p.
        arm: rmr, cswm, random_p, shuffled_p or no_p.
        seed: Fixes initial weights and batches.
        objective: cswm (the paper's hinge) or infonce; default: the preset's.
        preset: Sizes, checkpoints and rates.
        root: Folder of finished stages.
        device: Where to compute: cpu, cuda, cuda:1 ...
        force: Overwrite an artifact that is there.
    """
    from rmr_gym.protocol import stages  # noqa: PLC0415
    from rmr_gym.protocol.arms import find_arm  # noqa: PLC0415
    from rmr_gym.protocol.natural import collapse_message  # noqa: PLC0415

    find_arm(arm)
    task = _task(data, preset, root, device, objective)
    donor = _read_kind(processor, "processor") if processor else None
    if donor:
        task = _with_model_of(donor, task)
    _refuse_existing(out, force)
    with progress_bars() as progress_for:
        title = f"training the {arm} encoder on {task.game} pixels"
        artifact = stages.trained_encoders(task, arm, seed, donor, progress_for(title))
    _export(out, artifact, task, force, kind="encoder", seed=seed)
    collapsed = collapse_message(artifact.record)
    if collapsed:
        raise RMRError(collapsed)


@app.command
def probe(
    data: Path,
    encoder: Path,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Read RAM bits linearly off a frozen encoder, at each of its checkpoints.

    Args:
        data: Folder of a recorded data set.
        encoder: Artifact of `rmr-gym train`.
        preset: Probes, rows and the split by episode.
        root: Folder of finished stages.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    from rmr_gym.protocol import stages  # noqa: PLC0415

    artifact = _read_kind(encoder, "encoder")
    task = _with_model_of(artifact, _task(data, preset, root, device))
    seed, rows = artifact.record["seed"], []
    with progress_bars() as progress_for:
        steps = stages.kept_steps(artifact)
        progress = progress_for("probing")
        for done, step in enumerate(steps, 1):
            probed = stages.probed(task, stages.kept_encoder(task, seed, artifact, step))
            rows += [{"step": step, **row} for row in probed.record["rows"]]
            progress(done, len(steps))
    print_rows(rows, ("step", "probe", "micro_f1", "macro_f1", "slot_accuracy", "effective_rank"))


@app.command
def compare(
    games: tuple[str, ...] = (),
    objective: str | None = None,
    runs: Flat[NaturalRuns] = NaturalRuns(),
) -> None:
    """Record, pretrain, train every arm with paired seeds, probe, test and report.

    Run again after whatever stopped it: finished cells are kept, failed ones are tried again.

    Args:
        games: Names of games, or "all" for the paper's 24; default: the preset's.
        objective: cswm (the paper's hinge), infonce or a variant; default: the preset's.
        runs: How to compute.
    """
    chosen = runs.chosen(objective)
    _compare(games, chosen, runs, runs.folder(chosen.natural.objective))


@app.command
def demo(root: Path = Path("runs"), workers: int | None = None) -> None:
    """Run the whole chain on two games in a few minutes and write a report.

    Args:
        root: Folder of everything that is written.
        workers: Processes that work side by side; default: one a core.
    """
    runs = NaturalRuns(preset="smoke", root=root, workers=workers)
    _compare((), runs.chosen(), runs, root / "demo")


@app.command
def report(folder: Positional[Path]) -> None:
    """Write tables, figures and a self-contained HTML page from a run folder.

    Args:
        folder: Run folder of `rmr-gym compare`, `demo`, `abstract table`, `sweep`, `measure`,
            `agent compare`, `world-model evaluate` or `world-model views`.
    """
    from rmr_gym.experiments.reports import write_report  # noqa: PLC0415

    page, text = write_report(folder)
    out_console.print(text, markup=False, highlight=False, soft_wrap=True)
    out_console.print(f"report: {page}", markup=False, soft_wrap=True)


def _compare(games: Sequence[str], preset: "Preset", runs: NaturalRuns, out: Path) -> None:
    from rmr_gym.protocol.compare import compare as run_comparison  # noqa: PLC0415

    seeds = runs.seed_range(preset.seeds)
    with progress_bars() as progress_for:
        tasks = runs.tasks(games, preset, progress_for)
        problems = run_comparison(tasks, seeds, out, runs.computing(progress_for))
    report(out)
    conclude(None, problems)


def _task(
    data: Path, preset: str, root: Path, device: str, objective: str | None = None
) -> "GameTask":
    from rmr_gym.data.dataset import TransitionDataset  # noqa: PLC0415
    from rmr_gym.models.rmr.pipeline import find_device  # noqa: PLC0415
    from rmr_gym.protocol.config import find_preset  # noqa: PLC0415
    from rmr_gym.protocol.stages import GameTask  # noqa: PLC0415
    from rmr_gym.protocol.store import Store  # noqa: PLC0415

    chosen = find_preset(preset).with_objective(objective)
    dataset = TransitionDataset(data)
    find_device(device)
    game, store = _game_of(dataset, data), Store(root / "store").root
    return GameTask(game, data, store, chosen, device)


def _game_of(dataset: "TransitionDataset", data: Path) -> str:
    if dataset.manifest.game is None:
        raise RMRError(f"{data} is not of an Atari game: record one with `rmr-gym record`")
    return dataset.manifest.game


def _read_kind(folder: Path, kind: str) -> "Artifact":
    from rmr_gym.protocol.store import read_artifact  # noqa: PLC0415

    artifact = read_artifact(folder)
    if artifact.record.get("kind") != kind:
        command = {"processor": "pretrain", "encoder": "train"}[kind]
        raise RMRError(f"{folder} holds no {kind}: expected a folder from `rmr-gym {command}`")
    return artifact


def _with_model_of(artifact: "Artifact", task: "GameTask") -> "GameTask":
    from rmr_gym.domains.atari import AtariModel  # noqa: PLC0415

    try:
        model = AtariModel(**artifact.record["model"])
    except (KeyError, TypeError) as error:
        raise RMRError(
            "the artifact does not say what model it holds: expected a folder from "
            "`rmr-gym pretrain` or `rmr-gym train`"
        ) from error
    return replace(task, preset=replace(task.preset, model=model))


def _refuse_existing(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise RMRError(f"{out} exists already: choose another folder or add --force")


def _export(out: Path, artifact: "Artifact", task: "GameTask", force: bool, **extra: Any) -> None:
    from rmr_gym.protocol.config import as_json  # noqa: PLC0415
    from rmr_gym.protocol.store import Artifact, write_artifact  # noqa: PLC0415

    described = {
        "game": task.game,
        "preset": task.preset.name,
        "model": as_json(task.preset.model),
        **extra,
    }
    write_artifact(out, Artifact(artifact.record | described, artifact.tensors), overwrite=force)
    out_console.print(f"written: {out}", markup=False, soft_wrap=True)
