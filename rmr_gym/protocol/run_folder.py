"""What every run folder holds: tables as CSV, and run.json with what was run, where and when."""

import json
import os
import platform
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.protocol import stages
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.config import as_json
from rmr_gym.protocol.stacked_cells import MemberOf, run_stacked_cells
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.sweep import Cell, Outcome

VERSIONS = ("rmr-gym", "torch", "numpy", "scipy", "gymnasium", "ale-py")


def write_table(path: Path, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> Path:
    """Write the named columns of rows as CSV, whole or not at all."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    return write_atomically(path, table.to_csv(index=False))


def write_description(
    out: Path,
    kind: str,
    tasks: Sequence[GameTask],
    seeds: Sequence[int],
    started: datetime,
    *,
    datasets: Mapping[str, dict[str, Any]] | None = None,
    **facts: Any,
) -> Path:
    """Write run.json.

    Args:
        out: The run folder.
        kind: What kind of run it is, for instance "table2".
        tasks: One a game, all under one preset.
        seeds: Seeds of the run.
        started: When it began, UTC.
        datasets: What is said of each game's data; by default `data_summary`.
        **facts: Further entries, for instance command, workers and problems.
    """
    preset = tasks[0].preset
    summaries = datasets or {task.game: data_summary(task) for task in tasks}
    described = {
        "kind": kind,
        "preset": preset.name,
        "config": as_json(preset),
        "device": tasks[0].device,
        "games": [task.game for task in tasks],
        "seeds": list(seeds),
        **circumstances(started, facts.get("workers", 1)),
        "datasets": summaries,
        "slots": {game: summary["slots"] for game, summary in summaries.items()},
        **facts,
    }
    return write_atomically(out / "run.json", json.dumps(described, indent=1))


def circumstances(
    started: datetime, workers: int, versions: Sequence[str] = VERSIONS
) -> dict[str, Any]:
    """Return what run.json says of versions, machine and time."""
    finished = datetime.now(UTC)
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in versions},
        "machine": machine(workers),
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": (finished - started).total_seconds(),
    }


def machine(workers: int) -> dict[str, Any]:
    """Describe the machine as far as it matters for the time that a run took."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "workers": workers,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "platform": platform.platform(),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def data_summary(task: GameTask) -> dict[str, Any]:
    """Return what run.json says of a game's data; no frame is read for it."""
    episodes = stages.open_episodes(task)
    return {
        "fingerprint": episodes.dataset.fingerprint,
        "episodes": len(episodes.dataset.episodes),
        "transitions": len(episodes.dataset),
        "slots": len(episodes.slots),
    }


def run_sweep(
    kind: str,
    cells: Sequence[Cell],
    tasks: Sequence[GameTask],
    seeds: Sequence[int],
    out: Path,
    computing: Computing,
    *,
    grown: Callable[[list[Outcome]], None],
    member_of: MemberOf = lambda cell: None,
    **facts: Any,
) -> list[str]:
    """Run the cells of a sweep; run.json says what is run before, and what came of it after.

    Args:
        kind: What kind of run it is.
        cells: What to run.
        tasks: One a game, under one preset.
        seeds: Seeds of the run.
        out: Run folder.
        computing: How.
        grown: Writes the tables of what is finished.
        member_of: Which training a cell needs, of those that can be stacked.
        **facts: Further entries of ``run.json``, for instance `natural_facts`.

    Returns:
        What `problems` returns.

    Raises:
        RMRError: Results of other settings in the folder, or every cell failed.
    """
    started = datetime.now(UTC)

    def describe(found: list[str]) -> None:
        write_description(
            *(out, kind, tasks, seeds, started),
            command=computing.command,
            workers=computing.workers,
            **facts,
            problems=found,
        )

    describe([])
    outcomes, notes = run_stacked_cells(
        cells,
        member_of,
        stack=computing.stack,
        workers=computing.workers,
        scheduler=computing.scheduler,
        folder=out,
        progress=computing.progress_for(kind),
        grown=grown,
    )
    needed = {key for cell in cells for key in cell.after}
    found = problems(outcomes, needed) + notes
    describe(found)
    return found


def natural_facts(task: GameTask) -> dict[str, Any]:
    """Return what run.json says of the natural runs of a task's preset."""
    natural = task.preset.natural
    return {
        "objective": natural.objective,
        "checkpoints": list(natural.checkpoints),
        "probes": list(task.preset.probing.probes),
    }


def problems(outcomes: Iterable[Outcome], needed: Container[str] = ()) -> list[str]:
    """Return one sentence for every cell that failed or collapsed.

    Args:
        outcomes: What is told of.
        needed: Keys of cells that serve others; that one of them worked is no result.

    Raises:
        RMRError: All others failed.
    """
    outcomes = list(outcomes)
    told = [(each, each.error or each.value.get("collapsed")) for each in outcomes]
    found = [f"{each.key}: {said.strip()}" for each, said in told if said]
    results = [each for each in outcomes if each.key not in needed]
    if results and all(each.error for each in results):
        raise RMRError(f"every cell failed; the first said: {found[0]}")
    return found
