"""Jobs on a Dask cluster: one that is started here, or any other by its address."""

import logging
import multiprocessing
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from rmr_gym.core.errors import RMRError
from rmr_gym.core.processes import KEPT
from rmr_gym.runs.sweep import ATTEMPTS, Agenda, Job, Outcome

if TYPE_CHECKING:
    from distributed import Client, Future

Compute = Callable[[Job], Outcome]
CONNECT_SECONDS = 10
HEAL_SECONDS = 2

_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_LOCAL_SETTINGS = {
    "distributed.nanny.pre-spawn-environ": KEPT
    | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1),
    "distributed.worker.multiprocessing-method": "forkserver" if _FORKS else "spawn",
    "distributed.deploy.lost-worker-timeout": "10 seconds",
}
"""A killed worker is there again in a moment; one that Dask fails to bring back, because it was
killed while it started, is given up after so long, and asked for anew."""


def on_local_cluster(
    agenda: Agenda, first: list[Job], compute: Compute, workers: int
) -> Iterator[Outcome]:
    """Run jobs in processes of this machine and yield outcomes as they come."""
    import dask.config  # noqa: PLC0415  (heavy)
    from distributed import Client, LocalCluster  # noqa: PLC0415  (heavy)

    count = min(workers, len(agenda))
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_LOCAL_SETTINGS))
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=0,  # a worker that Dask pauses for its memory would never go on
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
        stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster))
        yield from _run(client, agenda, first, compute, heal=lambda: cluster.scale(count))


def on_scheduler(
    agenda: Agenda, first: list[Job], compute: Compute, address: str
) -> Iterator[Outcome]:
    """Run jobs on the cluster of a Dask scheduler and yield outcomes as they come.

    Raises:
        RMRError: No scheduler answers, it goes away, or its workers have several threads.
    """
    with _connect(address) as client:
        _refuse_threads(client)
        try:
            yield from _run(client, agenda, first, compute, heal=lambda: None)
        except CancelledError as error:
            raise RMRError(
                f"the Dask scheduler at {address} went away: start it again and run the same "
                "command; finished jobs are kept"
            ) from error


def _connect(address: str) -> "Client":
    from distributed import Client  # noqa: PLC0415  (heavy)

    try:
        return Client(address, timeout=CONNECT_SECONDS, name="rmr-gym")
    except (OSError, ValueError) as error:
        raise RMRError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}): expected an address "
            "like tcp://host:8786 of one started with `dask scheduler`"
        ) from error


def _refuse_threads(client: "Client") -> None:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if any(worker["nthreads"] > 1 for worker in workers):
        raise RMRError(
            "expected workers of one thread each, for a job sets the threads of its process: "
            "start them with `dask worker --nthreads 1 --nworkers N`"
        )


def _run(
    client: "Client",
    agenda: Agenda,
    first: list[Job],
    compute: Compute,
    heal: Callable[[], object],
) -> Iterator[Outcome]:
    ended: SimpleQueue[Future] = SimpleQueue()
    pending: dict[Future, Job] = {}
    losses: Counter[str] = Counter()
    run = uuid.uuid4().hex[:8]

    def submit(job: Job) -> None:
        name = f"{job.key} ({run}-{losses[job.key]})"
        future = client.submit(compute, job, key=name, priority=-agenda.rank(job), pure=False)
        pending[future] = job
        future.add_done_callback(ended.put)

    for job in first:
        submit(job)
    while pending:
        future = _next(ended, heal)
        job = pending.pop(future)
        outcome = _gathered(job.key, future)
        if outcome is None:
            losses[job.key] += 1
            if losses[job.key] < ATTEMPTS:
                submit(job)
                continue
            outcome = Outcome(job.key, "its workers were lost again and again")
        agenda.finish(outcome)
        yield outcome
        ready, blocked = agenda.take()
        for job in ready:
            submit(job)
        yield from blocked


def _next(ended: "SimpleQueue[Future]", heal: Callable[[], object]) -> "Future":
    while True:
        try:
            return ended.get(timeout=HEAL_SECONDS)
        except Empty:
            heal()


def _gathered(key: str, future: Any) -> Outcome | None:
    """Return a finished job's outcome; None where Dask gave it up because workers died.

    Raises:
        RMRError: What the worker says cannot be mended by running other jobs.
        CancelledError: The scheduler is gone.
    """
    from distributed import KilledWorker  # noqa: PLC0415  (heavy)

    try:
        return future.result()
    except (RMRError, CancelledError):
        raise
    except KilledWorker:
        return None
    except Exception as error:  # whatever the cluster says is the report
        return Outcome(key, f"the cluster could not run it: {error!r}")
