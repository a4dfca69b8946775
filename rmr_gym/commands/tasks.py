"""Which games a command means, where their data and results lie, and how its runs compute."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rmr_gym.commands.console import ProgressFor, err_console, out_console, read_options
from rmr_gym.core.errors import RMRError

if TYPE_CHECKING:
    from rmr_gym.protocol.computing import Computing


__all__ = ["CellRuns", "Flat", "computing", "conclude", "many_files", "read_options"]
_FILES = (".csv", ".gif", ".html", ".json", ".png")
Flat = tyro.conf.OmitArgPrefixes
"""Annotation: the fields of these options are options of the command."""


@dataclass(frozen=True)
class CellRuns:
    """Options of every command that computes a run folder cell by cell.

    Attributes:
        preset: Sizes, steps, checkpoints, probes and the number of seeds.
        seeds: Number of paired seeds; None: the preset's.
        out: Run folder; default: one under ROOT, named after preset and command.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        workers: Processes that work side by side; default: one a core, 1 with a GPU.
        scheduler: Address of a Dask cluster that runs the cells instead, for instance
            tcp://host:8786; it must see all folders under the same paths.
    """

    preset: Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")] = "laptop"
    seeds: int | None = None
    out: Path | None = None
    root: Path = Path("runs")
    device: str = "cpu"
    workers: int | None = None
    scheduler: str | None = None

    @property
    def worker_count(self) -> int:
        """How many processes compute: as asked, else one a core, or one alone with a GPU."""
        if self.workers is not None:
            return self.workers
        return (os.cpu_count() or 1) if self.device == "cpu" else 1

    def seed_range(self, default: int) -> range:
        """Return the seeds.

        Raises:
            RMRError: None was asked for.
        """
        if self.seeds is not None and self.seeds < 1:
            raise RMRError(f"seeds must be 1 or more, got {self.seeds}")
        return range(self.seeds or default)

    def folder(self, *names: str) -> Path:
        """Return the run folder, by default named after the preset and what is given."""
        return self.out or self.root / "-".join([self.preset, *names])

    def computing(self, progress_for: ProgressFor) -> "Computing":
        """Return how the function behind a command is to compute."""
        return computing(self.worker_count, progress_for, self.scheduler)


def computing(workers: int, progress_for: ProgressFor, scheduler: str | None = None) -> "Computing":
    """Return how the command that was typed is to compute."""
    from rmr_gym.protocol.computing import Computing  # noqa: PLC0415

    command = shlex.join(["rmr-gym", *sys.argv[1:]])
    return Computing(command, workers, scheduler, progress_for=progress_for)


def many_files(out: Path) -> Path:
    """Return a folder for several files.

    Raises:
        RMRError: It is called like a file.
    """
    if out.suffix in _FILES:
        raise RMRError(
            f"expected a folder for --out, which holds several files, got {out}: leave "
            f"{out.suffix} out"
        )
    return out


def conclude(out: Path | None, problems: Sequence[str]) -> None:
    """Print where the results are, and what went wrong."""
    if out is not None:
        out_console.print(f"written: {out}", markup=False, soft_wrap=True)
    for problem in problems:
        err_console.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)
