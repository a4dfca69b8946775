"""A sweep computes tasks and what they need, in this process or on a Dask cluster."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from heapq import heappop, heappush

from rmr_gym.core.errors import RMRError
from rmr_gym.runs.jobs import Agenda, Job, Outcome, jobs_of, run_job, traces_of
from rmr_gym.runs.store import Store, Task

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
    progress: Callable[[int, int], None] | None = None,
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
    if workers < 1:
        raise RMRError(f"workers must be 1 or more, got {workers}")
    jobs = group(jobs_of(tasks, store))
    agenda = Agenda(jobs)
    compute = partial(run_job, store=store)
    try:
        with closing(_run(agenda, compute, workers, scheduler, store)) as outcomes:
            for outcome in outcomes:
                ended(outcome)
                if progress:
                    progress(len(agenda.outcomes), len(jobs))
    except BaseException:
        with suppress(RMRError):
            for job in jobs:
                if job.key not in agenda.outcomes:
                    traces_of(store, job).forgive()
        raise
    return agenda.outcomes


def _run(
    agenda: Agenda, compute: Compute, workers: int, scheduler: str | None, store: Store
) -> Generator[Outcome]:
    ready, blocked = agenda.take()
    yield from blocked
    if not ready:
        return
    if scheduler is None and workers == 1:
        yield from _in_process(agenda, ready, compute, store)
        return
    from rmr_gym.runs.cluster import on_local_cluster, on_scheduler  # noqa: PLC0415

    if scheduler is None:
        yield from on_local_cluster(agenda, ready, compute, workers)
    else:
        yield from on_scheduler(agenda, ready, compute, scheduler)


def _in_process(
    agenda: Agenda, ready: list[Job], compute: Compute, store: Store
) -> Iterator[Outcome]:
    """Run jobs one by one; those that ended this process before come last."""
    import torch  # noqa: F401, PLC0415  (there before the first job, so that its threads are set)

    queue: list[tuple[int, int, Job]] = []
    while ready or queue:
        for job in ready:
            heappush(queue, (traces_of(store, job).crashes, agenda.rank(job), job))
        outcome = compute(heappop(queue)[-1])
        agenda.finish(outcome)
        yield outcome
        ready, blocked = agenda.take()
        yield from blocked
