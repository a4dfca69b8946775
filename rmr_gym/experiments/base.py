"""What every experiment shares: options, the rows of its tables, and how a run is computed."""

import io
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError, known_name, limit
from rmr_gym.core.files import alone, write_atomically
from rmr_gym.core.processes import processor_lines
from rmr_gym.runs.status import DONE, PLAN, JobState, write_plan
from rmr_gym.runs.store import Store, Task
from rmr_gym.runs.sweep import Group, Outcome, run_tasks, with_needs

ProgressFor = Callable[[str], Progress | None]
"""Gives the progress callback of a piece of work by its title."""

_SIMULATORS = ("gymnasium", "ale-py", "mujoco", "stable-baselines3")
VERSIONS = ("rmr-gym", "torch", "numpy", "scipy", *_SIMULATORS)
WRITE_EVERY_SECONDS = 20.0
"""Tables of what is finished are written at most so often."""


def no_progress(title: str) -> Progress | None:
    """Show nothing."""


class Rows(NamedTuple):
    """Rows of a table that the record of a task holds.

    Attributes:
        table: Name of the CSV file without its ending.
        task: Whose record.
        names: What every row says beside.
        part: Entry of the record that holds the rows.
        shared: Whether other tasks hold the same rows, which are written once.
    """

    table: str
    task: Task
    names: dict[str, Any]
    part: str = "rows"
    shared: bool = False


@dataclass(frozen=True)
class Plan:
    """What a run computes and what its folder says of it.

    Attributes:
        rows: Where the rows of its tables come from.
        facts: Further entries of run.json.
        config: What its results hang on beside the options, see `Experiment.config`.
        finish: Writes further files into the folder, where all has gone well.
        group: Puts trainings together that can run as one model, see `rmr_gym.runs.sweep`.
        tables: Tables without rows in this run, so that a folder keeps none of an earlier one's.
    """

    rows: Sequence[Rows]
    facts: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[Path, Store], object] = lambda out, store: None
    group: Group = list
    tables: Sequence[str] = ()


@dataclass(frozen=True)
class Experiment:
    """Options of every experiment.

    Attributes:
        out: Run folder; default: one under ROOT, named after preset and experiment.
        root: Folder of data sets and finished stages; what is found there is not computed again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        workers: Processes that work side by side; default: one a core, 1 with a GPU.
        scheduler: Address of a Dask cluster that runs the jobs instead, for instance
            tcp://host:8786; it must see all folders under the same paths.
        seeds: Number of paired seeds; default: the preset's, or the paper's.
    """

    kind: ClassVar[str] = ""
    """Name of the experiment; its report is a function of this name."""

    folder_name: ClassVar[str] = "{0.preset}-{0.kind}"
    """Default name of the run folder under ROOT; {0} is the experiment."""

    out: Path | None = None
    root: Path = Path("runs")
    device: str = "cpu"
    workers: int | None = None
    scheduler: str | None = None
    seeds: int | None = None

    def folder(self) -> Path:
        """Return the run folder.

        Raises:
            RMRError: It is named like a file, or is one.
        """
        return folder_of_files(self.out or self.root / self.folder_name.format(self))

    @property
    def worker_count(self) -> int:
        """How many processes compute.

        Raises:
            RMRError: Fewer than one.
        """
        default = (os.cpu_count() or 1) if self.device == "cpu" else 1
        return limit("workers", self.workers) or default

    @property
    def seed_list(self) -> range:
        """The paired seeds.

        Raises:
            RMRError: None was asked for.
        """
        return range(limit("seeds", self.seeds) or 1)

    @property
    def config(self) -> Mapping[str, Any]:
        """JSON of the options that its results hang on; a folder with other ones is refused."""
        return {}

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed; data that are missing are recorded first."""
        raise AssertionError("every experiment says it")


def folder_of_files(out: Path) -> Path:
    """Return a folder for several files.

    Raises:
        RMRError: It is named like a file, or is one.
    """
    if out.suffix in (".csv", ".gif", ".html", ".json", ".png") or out.is_file():
        raise RMRError(f"expected a folder for --out, which holds several files, got {out}")
    return out


def require_distinct(kind: str, names: Sequence[Any]) -> None:
    """Refuse a list that is empty or names something twice.

    Raises:
        RMRError: It does.
    """
    if not names:
        raise RMRError(f"expected one {kind} or more, got none")
    twice = sorted({str(name) for name in names if list(names).count(name) > 1})
    if twice:
        raise RMRError(f"each {kind} may be named once, got {', '.join(twice)} more than once")


def require_known(kind: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Refuse a list that is empty, names something twice, or what is not in a table.

    Raises:
        RMRError: It does; the nearest and all choices are told.
    """
    choices = list(known)
    for name in names:
        known_name(kind, name, choices)
    require_distinct(kind, names)


