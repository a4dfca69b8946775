"""The folder of a sweep: one file a finished cell, a log a cell, a table of states."""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import os_errors, write_atomically
from rmr_gym.protocol.sweep_cells import Cell, Outcome, run_cell
from rmr_gym.protocol.sweep_log import cell_log

FORMAT = 1
"""Of the records; raised when old ones can no longer be read."""

ATTEMPTS = 8
"""A cell that was started so often without leaving a record is taken to kill its worker."""

TABLE = "jobs.csv"
DONE, FAILED, WAITING = "done", "failed", "waiting"
_STARTED, _ENDED = "started\n", "ended\n"


class CellState(NamedTuple):
    """One row of the table: where a cell is."""

    key: str
    state: str
    seconds: float | None = None
    attempts: int = 0
    error: str = ""


@dataclass(frozen=True)
class SweepFolder:
    """Keeps what the cells of a sweep leave: ``cells/*.json``, ``logs/*.log``, ``jobs.csv``.

    Everything is JSON or text; whatever machine runs a cell writes its files itself, so a cluster
    must see the folder under the same path.
    """

    path: Path

    def log(self, key: str) -> Path:
        """Return where the log of a cell is."""
        return self.path / "logs" / f"{_file_name(key)}.log"

    def record(self, key: str) -> Path:
        """Return where the record of a cell is, once it has ended."""
        return self.path / "cells" / f"{_file_name(key)}.json"

    def run(self, cell: Cell) -> Outcome:
        """Return the cell's kept outcome, or run the cell and keep what becomes of it.

        Raises:
            RMRError: A kept result of other inputs; nothing can be written.
        """
        found = self.find(cell)
        if found is not None:
            return found
        crashes = self.crashes(cell.key)
        if crashes >= ATTEMPTS:
            return self.keep(cell, Outcome(cell.key, None, poisoned(crashes)))
        attempt = self.attempts(cell.key) + 1
        self._mark(cell.key, _STARTED)
        title = f"attempt {attempt} at {cell.key}, {_now()}, process {os.getpid()}"
        try:
            with cell_log(self.log(cell.key), title) as report:
                outcome = run_cell(cell, report)
            return self.keep(cell, outcome)
        except BaseException:
            with suppress(RMRError):
                self.forgive([cell.key])
            raise

    def find(self, cell: Cell) -> Outcome | None:
        """Return the kept outcome of a cell that is done, or None.

        Raises:
            RMRError: It was computed from other inputs or by another version.
        """
        record = self._read(cell.key)
        if record is None or record["state"] != DONE:
            return None
        self._check_inputs(cell, record)
        return Outcome(cell.key, record["value"], None, record["seconds"], record["attempts"])

    def keep(self, cell: Cell, outcome: Outcome) -> Outcome:
        """Write the record of a cell that ended and return it as it will be found again.

        Raises:
            RMRError: It cannot be written; the sweep should end, for nothing else could be either.
        """
        record = {
            "format": FORMAT,
            "key": cell.key,
            "state": FAILED if outcome.error else DONE,
            "seconds": round(outcome.seconds, 3),
            "attempts": self.attempts(cell.key),
            "finished": _now(),
            "error": outcome.error,
            "inputs": _inputs(cell),
        }
        try:
            text = json.dumps({**record, "value": outcome.value}, indent=1)
        except (TypeError, ValueError) as error:
            record |= {"state": FAILED, "error": f"what the cell returned is not JSON: {error}"}
            text = json.dumps({**record, "value": None}, indent=1)
        write_atomically(self.record(cell.key), text)
        self._mark(cell.key, _ENDED)
        kept = json.loads(text)
        return Outcome(cell.key, kept["value"], kept["error"], kept["seconds"], kept["attempts"])

    def finished(self, key: str) -> datetime | None:
        """Return when a cell ended, or None."""
        record = self._read(key)
        return datetime.fromisoformat(record["finished"]) if record else None

    def attempts(self, key: str) -> int:
        """Return how often a cell was started."""
        return self._marks(key).count(_STARTED)

    def crashes(self, key: str) -> int:
        """Return how often a cell was started, one time after another, and never ended."""
        return self._marks(key).rpartition(_ENDED)[2].count(_STARTED)

    def forgive(self, keys: Iterable[str]) -> None:
        """Take note that cells were stopped from outside, so that it counts as no crash."""
        for key in keys:
            if self.crashes(key):
                self._mark(key, _ENDED)

    def write_table(self, states: Iterable[CellState]) -> None:
        """Replace the table of states.

        Raises:
            RMRError: It cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CellState._fields)
        writer.writerows(states)
        write_atomically(self.path / TABLE, text.getvalue())

    def read_states(self) -> list[CellState]:
        """Return where the cells of the sweep that wrote here last are.

        Raises:
            RMRError: No sweep did.
        """
        try:
            with (self.path / TABLE).open(newline="") as file:
                return [self._newest(row) for row in csv.DictReader(file)]
        except (OSError, KeyError, ValueError, csv.Error) as error:
            raise RMRError(
                f"{self.path} holds no sweep: expected a run folder with {TABLE} ({error})"
            ) from error

    def _newest(self, row: Mapping[str, str]) -> CellState:
        """Return a row of the table, or what the cell's record says, where it has one."""
        record = self._read(row["key"])
        if record is None:
            seconds = float(row["seconds"]) if row["seconds"] else None
            return CellState(row["key"], row["state"], seconds, int(row["attempts"]), row["error"])
        error = last_line(record["error"])
        return CellState(row["key"], record["state"], record["seconds"], record["attempts"], error)

    def _read(self, key: str) -> dict[str, Any] | None:
        """Return the record of a cell; a damaged one counts as none."""
        try:
            record = json.loads(self.record(key).read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or record.get("key") != key:
            return None
        if record.get("format") != FORMAT:
            raise RMRError(
                f"{self.record(key)} has format {record.get('format')}, expected {FORMAT}: it is "
                "of another version of the suite; choose another folder"
            )
        return record

    def _check_inputs(self, cell: Cell, record: Mapping[str, Any]) -> None:
        expected = json.loads(json.dumps(_inputs(cell)))
        difference = _difference(record["inputs"], expected)
        if difference:
            raise RMRError(
                f"{self.record(cell.key)} was computed from something else: {difference}; choose "
                "another folder, or remove that file to compute the cell anew"
            )

    def _marks(self, key: str) -> str:
        try:
            return self._attempts_file(key).read_text()
        except OSError:
            return ""

    def _mark(self, key: str, text: str) -> None:
        path = self._attempts_file(key)
        with os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(text)

    def _attempts_file(self, key: str) -> Path:
        return self.path / "cells" / f"{_file_name(key)}.attempts"


def poisoned(crashes: int) -> str:
    """Return the sentence for a cell that kills whatever runs it."""
    return (
        f"the process that ran it died {crashes} times in a row: it may need more memory than "
        "there is; see its log, mend it and run the same command again"
    )


def last_line(error: str | None) -> str:
    """Return the last line of an error, which says what happened."""
    return error.strip().rpartition("\n")[2] if error else ""


def states_of(outcomes: Sequence[Outcome]) -> list[CellState]:
    """Return the rows of the table for cells that ended."""
    return [
        CellState(
            outcome.key,
            FAILED if outcome.error else DONE,
            outcome.seconds,
            outcome.attempts,
            last_line(outcome.error),
        )
        for outcome in outcomes
    ]


def _inputs(cell: Cell) -> dict[str, Any]:
    return {**(cell.inputs or {}), "versions": _versions()}


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("rmr-gym", "torch", "numpy")}


def _difference(old: Any, new: Any, where: str = "") -> str | None:
    """Return a description of the first difference between two JSON values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            inner = f"{where}.{name}" if where else name
            found = _difference(old.get(name), new.get(name), inner)
            if found:
                return found
        return None
    return None if old == new else f"{where} was {old!r}, is {new!r}"


def _file_name(key: str) -> str:
    """Return a name that tells the key to a reader and is another for every key."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", key)[:80]
    return f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
