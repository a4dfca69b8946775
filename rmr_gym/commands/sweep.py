"""`rmr-gym sweep`: the transfer matrix, the bottleneck, and how far a sweep is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import out_console, progress_bars
from rmr_gym.commands.tasks import Flat, NaturalRuns, conclude

if TYPE_CHECKING:
    from rmr_gym.protocol.stages import GameTask
    from rmr_gym.protocol.sweep_status import Estimate, Kind
    from rmr_gym.protocol.transfer_donors import Donor

app = SubcommandApp()
Positional = tyro.conf.Positional


@app.command
def transfer(
    games: tuple[str, ...] = (),
    donors: tuple[str, ...] = (),
    objective: str | None = None,
    runs: Flat[NaturalRuns] = NaturalRuns(),
) -> None:
    """Train every recipient's encoder through every donor's frozen P, beside the controls.

    Run again after whatever stopped it: finished cells are kept, failed ones are tried again.

    Args:
        games: Recipients, or "all" for the paper's 24; default: the preset's.
        donors: Names of games, random_dynamics, amplified_random, or NAME=FOLDER of a pretrained
            P, for instance balls=runs/balls; default: the recipients.
        objective: The natural objective; default: the preset's.
        runs: How to compute.
    """
    from rmr_gym.protocol.transfer import transfer as run_transfer  # noqa: PLC0415

    chosen = runs.chosen(objective)
    seeds, out = runs.seed_range(chosen.seeds), runs.folder(chosen.natural.objective, "transfer")
    with progress_bars() as progress_for:

        def tasks_of(names: Sequence[str]) -> "list[GameTask]":
            return runs.tasks(names, chosen, progress_for)

        tasks = tasks_of(games)
        given = _donors(donors or [task.game for task in tasks], tasks[0], tasks_of)
        problems = run_transfer(tasks, given, seeds, out, runs.computing(progress_for))
    conclude(out, problems)


@app.command
def bottleneck(
    games: tuple[str, ...] = (),
    dims: tuple[int, ...] = (2, 4, 8, 16, 32, 64),
    objective: str | None = None,
    runs: Flat[NaturalRuns] = NaturalRuns(),
) -> None:
    """Pretrain, train and probe with latents of several widths.

    Run again after whatever stopped it: finished cells are kept, failed ones are tried again.

    Args:
        games: Names of games, or "all" for the paper's 24; default: the preset's.
        dims: Widths of the latents.
        objective: The natural objective; default: the preset's.
        runs: How to compute.
    """
    from rmr_gym.protocol.bottleneck import bottleneck as run_bottleneck  # noqa: PLC0415

    chosen = runs.chosen(objective)
    seeds, out = runs.seed_range(chosen.seeds), runs.folder(chosen.natural.objective, "bottleneck")
    with progress_bars() as progress_for:
        tasks = runs.tasks(games, chosen, progress_for)
        problems = run_bottleneck(tasks, dims, seeds, out, runs.computing(progress_for))
    conclude(out, problems)


@app.command
def objectives(
    names: Positional[tuple[str, ...]],
    games: tuple[str, ...] = (),
    arms: tuple[str, ...] = (),
    episodes: tuple[int, ...] = (),
    checkpoints: tuple[int, ...] = (),
    runs: Flat[NaturalRuns] = NaturalRuns(),
) -> None:
    """Train and probe the arms under several objectives, with all or with little natural data.

    Run again after whatever stopped it: finished cells are kept, failed ones are tried again.

    Args:
        names: Objectives, for instance cswm infonce infonce_aligned.
        games: Names of games, or "all" for the paper's 24; default: the preset's.
        arms: rmr, cswm, random_p, shuffled_p, no_p, untrained; default: all.
        episodes: Numbers of natural episodes to train on; default: all that there are.
        checkpoints: Steps at which encoders are probed; training ends at the last; default: the
            preset's.
        runs: How to compute.
    """
    from dataclasses import replace  # noqa: PLC0415

    from rmr_gym.protocol.objectives import ARMS, study_objectives  # noqa: PLC0415

    chosen = runs.chosen()
    if checkpoints:
        chosen = replace(chosen, natural=replace(chosen.natural, checkpoints=checkpoints))
    seeds, out = runs.seed_range(chosen.seeds), runs.folder("objectives")
    with progress_bars() as progress_for:
        tasks = runs.tasks(games, chosen, progress_for)
        problems = study_objectives(
            *(tasks, names, seeds, out, runs.computing(progress_for)),
            arms=arms or ARMS,
            episodes=episodes or (None,),
        )
    conclude(out, problems)


@app.command
def status(folder: Positional[Path]) -> None:
    """Tell how many cells of a sweep are done, what they cost, what failed and how long it takes.

    May be asked while the sweep runs, and from another machine that sees the folder.

    Args:
        folder: Run folder of a sweep or a comparison.
    """
    from rmr_gym.protocol.sweep_folder import FAILED, SweepFolder  # noqa: PLC0415
    from rmr_gym.protocol.sweep_status import estimate, kinds  # noqa: PLC0415

    kept = SweepFolder(folder)
    states = kept.read_states()
    _print_kinds(kinds(states))
    times = [time for state in states if (time := kept.finished(state.key))]
    _print_lines(_estimate_lines(estimate(states, times)))
    for state in states:
        if state.state == FAILED:
            error = f"failed, attempt {state.attempts}: {state.key}: {state.error}"
            _print_lines([error, f"  log: {kept.log(state.key)}"])


def _donors(
    names: Sequence[str], task: "GameTask", tasks_of: "Callable[[Sequence[str]], list[GameTask]]"
) -> "list[Donor]":
    """Return the donors of the names in their order; games may be told by "all"."""
    from rmr_gym.protocol.transfer_donors import (  # noqa: PLC0415
        AMPLIFIED_RANDOM,
        RANDOM_DYNAMICS,
        amplified_random_donor,
        folder_donor,
        game_donor,
        random_dynamics_donor,
    )

    found = []
    for name in names:
        label, equals, folder = name.partition("=")
        if equals:
            found.append(folder_donor(label, Path(folder), task.preset.model))
        elif name == RANDOM_DYNAMICS:
            found.append(random_dynamics_donor(task))
        elif name == AMPLIFIED_RANDOM:
            found.append(amplified_random_donor(task))
        else:
            found += [game_donor(task) for task in tasks_of([name])]
    return found


def _print_kinds(rows: "Sequence[Kind]") -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table("cells", "done", "failed", "waiting", "seconds a cell")
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        table.add_row(row.name, str(row.done), str(row.failed), str(row.waiting), seconds)
    out_console.print(table)


def _estimate_lines(known: "Estimate") -> list[str]:
    cost = f"spent {_duration(known.spent)} of one core; the rest needs {_duration(known.rest)}"
    if known.unknown:
        cost += f" and {known.unknown} cells of kinds of which none is done yet"
    if not known.rate or not known.left:
        return [cost]
    return [cost, f"of late {3600 * known.rate:.0f} cells an hour: {_duration(known.left)} left"]


def _duration(seconds: float) -> str:
    """Return seconds, minutes or hours, whichever reads best."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        out_console.print(line, markup=False, highlight=False, soft_wrap=True)
