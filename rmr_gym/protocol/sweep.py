"""A sweep is a list of keyed cells, run in this process or on a Dask cluster: the same code."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from heapq import heappop, heappush
from pathlib import Path

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import alone
from rmr_gym.protocol.sweep_cells import Agenda, Cell, Outcome, run_cell
from rmr_gym.protocol.sweep_folder import WAITING, CellState, SweepFolder, states_of

__all__ = ["Cell", "Outcome", "run_cells", "finished_cells"]

TABLE_SECONDS, GROWN_SECONDS = 1.0, 20.0
"""The table of states, and those of results, are written at most so often."""


def run_cells(
    cells: Sequence[Cell],
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    folder: Path | None = None,
    scheduler: str | None = None,
    grown: Callable[[list[Outcome]], object] | None = None,
) -> list[Outcome]:
    """Run every cell once and return the outcomes in the order of ``cells``; see `finished_cells`.

    Args:
        cells: Keys must differ.
        workers: Cells side by side.
        progress: Called as progress(done, total) after every finished cell.
        folder: Where outcomes are kept and found again.
        scheduler: Address of a Dask cluster.
        grown: Called now and then, and at the end, with the outcomes so far, in order.

    Raises:
        RMRError: As `finished_cells`.
    """
    outcomes: dict[str, Outcome] = {}
    told = time.monotonic()
    for outcome in finished_cells(cells, workers=workers, folder=folder, scheduler=scheduler):
        outcomes[outcome.key] = outcome
        if progress:
            progress(len(outcomes), len(cells))
        if grown and time.monotonic() - told > GROWN_SECONDS:
            grown(_in_order(cells, outcomes))
            told = time.monotonic()
    if grown:
        grown(_in_order(cells, outcomes))
    return _in_order(cells, outcomes)


def _in_order(cells: Sequence[Cell], outcomes: dict[str, Outcome]) -> list[Outcome]:
    return [outcomes[cell.key] for cell in cells if cell.key in outcomes]


def finished_cells(
    cells: Sequence[Cell],
    *,
    workers: int = 1,
    folder: Path | None = None,
    scheduler: str | None = None,
) -> Iterator[Outcome]:
    """Run every cell once and yield each outcome as it comes, those found in the folder first.

    A cell that fails, or kills the process that runs it, is reported and stops no other but those
    that come ``after`` it. Every cell computes on one thread, so that its bytes do not depend on
    the number of workers. With a folder, each outcome is kept in a file of its own as soon as it is
    there: a cell that is done is never computed again, one that failed is tried again by the next
    run.

    Args:
        cells: Keys must differ.
        workers: 1 runs in this process; more start a Dask cluster on this machine.
        folder: Run folder with ``cells/``, ``logs/`` and ``jobs.csv``; None keeps nothing.
        scheduler: Address of another Dask cluster, for instance tcp://host:8786; it must see
            ``folder``, and all files that the cells name, under the same paths.

    Raises:
        RMRError: Equal keys, fewer than one worker, kept results of other inputs or another
            version, a folder that cannot be written or in which another sweep runs, no scheduler at
            the address.
    """
    if workers < 1:
        raise RMRError(f"workers must be 1 or more, got {workers}")
    if folder is None:
        yield from _run(Agenda(cells), run_cell, workers, scheduler)
        return
    busy = (
        f"expected a folder that no other command computes in, found one at work in {folder}: wait "
        "until it ends, or choose another folder"
    )
    with alone(folder / ".lock", busy):
        yield from _kept_cells(cells, SweepFolder(folder), workers, scheduler)


def _kept_cells(
    cells: Sequence[Cell], kept: SweepFolder, workers: int, scheduler: str | None
) -> Generator[Outcome]:
    found = [outcome for cell in cells if (outcome := kept.find(cell)) is not None]
    agenda = Agenda(cells, found)
    table = _Table(kept, cells, found)
    try:
        yield from found
        with closing(_run(agenda, kept.run, workers, scheduler, kept.crashes)) as outcomes:
            for outcome in outcomes:
                table.enter(outcome)
                yield outcome
    except BaseException:
        with suppress(RMRError):
            table.close([cell for cell in cells if cell.key not in agenda.outcomes])
        raise
    table.write()


def _run(
    agenda: Agenda,
    compute: Callable[[Cell], Outcome],
    workers: int,
    scheduler: str | None,
    crashes: Callable[[str], int] = lambda _: 0,
) -> Generator[Outcome]:
    ready, blocked = agenda.take()
    yield from blocked
    if not ready:
        return
    if scheduler is None and workers == 1:
        yield from _in_process(agenda, ready, compute, crashes)
        return
    from rmr_gym.protocol.sweep_cluster import on_local_cluster, on_scheduler  # noqa: PLC0415

    if scheduler is None:
        yield from on_local_cluster(agenda, ready, compute, workers)
    else:
        yield from on_scheduler(agenda, ready, compute, scheduler)


def _in_process(
    agenda: Agenda,
    ready: list[Cell],
    compute: Callable[[Cell], Outcome],
    crashes: Callable[[str], int],
) -> Iterator[Outcome]:
    """Run cells one by one; those that ended this process before come last."""
    import torch  # noqa: F401, PLC0415  (there before the first cell, so that its threads are set)

    queue: list[tuple[int, int, Cell]] = []
    while ready or queue:
        for cell in ready:
            heappush(queue, (crashes(cell.key), agenda.rank(cell), cell))
        outcome = compute(heappop(queue)[-1])
        agenda.finish(outcome)
        yield outcome
        ready, blocked = agenda.take()
        yield from blocked


class _Table:
    """The table of states, written now and then while the sweep goes on."""

    def __init__(self, folder: SweepFolder, cells: Sequence[Cell], found: Sequence[Outcome]):
        self._folder = folder
        self._states = {
            cell.key: CellState(cell.key, WAITING, attempts=folder.attempts(cell.key))
            for cell in cells
        }
        self._states |= {state.key: state for state in states_of(found)}
        self.write()

    def enter(self, outcome: Outcome) -> None:
        self._states[outcome.key] = states_of([outcome])[0]
        if time.monotonic() - self._written > TABLE_SECONDS:
            self.write()

    def close(self, unfinished: Sequence[Cell]) -> None:
        """Take note of what still ended while the sweep was being stopped, and of what did not."""
        self._folder.forgive(cell.key for cell in unfinished)
        found = [self._folder.find(cell) for cell in unfinished]
        self._states |= {state.key: state for state in states_of(list(filter(None, found)))}
        self.write()

    def write(self) -> None:
        self._folder.write_table(self._states.values())
        self._written = time.monotonic()
