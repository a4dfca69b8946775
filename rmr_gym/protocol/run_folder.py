"""What every run folder holds: tables as CSV, and what run.json says of machine and time."""

from collections.abc import Container, Iterable

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.base import circumstances, write_table
from rmr_gym.protocol.sweep import Outcome

__all__ = ["circumstances", "problems", "write_table"]


def problems(outcomes: Iterable[Outcome], needed: Container[str] = ()) -> list[str]:
    """Return one sentence for every cell that failed or collapsed.

    Args:
        outcomes: What is told of.
        needed: Keys of cells that serve others; that one of them worked is no result.

    Raises:
        RMRError: All others failed.
    """
    outcomes = list(outcomes)
    told = [(each, each.error or each.value.get("collapsed")) for each in outcomes]
    found = [f"{each.key}: {said.strip()}" for each, said in told if said]
    results = [each for each in outcomes if each.key not in needed]
    if results and all(each.error for each in results):
        raise RMRError(f"every cell failed; the first said: {found[0]}")
    return found
