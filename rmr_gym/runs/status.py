"""How far a run is: its plan, held against the store; what it cost and what the rest will cost."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.runs.store import RECORD, Store, Task
from rmr_gym.runs.sweep import Traces, with_needs

STATES = DONE, FAILED, WAITING = "done", "failed", "waiting"
RECENT = 50
"""The rate is that of so many jobs that ended last."""

PLAN = "plan.json"


class JobState(NamedTuple):
    """One row of jobs.csv: where a job is.

    Attributes:
        key: Its title, which no other job of the plan has.
        state: One of `STATES`.
        seconds: What its result cost; None before.
        attempts: How often it was started.
        error: Last line of why it failed.
    """

    key: str
    state: str
    seconds: float | None = None
    attempts: int = 0
    error: str = ""


class Planned(NamedTuple):
    """A job of a plan: its title, and where its result is or will be."""

    title: str
    result: Path

    @property
    def log(self) -> Path:
        """Where its log is."""
        return Traces(self.result).log

    @property
    def finished(self) -> datetime | None:
        """When its result came, or None."""
        try:
            return datetime.fromtimestamp((self.result / RECORD).stat().st_mtime, UTC)
        except OSError:
            return None

    def state(self) -> JobState:
        """Return where it is now."""
        traces = Traces(self.result)
        try:
            record = json.loads((self.result / RECORD).read_bytes())
            return JobState(self.title, DONE, round(record["seconds"], 3), max(1, traces.attempts))
        except (OSError, ValueError, KeyError, TypeError):
            failure = traces.failure
        if failure is None:
            return JobState(self.title, WAITING, None, traces.attempts)
        error = failure.strip().rpartition("\n")[2]
        return JobState(self.title, FAILED, None, traces.attempts, error)


def write_plan(out: Path, tasks: Iterable[Task], store: Store) -> list[Planned]:
    """Write which jobs a run consists of, what its tasks need included; return them.

    No two have one title: where those of tasks are equal, the beginning of the key stands behind.

    Raises:
        RMRError: It cannot be written.
    """
    needed = with_needs(tasks)
    counts = Counter(task.title for task in needed)
    plan = []
    for task in needed:
        title = task.title if counts[task.title] == 1 else f"{task.title} ({task.key[:6]})"
        plan.append(Planned(title, store.folder(task)))
    jobs = [{"title": job.title, "result": str(job.result.resolve())} for job in plan]
    write_atomically(out / PLAN, json.dumps(jobs, indent=1))
    return plan


def read_plan(folder: Path) -> list[Planned]:
    """Return the jobs of the run that wrote a folder last.

    Raises:
        RMRError: None did.
    """
    try:
        jobs = json.loads((folder / PLAN).read_text())
        return [Planned(job["title"], Path(job["result"])) for job in jobs]
    except (OSError, ValueError, KeyError, TypeError) as error:
        inside = ", ".join(sorted(str(plan.parent) for plan in folder.glob(f"*/{PLAN}"))) or "none"
        raise RMRError(
            f"{folder} holds no run: expected a folder of `rmr-gym run` with {PLAN} ({error}); "
            f"runs in it: {inside}"
        ) from error


class Estimate(NamedTuple):
    """What a run costs on one core, and when it will be there.

    Attributes:
        spent: Seconds of the jobs that are done.
        rest: Seconds that the others will take, each as long as the mean of its kind.
        unknown: Jobs that are not in ``rest``, as none of their kind is done.
        rate: Jobs a second, of late; None before two have ended.
        left: Seconds until no job waits, at that rate.
    """

    spent: float
    rest: float
    unknown: int
    rate: float | None
    left: float | None


def kinds(states: Sequence[JobState]) -> pd.DataFrame:
    """Count the states of every kind of job, those whose titles start with the same word.

    Returns:
        A row a kind, as they come: name, done, failed, waiting, seconds (mean of those that are
        done; NaN where none is).
    """
    jobs = pd.DataFrame(states, columns=JobState._fields).astype({"seconds": float})
    jobs["name"] = jobs["key"].str.split(" ").str[0]
    counts = pd.crosstab(jobs["name"], jobs["state"])
    counts = counts.reindex(index=jobs["name"].unique(), columns=STATES, fill_value=0)
    return counts.assign(seconds=jobs.groupby("name")["seconds"].mean()).reset_index()


def estimate(states: Sequence[JobState], finished: Sequence[datetime]) -> Estimate:
    """Estimate cost and time left.

    Args:
        states: Of all jobs.
        finished: When jobs ended, in any order.
    """
    counted: Any = kinds(states)
    last = sorted(finished)[-RECENT:]
    seconds = (last[-1] - last[0]).total_seconds() if last else 0.0
    rate = (len(last) - 1) / seconds if seconds > 0 else None
    left = counted["failed"] + counted["waiting"]
    return Estimate(
        spent=sum((state.seconds or 0 for state in states), 0.0),
        rest=float((left * counted["seconds"]).sum()),
        unknown=int(left[counted["seconds"].isna()].sum()),
        rate=rate,
        left=int(counted["waiting"].sum()) / rate if rate else None,
    )
