"""A sweep is a list of keyed cells, run in this process or on a Dask cluster: the same code."""

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from rmr_gym.errors import RMRError
from rmr_gym.protocol.training import Progress


class Cell(NamedTuple):
    """One unit of work: a module-level function and its arguments."""

    key: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]


class Outcome(NamedTuple):
    """What became of a cell: its value, or the error that ended it."""

    key: str
    value: Any
    error: str | None


def run_cells(
    cells: Sequence[Cell], *, workers: int = 1, progress: Progress | None = None
) -> list[Outcome]:
    """Run every cell once; one that fails is reported and does not stop the others.

    Every cell computes on one thread, so that its bytes do not depend on the number of workers.

    Args:
        cells: Keys must differ.
        workers: 1 runs in this process; more start a Dask cluster on this machine.
        progress: Called after every finished cell.

    Returns:
        Outcomes in the order of ``cells``.

    Raises:
        RMRError: Equal keys, or fewer than one worker.
    """
    keys = [cell.key for cell in cells]
    if len(set(keys)) != len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise RMRError(f"cells must differ, these come twice: {', '.join(twice)}")
    if workers < 1:
        raise RMRError(f"workers must be 1 or more, got {workers}")
    results = _in_process(cells) if workers == 1 else _on_cluster(cells, workers)
    outcomes: dict[str, Outcome] = {}
    for outcome in results:
        outcomes[outcome.key] = outcome
        if progress:
            progress(len(outcomes), len(cells))
    return [outcomes[key] for key in keys]


def run_cell(cell: Cell) -> Outcome:
    """Run one cell on one thread; any error but an interrupt becomes part of the outcome."""
    import torch  # noqa: PLC0415  (a worker pays for torch only when a cell runs)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Outcome(cell.key, cell.run(*cell.arguments), None)
    except RMRError as error:
        return Outcome(cell.key, None, str(error))
    except Exception:  # a cell is foreign code to the sweep; its whole trace is the report
        return Outcome(cell.key, None, traceback.format_exc())
    finally:
        torch.set_num_threads(threads)


def _in_process(cells: Sequence[Cell]) -> Iterator[Outcome]:
    for cell in cells:
        yield run_cell(cell)


def _on_cluster(cells: Sequence[Cell], workers: int) -> Iterator[Outcome]:
    from distributed import Client, LocalCluster, as_completed  # noqa: PLC0415  (heavy)

    cluster = LocalCluster(
        n_workers=min(workers, max(1, len(cells))),
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.ERROR,
    )
    with cluster, Client(cluster) as client:
        pending = {
            client.submit(run_cell, cell, key=cell.key, priority=-rank): cell.key
            for rank, cell in enumerate(cells)
        }
        for future in as_completed(pending):
            yield _gathered(pending.pop(future), future)
            future.release()


def _gathered(key: str, future: Any) -> Outcome:
    """Return a finished cell's outcome; where its worker died since, wait until it is redone."""
    try:
        return future.result()
    except Exception as error:  # whatever the cluster says is the report
        return Outcome(key, None, f"the worker was lost: {error}")
