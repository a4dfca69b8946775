"""How far a sweep is: what is done, what it cost, what the rest will cost."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from rmr_gym.protocol.sweep_folder import DONE, FAILED, WAITING, CellState

RECENT = 50
"""The rate is that of so many cells that ended last."""


class Kind(NamedTuple):
    """The cells whose keys start with the same word."""

    name: str
    done: int
    failed: int
    waiting: int
    seconds: float | None


class Estimate(NamedTuple):
    """What a sweep costs on one core, and when it will be there.

    Attributes:
        spent: Seconds of the cells that ended.
        rest: Seconds that the others will take, each as long as the mean of its kind.
        unknown: Cells that are not in ``rest``, as none of their kind is done.
        rate: Cells a second, of late; None before two have ended.
        left: Seconds until no cell waits, at that rate.
    """

    spent: float
    rest: float
    unknown: int
    rate: float | None
    left: float | None


def kinds(states: Sequence[CellState]) -> list[Kind]:
    """Count the states of every kind of cell; the time is the mean of those that are done."""
    names = dict.fromkeys(_kind(state) for state in states)
    return [_count(name, [state for state in states if _kind(state) == name]) for name in names]


def estimate(states: Sequence[CellState], finished: Sequence[datetime]) -> Estimate:
    """Estimate cost and time left.

    Args:
        states: Of all cells.
        finished: When cells ended, in any order.
    """
    found = kinds(states)
    open_cells = [(kind, kind.failed + kind.waiting) for kind in found]
    waiting = sum(kind.waiting for kind in found)
    rate = _rate(finished)
    return Estimate(
        spent=sum((state.seconds or 0 for state in states), 0.0),
        rest=sum((n * kind.seconds for kind, n in open_cells if kind.seconds is not None), 0.0),
        unknown=sum(count for kind, count in open_cells if kind.seconds is None),
        rate=rate,
        left=waiting / rate if rate else None,
    )


def _kind(state: CellState) -> str:
    return state.key.split(" ", 1)[0]


def _count(name: str, states: Sequence[CellState]) -> Kind:
    done, failed, waiting = (
        [state for state in states if state.state == wanted] for wanted in (DONE, FAILED, WAITING)
    )
    seconds = [state.seconds or 0.0 for state in done]
    mean = sum(seconds) / len(seconds) if seconds else None
    return Kind(name, len(done), len(failed), len(waiting), mean)


def _rate(finished: Sequence[datetime]) -> float | None:
    last = sorted(finished)[-RECENT:]
    seconds = (last[-1] - last[0]).total_seconds() if last else 0.0
    return (len(last) - 1) / seconds if seconds > 0 else None