def run(
    experiment: Experiment, progress_for: ProgressFor = no_progress, command: str | None = None
) -> tuple[Path, list[str]]:
    """Compute an experiment and fill its run folder; tables grow meanwhile.

    What is in the store is not computed again, so a run that was stopped goes on where it was;
    what failed is tried again.

    Args:
        experiment: What to run.
        progress_for: Gives progress callbacks by title.
        command: What was typed, for run.json; None: this process's arguments.

    Returns:
        The run folder, and one sentence for every job that failed or collapsed.

    Raises:
        RMRError: Bad options or data, results of other settings in the folder, another command at
            work in it, or every job failed.
    """
    out, workers = experiment.folder(), experiment.worker_count
    with _alone_in(out):
        _refuse_others(out, experiment.kind, experiment.config, whole=False)
        _find_scheduler(experiment.scheduler)
        plan = experiment.plan(progress_for)
        if not plan.rows:
            raise RMRError("these options leave nothing to compute: choose others")
        plan = replace(plan, config={**experiment.config, **plan.config})
        typed = command or shlex.join(["rmr-gym", *sys.argv[1:]])
        facts: dict[str, Any] = {"kind": experiment.kind, "command": typed, "workers": workers}
        facts |= {"device": experiment.device, "seeds": list(experiment.seed_list)}
        run_folder = _RunFolder(out, plan, Store(experiment.root / "store"), facts)
        outcomes = run_tasks(
            [rows.task for rows in plan.rows],
            run_folder.store,
            workers=workers,
            scheduler=experiment.scheduler,
            group=plan.group,
            progress=progress_for(f"{experiment.kind} into {out}"),
            ended=run_folder.ended,
        )
        return out, run_folder.close(outcomes)


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keep other commands out of a folder; folders that nothing is written into do not stay."""
    lock, new = out / ".lock", [folder for folder in (out, *out.parents) if not folder.exists()]
    busy = (
        f"expected a folder that no other command computes in, found one at work in {out}: wait "
        "until it ends, or choose another folder"
    )
    with alone(lock, busy):
        try:
            yield
        except RMRError:
            if [*out.iterdir()] == [lock]:
                lock.unlink()
            for folder in new:
                with suppress(OSError):
                    folder.rmdir()
            raise


def _find_scheduler(address: str | None) -> None:
    """Make sure that a Dask scheduler answers, where one was named."""
    if address is not None:
        from rmr_gym.runs.cluster import workers_at  # noqa: PLC0415 - heavy

        with workers_at(lambda job: Outcome(job.key), address):
            pass


class _RunFolder:
    """The run folder: its plan, its tables and run.json."""

    def __init__(self, out: Path, plan: Plan, store: Store, facts: Mapping[str, Any]):
        self.out, self.plan, self.store, self._facts = out, plan, store, facts
        self._started, self._written = datetime.now(UTC), time.monotonic()
        self._records: dict[str, dict[str, Any]] = {}
        self._done: dict[Path, JobState] = {}
        _refuse_others(out, facts["kind"], plan.config)
        self._jobs = write_plan(out, [rows.task for rows in plan.rows], store)
        self._describe([])
        self._write()

    def ended(self, outcome: Outcome) -> None:
        """Write the tables now and then."""
        if time.monotonic() - self._written > WRITE_EVERY_SECONDS:
            self._write()

    def close(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """Write everything, and return one sentence for every job that failed or collapsed."""
        self._write()
        problems = self._problems(outcomes)
        self._describe(problems)
        if not any(self._record(rows.task) for rows in self.plan.rows):
            error = next(outcome.error for outcome in outcomes.values() if outcome.error)
            raise RMRError(f"every job failed; the first said: {error}")
        self.plan.finish(self.out, self.store)
        return problems

    def _problems(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        tasks = with_needs(rows.task for rows in self.plan.rows)
        titles = {task.key: task.title for task in tasks}
        troubles = [
            f"{titles.get(key, 'stack')}: {(outcome.error or outcome.note or '').strip()}"
            for key, outcome in outcomes.items()
            if outcome.error or outcome.note
        ]
        records = ((task.title, self._record(task) or {}) for task in tasks)
        return troubles + [f"{title}: {own['note']}" for title, own in records if own.get("note")]

    def _record(self, task: Task) -> dict[str, Any] | None:
        if task.key not in self._records and (record := self.store.record(task)):
            self._records[task.key] = record
        return self._records.get(task.key)

    def _write(self) -> None:
        for name, table in self._tables().items():
            write_table(self.out / f"{name}.csv", table)
        timings = {
            rows.task.key: _timing(rows, record["seconds"])
            for rows in self.plan.rows
            if (record := self._record(rows.task))
        }
        write_table(self.out / "timings.csv", timings.values())
        self._write_states()
        self._written = time.monotonic()

    def _tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of what is finished, by table."""
        tables: dict[str, list[dict[str, Any]]] = {name: [] for name in self.plan.tables}
        for rows in self.plan.rows:
            record, table = self._record(rows.task) or {}, tables.setdefault(rows.table, [])
            named = [rows.names | row for row in record.get(rows.part, [])]
            table += [row for row in named if not rows.shared or row not in table]
        return tables

    def _write_states(self) -> None:
        states = {job.result: self._done.get(job.result) or job.state() for job in self._jobs}
        self._done |= {result: state for result, state in states.items() if state.state == DONE}
        write_table(self.out / "jobs.csv", states.values())

    def _describe(self, problems: list[str]) -> None:
        described = {
            **self._facts,
            **self.plan.facts,
            **circumstances(self._started, self._facts["workers"]),
            "config": self.plan.config,
            "problems": problems,
        }
        write_atomically(self.out / "run.json", json.dumps(described, indent=1, default=str))


