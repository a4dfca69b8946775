"""What a sweep consists of: keyed cells, what became of them, and which can run next."""

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from rmr_gym.core.errors import RMRError, unknown_name


class Cell(NamedTuple):
    """One unit of work: a module-level function and its arguments.

    Attributes:
        key: Names the cell in the sweep; its first word is its kind.
        run: Called with ``arguments``; what it returns must be JSON where a folder keeps it.
        arguments: Must be picklable where the sweep runs on a cluster.
        after: Keys of the cells that must have finished before.
        inputs: JSON of all that decides the result; a kept result of other inputs is refused.
    """

    key: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: tuple[str, ...] = ()
    inputs: Mapping[str, Any] | None = None


class Outcome(NamedTuple):
    """What became of a cell: its value, or the error that ended it."""

    key: str
    value: Any
    error: str | None
    seconds: float = 0.0
    attempts: int = 1


def run_cell(cell: Cell, report: Callable[[str], Any] | None = None) -> Outcome:
    """Run one cell on one thread; any error but an interrupt becomes part of the outcome.

    Args:
        cell: What to run.
        report: Called with the whole traceback of an error.
    """
    started, value, error = time.perf_counter(), None, None
    try:
        with _one_thread():
            value = cell.run(*cell.arguments)
    except (Exception, SystemExit) as raised:  # a cell is foreign code to the sweep
        trace = traceback.format_exc()
        error = str(raised) if isinstance(raised, RMRError) else trace
        if report:
            report(trace)
    return Outcome(cell.key, value, error, time.perf_counter() - started)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch, where it is loaded, to one thread."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Agenda:
    """The cells of a sweep in the order in which they can run.

    Args:
        cells: In the order in which they should run, as far as ``after`` permits.
        found: Outcomes that are there already.

    Raises:
        RMRError: Equal keys, an unknown key in ``after``, or cells that wait for each other.
    """

    def __init__(self, cells: Sequence[Cell], found: Iterable[Outcome] = ()):
        check_keys(cells)
        self.outcomes = {outcome.key: outcome for outcome in found}
        self._cells = {cell.key: cell for cell in cells}
        self._rank = {cell.key: rank for rank, cell in enumerate(cells)}
        self._graph = TopologicalSorter({cell.key: cell.after for cell in cells})
        try:
            self._graph.prepare()
        except CycleError as error:
            raise RMRError(f"these cells wait for each other: {', '.join(error.args[1])}") from None

    def rank(self, cell: Cell) -> int:
        """Return the cell's place in the order that was asked for."""
        return self._rank[cell.key]

    def __len__(self) -> int:
        """Count the cells that have not ended."""
        return len(self._cells) - len(self.outcomes)

    def take(self) -> tuple[list[Cell], list[Outcome]]:
        """Return the cells that can run from now on, and the outcomes of those that never can."""
        ready, blocked = [], []
        while keys := self._graph.get_ready():
            for key in keys:
                cell = self._cells[key]
                if key in self.outcomes:
                    self._graph.done(key)
                elif failed := [need for need in cell.after if self.outcomes[need].error]:
                    blocked.append(Outcome(key, None, f"it needs {failed[0]!r}, which failed"))
                    self.finish(blocked[-1])
                else:
                    ready.append(cell)
        return sorted(ready, key=self.rank), blocked

    def finish(self, outcome: Outcome) -> None:
        """Take note of what became of a cell."""
        self.outcomes[outcome.key] = outcome
        self._graph.done(outcome.key)


def check_keys(cells: Sequence[Cell]) -> None:
    """Refuse equal keys and dependencies on cells that are not there.

    Raises:
        RMRError: With the keys.
    """
    keys = [cell.key for cell in cells]
    known = set(keys)
    if len(known) != len(keys):
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise RMRError(f"cells must differ, these come twice: {', '.join(twice)}")
    for need in (need for cell in cells for need in cell.after):
        if need not in known:
            raise unknown_name("cell to wait for", need, keys)
