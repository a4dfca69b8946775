"""What every run folder holds: tables as CSV, and run.json with what was run, where and when."""

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from rmr_gym.atomic import write_atomically
from rmr_gym.errors import RMRError
from rmr_gym.protocol import stages
from rmr_gym.protocol.compare import VERSIONS, machine
from rmr_gym.protocol.config import as_json
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.sweep import Outcome
from rmr_gym.protocol.training import Progress

ProgressFor = Callable[[str], Progress | None]
"""Gives the progress callback of a stage by its title."""


def no_progress(title: str) -> Progress | None:
    """Show nothing."""
    del title


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
    **facts: Any,
) -> Path:
    """Write run.json.

    Args:
        out: The run folder.
        kind: What kind of run it is, for instance "table2".
        tasks: One a game, all under one preset.
        seeds: Seeds of the run.
        started: When it began, UTC.
        **facts: Further entries, for instance command, workers and problems.
    """
    finished, preset = datetime.now(UTC), tasks[0].preset
    summaries = {task.game: data_summary(task) for task in tasks}
    described = {
        "kind": kind,
        "preset": preset.name,
        "config": as_json(preset),
        "device": tasks[0].device,
        "games": [task.game for task in tasks],
        "seeds": list(seeds),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in VERSIONS},
        "machine": machine(facts.get("workers", 1)),
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": (finished - started).total_seconds(),
        "datasets": summaries,
        "slots": {game: summary["slots"] for game, summary in summaries.items()},
        **facts,
    }
    return write_atomically(out / "run.json", json.dumps(described, indent=1))


def data_summary(task: GameTask) -> dict[str, Any]:
    """Return what run.json says of a game's data; no frame is read for it."""
    episodes = stages.open_episodes(task)
    return {
        "fingerprint": episodes.dataset.fingerprint,
        "episodes": len(episodes.dataset.episodes),
        "transitions": len(episodes.dataset),
        "slots": len(episodes.slots),
    }


def problems(outcomes: Iterable[Outcome]) -> list[str]:
    """Return one sentence for every cell that failed or collapsed.

    Raises:
        RMRError: All of them failed.
    """
    found, failed, total = [], 0, 0
    for outcome in outcomes:
        total += 1
        failed += outcome.error is not None
        said = outcome.error or outcome.value.get("collapsed")
        found += [f"{outcome.key}: {said.strip()}"] if said else []
    if total and failed == total:
        raise RMRError(f"every cell failed; the first said: {found[0]}")
    return found
