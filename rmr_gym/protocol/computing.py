"""How the cells of a table are computed."""

from collections.abc import Callable
from dataclasses import dataclass

from rmr_gym.protocol.training import Progress

ProgressFor = Callable[[str], Progress | None]
"""Gives the progress callback of a stage by its title."""


def no_progress(title: str) -> Progress | None:
    """Show nothing."""
    del title


@dataclass(frozen=True)
class Computing:
    """How the cells of a table are computed, whatever they are.

    Attributes:
        command: What was typed; written into ``run.json``.
        workers: Cells side by side, each on one core.
        scheduler: Address of a Dask cluster that runs them instead; None: this machine.
        stack: At most so many trainings run as one model, where cells can; None: 40 on a GPU, 1
            elsewhere. See `rmr_gym.protocol.stacked_cells.run_stacked_cells`.
        progress_for: Gives the progress callback of a stage by its title.
    """

    command: str
    workers: int = 1
    scheduler: str | None = None
    stack: int | None = None
    progress_for: ProgressFor = no_progress
