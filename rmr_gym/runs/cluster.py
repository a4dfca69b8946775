"""Jobs on a Dask cluster: one that is started here, or any other by its address."""

import logging
import multiprocessing
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, cast

import dask.config
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.utils import get_mp_context

from rmr_gym.core.errors import RMRError
from rmr_gym.core.processes import KEPT
from rmr_gym.runs.sweep import ATTEMPTS, Compute, Job, Outcome

CONNECT_SECONDS = 10
HEAL_SECONDS = 2

_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_LOCAL_SETTINGS = {
    "distributed.nanny.pre-spawn-environ": KEPT
    | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1),
    "distributed.worker.multiprocessing-method": "forkserver" if _FORKS else "spawn",
    "distributed.deploy.lost-worker-timeout": "10 seconds",
    "distributed.scheduler.allowed-failures": ATTEMPTS,
    "distributed.scheduler.worker-saturation": 1.0,
}
"""A killed worker is there again in a moment; one that Dask fails to bring back, because it was
killed while it started, is given up after so long, and asked for anew. Only the job that a worker
computed, and none that waited for it, is held responsible for its death."""


class Workers:
    """Processes that compute jobs, see `local_workers` and `workers_at`."""

    def __init__(self, client: Client, compute: Compute, heal: Callable[[], object]):
        self._client, self._compute, self._heal = client, compute, heal
        self._ended: SimpleQueue[Future] = SimpleQueue()
        self._pending: dict[Future, Job] = {}
        self._run = uuid.uuid4().hex[:8]

    def __len__(self) -> int:
        """Count the jobs that have not ended."""
        return len(self._pending)

    def submit(self, job: Job, rank: int) -> None:
        """Let a job be computed, after those of lower ranks."""
        name = f"{job.key} ({self._run})"
        future = self._client.submit(self._compute, job, key=name, priority=-rank, pure=False)
        self._pending[future] = job
        future.add_done_callback(self._ended.put)

    def next(self) -> Outcome:
        """Wait for a job to end, and return what became of it.

        Raises:
            RMRError: What a worker says cannot be mended by running other jobs.
            CancelledError: The scheduler is gone.
        """
        while True:
            try:
                future = self._ended.get(timeout=HEAL_SECONDS)
                return _gathered(self._pending.pop(future).key, future)
            except Empty:
                self._heal()


def _gathered(key: str, future: Any) -> Outcome:
    try:
        return future.result()
    except (RMRError, CancelledError):
        raise
    except KilledWorker:
        return Outcome(key, "its workers were lost again and again")
    except Exception as error:  # whatever the cluster says is the report
        return Outcome(key, f"the cluster could not run it: {error!r}")


@contextmanager
def local_workers(compute: Compute, count: int) -> Iterator[Workers]:
    """Give processes of this machine."""
    with dask.config.set(_LOCAL_SETTINGS):
        if _FORKS:
            get_mp_context().set_forkserver_preload(["distributed", "rmr_gym.runs.sweep"])
        with (
            cast("Any", LocalCluster)(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=0,  # a worker that Dask pauses for its memory would never go on
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield Workers(client, compute, heal=lambda: cluster.scale(count))


@contextmanager
def workers_at(compute: Compute, address: str) -> Iterator[Workers]:
    """Give the workers of a Dask scheduler.

    Raises:
        RMRError: No scheduler answers, it goes away, or its workers have several threads.
    """
    try:
        client = Client(address, timeout=CONNECT_SECONDS, name="rmr-gym")
    except (OSError, ValueError) as error:
        raise RMRError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}): expected an address "
            "like tcp://host:8786 of one started with `dask scheduler`"
        ) from error
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        if any(worker["nthreads"] > 1 for worker in workers):
            raise RMRError(
                "expected workers of one thread each, for a job sets the threads of its process: "
                "start them with `dask worker --nthreads 1 --nworkers N`"
            )
        try:
            yield Workers(client, compute, heal=lambda: None)
        except CancelledError as error:
            raise RMRError(
                f"the Dask scheduler at {address} went away: start it again and run the same "
                "command; finished jobs are kept"
            ) from error
