"""What a sweep computes: tasks as jobs, in this process or on a cluster, and what became of them.

Beside the result of a task lie its log, how often it was started, and why it failed:
``STORE/STAGE/KEY.log``, ``KEY.attempts``, ``KEY.failed``.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError, whole_number
from rmr_gym.core.files import WriteError, os_errors, write_atomically
from rmr_gym.runs.store import Store, Task, one_thread

ATTEMPTS = 8
"""A job that was started so often without ending is taken to kill its worker."""

_STARTED, _ENDED = "started\n", "ended\n"


class Job(NamedTuple):
    """A task of a sweep, or several that are trained as one model.

    Attributes:
        key: Names the job in its sweep.
        title: What it is called in messages.
        tasks: One; several where a stack trains them.
        after: Keys of the jobs that must have ended before.
        together: How several tasks are computed as one: (store, tasks) -> note or None.
    """

    key: str
    title: str
    tasks: tuple[Task, ...]
    after: tuple[str, ...] = ()
    together: Callable[[Store, Sequence[Task]], str | None] | None = None


class Outcome(NamedTuple):
    """What became of a job: the error that ended it, or None; of a stack also a note."""

    key: str
    error: str | None = None
    seconds: float = 0.0
    note: str | None = None


@dataclass(frozen=True)
class Traces:
    """What lies beside a result: log, attempts, failure.

    Attributes:
        base: Path of the result; the traces are named after it.
    """

    base: Path

    @property
    def log(self) -> Path:
        """Where the log is."""
        return self.base.with_name(f"{self.base.name}.log")

    @property
    def attempts(self) -> int:
        """How often it was started."""
        return self._marks().count(_STARTED)

    @property
    def crashes(self) -> int:
        """How often it was started, one time after another, and never ended."""
        return self._marks().rpartition(_ENDED)[2].count(_STARTED)

    @property
    def failure(self) -> str | None:
        """Why it failed when it ended last, or None."""
        try:
            return self._path("failed").read_text()
        except OSError:
            return None

    def start(self) -> None:
        """Take note of a start."""
        self._mark(_STARTED)

    def end(self, error: str | None = None) -> None:
        """Take note of an end, good or bad."""
        if error is None:
            self._path("failed").unlink(missing_ok=True)
        else:
            write_atomically(self._path("failed"), error)
        self._mark(_ENDED)

    def forgive(self) -> None:
        """Take note that it was stopped from outside, so that it counts as no crash."""
        if self.crashes:
            self._mark(_ENDED)

    def _path(self, ending: str) -> Path:
        return self.base.with_name(f"{self.base.name}.{ending}")

    def _marks(self) -> str:
        try:
            return self._path("attempts").read_text()
        except OSError:
            return ""

    def _mark(self, text: str) -> None:
        path = self._path("attempts")
        with os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(text)


def traces_of(store: Store, job: Job) -> Traces:
    """Return what lies beside a job's result; of a stack, beside no result."""
    alone = len(job.tasks) == 1
    return Traces(store.folder(job.tasks[0]) if alone else store.root / "stacks" / job.key)


def run_job(job: Job, store: Store) -> Outcome:
    """Compute a job on one thread and keep what becomes of it; found results are not computed.

    Any error but an interrupt becomes part of the outcome and is kept beside the result.

    Raises:
        RMRError: Nothing can be written: the sweep should end, for nothing else could be either.
    """
    if all(store.has(task) for task in job.tasks):
        return Outcome(job.key)
    traces = traces_of(store, job)
    if traces.crashes >= ATTEMPTS:
        error = (
            f"the process that ran it died {traces.crashes} times in a row: it may need more "
            "memory than there is; see its log, mend it and run the same command again"
        )
        traces.end(error)
        return Outcome(job.key, error)
    traces.start()
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    title = f"attempt {traces.attempts} at {job.title}, {now}, process {os.getpid()}"
    try:
        with job_log(traces.log, title) as write:
            outcome = _attempt(job, store, write)
        traces.end(outcome.error)
        return outcome
    except BaseException:
        with contextlib.suppress(RMRError):
            traces.forgive()
        raise


