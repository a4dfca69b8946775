"""`rmr-gym run`, `status`, `report`: experiments, how far they are, what they show."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from rmr_gym.commands.console import parsed, print_rows, progress_bars, say, warn
from rmr_gym.experiments import experiments, part_of

if TYPE_CHECKING:
    from rmr_gym.runs.status import Estimate, JobState, Planned

Positional = tyro.conf.Positional


def run(arguments: Sequence[str]) -> None:
    """Run an experiment: ``NAME`` and its options; the exit code is 1 where a job failed."""
    if not arguments or arguments[0] in ("-h", "--help"):
        say("usage: rmr-gym run EXPERIMENT [options], EXPERIMENT --help for its options")
        lines = [(name.replace("_", "-"), about) for name, (_, about) in experiments().items()]
        say(*(f"  {name:14}{about}" for name, about in lines))
        return
    name, *rest = arguments
    from rmr_gym.experiments.base import run as compute  # noqa: PLC0415 - needs torch

    kind = part_of(name.replace("-", "_"), "grid")
    experiment: Any = parsed(kind, rest, f"rmr-gym run {name}")
    with progress_bars() as progress_for:
        out, problems = compute(experiment, progress_for)
    report(out)
    for problem in problems:
        warn(f"note: {problem}")
    if any(state.seconds is None for state in how_far(out)[1]):
        sys.exit(1)


def report(folder: Positional[Path]) -> None:
    """Write tables, figures and a self-contained HTML page from a run folder.

    Args:
        folder: Run folder of `rmr-gym run`.
    """
    from rmr_gym.experiments import write_report  # noqa: PLC0415

    page, text = write_report(folder)
    say(text, f"report: {page}")


def status(folder: Positional[Path], serve: bool = False, port: int = 8000) -> None:
    """Tell how many jobs of a run are done, what they cost, what failed and how long it takes.

    May be asked while the run goes on, and from another machine that sees the folders.

    Args:
        folder: Run folder.
        serve: Show it, with curves of the trainings, on a page that renews itself, until Ctrl-C.
        port: Of that page, which only this machine can open; 0: one that is free.
    """
    if serve:
        from rmr_gym.commands.live import serve as serve_page  # noqa: PLC0415

        serve_page(folder, port)
        return
    from rmr_gym.runs.status import FAILED, kinds  # noqa: PLC0415

    plan, states, known = how_far(folder)
    table = kinds(states).rename(columns={"name": "jobs", "seconds": "seconds a job"})
    table = table.round({"seconds a job": 1}).astype(str).replace("nan", "")
    print_rows(table.to_dict("records"))
    say(*estimate_lines(known))
    for job, state in zip(plan, states, strict=True):
        if state.state == FAILED:
            error = f"failed, attempt {state.attempts}: {state.key}: {state.error}"
            say(error, f"  log: {job.log}")


def how_far(folder: Path) -> "tuple[list[Planned], list[JobState], Estimate]":
    """Return the jobs of a run, where each is, and what they cost.

    Raises:
        RMRError: The folder holds no run.
    """
    from rmr_gym.report.runs import read_run_json  # noqa: PLC0415
    from rmr_gym.runs.status import estimate, read_plan  # noqa: PLC0415

    plan, started = read_plan(folder), read_run_json(folder).get("started", "")
    states = [job.state() for job in plan]
    times = [time for job in plan if (time := job.finished) and time.isoformat() >= started]
    return plan, states, estimate(states, times)


def estimate_lines(known: "Estimate") -> list[str]:
    """Say what a run cost, and what the rest of it will."""
    from rmr_gym.report.tables import duration  # noqa: PLC0415

    cost = f"spent {duration(known.spent)} of one core; the rest needs {duration(known.rest)}"
    if known.unknown:
        cost += f" and {known.unknown} jobs of kinds of which none is done yet"
    if not known.rate or not known.left:
        return [cost]
    return [cost, f"of late {3600 * known.rate:.0f} jobs an hour: {duration(known.left)} left"]