def _timing(rows: Rows, seconds: float) -> dict[str, Any]:
    names = rows.names
    game = next((names[name] for name in ("game", "recipient", "env") if name in names), "")
    known = {"game": game, "stage": rows.task.stage.name, "seconds": round(seconds, 2)}
    return {name: (names | known).get(name) for name in ("game", "stage", "arm", "seed", "seconds")}


def _refuse_others(out: Path, kind: str, config: Mapping[str, Any], whole: bool = True) -> None:
    """Refuse a folder that holds another experiment, or one of other settings.

    Args:
        out: The folder.
        kind: Of the experiment.
        config: Its settings.
        whole: Whether these are all, or those that are known before there are data.
    """
    try:
        before = json.loads((out / "run.json").read_text())
    except (OSError, ValueError):
        return
    wanted = json.loads(json.dumps({"kind": kind, "config": config}, default=str))
    there = before.get("config") or {}
    there = there if whole else {name: there.get(name) for name in config}
    difference = _difference({"kind": before.get("kind"), "config": there}, wanted)
    if difference:
        raise RMRError(
            f"{out} holds results of something else: {difference}; choose another folder"
        )
    if not (out / PLAN).is_file():
        raise RMRError(f"{out} holds tables of an earlier version: choose another folder")


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Return a description of the first difference between two JSON objects."""
    before, after = (pd.json_normalize(dict(part)).iloc[0].to_dict() for part in (old, new))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            return f"{name} was {before.get(name)!r}, is {after.get(name)!r}"
    return None


def write_table(path: Path, rows: Iterable[Any]) -> Path:
    """Write rows (by column, or named tuples) as CSV with their columns, whole or not at all."""
    return write_atomically(path, pd.DataFrame(list(rows)).to_csv(index=False))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write arrays as a compressed NPZ file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return write_atomically(path, buffer.getvalue())


def circumstances(started: datetime, workers: int) -> dict[str, Any]:
    """Return what run.json says of versions, machine and time."""
    finished = datetime.now(UTC)
    names = [line.split(":", 1)[1].strip() for line in processor_lines("model name")]
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in VERSIONS},
        "machine": {
            "processor": (names or [platform.processor()])[0],
            "cores": os.cpu_count(),
            "workers": workers,
            "load_average": [round(load, 2) for load in os.getloadavg()],
            "platform": platform.platform(),
        },
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": (finished - started).total_seconds(),
    }