def _attempt(job: Job, store: Store, write: Callable[[str], Any]) -> Outcome:
    started, error, note = time.perf_counter(), None, None
    try:
        if job.together is None:
            store.compute(job.tasks[0])
        else:
            with one_thread():
                note = job.together(store, job.tasks)
    except WriteError:
        raise
    except (Exception, SystemExit) as raised:  # a stage is foreign code to the sweep
        trace = traceback.format_exc()
        error = str(raised) if isinstance(raised, RMRError) else trace
        write(trace)
    return Outcome(job.key, error, time.perf_counter() - started, note)


class Agenda:
    """The jobs of a sweep in the order in which they can run.

    Args:
        jobs: In the order in which they should run, as far as ``after`` permits.
        ended: Called with the outcome of every job.

    Attributes:
        rank: By key, the job's place in the order that was asked for.
    """

    def __init__(self, jobs: Sequence[Job], ended: Callable[[Outcome], object]):
        self.outcomes: dict[str, Outcome] = {}
        self._ended = ended
        self._jobs = {job.key: job for job in jobs}
        self.rank = {job.key: rank for rank, job in enumerate(jobs)}
        self._graph = TopologicalSorter({job.key: job.after for job in jobs})
        self._graph.prepare()

    def __len__(self) -> int:
        """Count the jobs that have not ended."""
        return len(self._jobs) - len(self.outcomes)

    def take(self) -> list[Job]:
        """Return the jobs that can run from now on; those that never can have ended."""
        ready = []
        while keys := self._graph.get_ready():
            for key in keys:
                job = self._jobs[key]
                failed = [need for need in job.after if self._blocks(need)]
                if failed:
                    title = self._jobs[failed[0]].title
                    self.finish(Outcome(key, f"it needs {title!r}, which failed"))
                else:
                    ready.append(job)
        return sorted(ready, key=lambda job: self.rank[job.key])

    def _blocks(self, key: str) -> bool:
        """Tell whether a job failed that others need.

        A failed stack blocks nobody: the jobs of its tasks come after it and compute what it lacks.
        """
        return self.outcomes[key].error is not None and self._jobs[key].together is None

    def finish(self, outcome: Outcome) -> None:
        """Take note of what became of a job."""
        self.outcomes[outcome.key] = outcome
        self._graph.done(outcome.key)
        self._ended(outcome)


def with_needs(
    tasks: Iterable[Task], skipped: Callable[[Task], bool] = lambda task: False
) -> list[Task]:
    """Return tasks and all that they need, each once, what is needed first.

    Args:
        tasks: What is wanted.
        skipped: Which are left out, and what only they need.
    """
    met: set[str] = set()
    needed: list[Task] = []

    def add(task: Task) -> None:
        if task.key in met:
            return
        met.add(task.key)
        if not skipped(task):
            for need in task.needs:
                add(need)
            needed.append(task)

    for task in tasks:
        add(task)
    return needed


def jobs_of(tasks: Iterable[Task], store: Store) -> list[Job]:
    """Return a job for every task that is to be computed, what it needs included and before it.

    What a finished task needed is not asked for.
    """
    missing = {task.key: task for task in with_needs(tasks, store.has)}
    return [
        Job(key, task.title, (task,), tuple(n.key for n in task.needs if n.key in missing))
        for key, task in missing.items()
    ]


@contextlib.contextmanager
def job_log(path: Path, title: str) -> Iterator[Callable[[str], int]]:
    """Append to a log file what this thread writes to stdout and stderr; others are left alone.

    Warnings count, and so does the stack of Python where a signal such as a segmentation fault ends
    the process. Lines are in the file as soon as they are written.

    Args:
        path: The file; made if missing.
        title: First line.

    Yields:
        A function that writes a text to the log.

    Raises:
        RMRError: The file cannot be opened.
    """
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
    with log:
        write = _ByThread(log, log).write
        write(f"--- {title}\n")
        stdout: Any = _ByThread(log, sys.stdout)
        stderr: Any = _ByThread(log, sys.stderr)
        with (
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
            warnings.catch_warnings(),  # so that each job's log has its warnings, not the first's
            contextlib.ExitStack() as stack,
        ):
            if not faulthandler.is_enabled():
                faulthandler.enable(log)
                stack.callback(faulthandler.disable)
            yield write


class _ByThread:
    """A stream that goes to the log for the thread that made it, elsewhere for all others."""

    def __init__(self, log: Any, other: Any):
        self._log, self._other, self._thread = log, other, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() != self._thread:
            return self._other.write(text)
        with contextlib.suppress(OSError):  # a full disk must not fail a job that only prints
            self._log.write(text)
        return len(text)

    def flush(self) -> None:
        if threading.get_ident() != self._thread:
            self._other.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)


Compute = Callable[[Job], Outcome]
Group = Callable[[Sequence[Job]], list[Job]]
"""Puts jobs that can be trained as one model together, see `rmr_gym.stages.stacked`."""


def run_tasks(
    tasks: Sequence[Task],
    store: Store,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    group: Group = list,
    progress: Progress | None = None,
    ended: Callable[[Outcome], object] = lambda outcome: None,
) -> dict[str, Outcome]:
    """Compute every task once, and return what became of each by its key.

    A job that fails, or kills the process that runs it, is reported and stops no other but those
    that need it. Every job computes on one thread, so that its bytes do not depend on the number of
    workers. What is finished is in the store and never computed again; what failed is tried again
    by the next run.

    Args:
        tasks: What is wanted; what they need is computed before.
        store: Where results are kept.
        workers: Jobs side by side; more than 1 start a Dask cluster on this machine.
        scheduler: Address of another Dask cluster, for instance tcp://host:8786; it must see the
            store, and all files that the tasks name, under the same paths.
        group: Puts jobs together that are trained as one model.
        progress: Called as progress(done, total) after every job.
        ended: Called with the outcome of every job.

    Returns:
        Outcomes of the jobs that ran or could not run; a task that was there already has none.

    Raises:
        RMRError: Fewer than one worker, a file that cannot be written, no scheduler at the address.
    """
    whole_number("workers", workers, 1)
    jobs = group(jobs_of(tasks, store))

    def tell(outcome: Outcome) -> None:
        ended(outcome)
        if progress:
            progress(len(agenda.outcomes), len(jobs))

    agenda = Agenda(jobs, tell)
    ready = agenda.take()
    try:
        with _pool(store, workers, len(agenda), scheduler) as pool:
            while ready or len(pool):
                for job in ready:
                    pool.submit(job, agenda.rank[job.key])
                agenda.finish(pool.next())
                ready = agenda.take()
    except BaseException:
        with contextlib.suppress(RMRError):
            for job in jobs:
                if job.key not in agenda.outcomes:
                    traces_of(store, job).forgive()
        raise
    return agenda.outcomes


def _pool(
    store: Store, workers: int, jobs: int, scheduler: str | None
) -> contextlib.AbstractContextManager[Any]:
    """Return what computes jobs: this process, processes of this machine, or a cluster."""
    if jobs == 0 or (scheduler is None and workers == 1):
        return contextlib.nullcontext(_ThisProcess(store))
    from rmr_gym.runs.cluster import local_workers, workers_at  # noqa: PLC0415  (heavy)

    compute = partial(run_job, store=store)
    if scheduler:
        return workers_at(compute, scheduler)
    return local_workers(compute, min(workers, jobs))


class _ThisProcess:
    """Computes jobs one by one; those that ended this process before come last."""

    def __init__(self, store: Store):
        self._store = store
        self._queue: list[tuple[int, int, Job]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, job: Job, rank: int) -> None:
        heappush(self._queue, (traces_of(self._store, job).crashes, rank, job))

    def next(self) -> Outcome:
        return run_job(heappop(self._queue)[-1], self._store)
