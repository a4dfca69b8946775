"""A run folder of a transfer matrix or of a bottleneck, read back."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from rmr_gym.analysis.run import COLUMNS, KEYS, SWEEP_KINDS, Run, read_run, run_kind, values
from rmr_gym.analysis.run_files import read_table
from rmr_gym.core.errors import RMRError

_PROBED = COLUMNS["natural"][len(KEYS["natural"]) :]
_BITS = COLUMNS["abstract"][len(KEYS["abstract"]) :]

SWEEP_KEYS: dict[str, tuple[str, ...]] = {
    "transfer": ("recipient", "donor", "objective", "arm", "seed", "step", "probe"),
    "bottleneck": ("game", "dim", "objective", "arm", "seed", "step", "probe"),
    "bottleneck_abstract": ("game", "dim", "step"),
}
"""Columns that name a row of each table; a name stands once."""

SWEEP_COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": (*SWEEP_KEYS["transfer"], *_PROBED),
    "bottleneck": (*SWEEP_KEYS["bottleneck"], *_PROBED),
    "bottleneck_abstract": (*SWEEP_KEYS["bottleneck_abstract"], *_BITS),
}
"""Columns of each table."""


@dataclass(frozen=True, eq=False)
class SweepRun:
    """A transfer or bottleneck run in memory; a table that is missing there is empty here.

    Attributes:
        kind: "transfer" or "bottleneck".
        base: What it shares with a comparison: folder, run.json, timings, cells.
        scores: transfer.csv or bottleneck.csv.
        abstract: bottleneck_abstract.csv; empty for a transfer.
    """

    kind: str
    base: Run
    scores: pd.DataFrame
    abstract: pd.DataFrame

    @property
    def info(self) -> dict[str, Any]:
        """What run.json says."""
        return self.base.info

    def named(self, *names: str, column: str) -> list[str]:
        """Return what the run is about, in its order: whether or not it has scores yet.

        Args:
            names: Lists of run.json to look for; the first that is there counts.
            column: Column of the scores in which further ones are found.
        """
        lists = [self.info[name] for name in names if isinstance(self.info.get(name), list)]
        listed = lists[0] if lists else []
        found = sorted({str(name) for name in values(self.scores, column)} - {""})
        return list(dict.fromkeys([*map(str, listed), *found]))

    def view(self, natural: pd.DataFrame) -> Run:
        """Return a run for the tables of a comparison, with scores in the form of natural.csv."""
        return replace(self.base, natural=natural)


def load_sweep_run(folder: Path | str) -> SweepRun:
    """Read a run folder of the kind "transfer" or "bottleneck"; what is not there is empty.

    Args:
        folder: A folder whose run.json says ``"kind": "transfer"`` or ``"kind": "bottleneck"``.

    Raises:
        RMRError: If it is no such run folder, a file in it is damaged, or an arm "rmr" of a
            transfer names no donor, or another arm names one.
    """
    folder = Path(folder)
    if (kind := run_kind(folder)) not in SWEEP_KINDS:
        raise RMRError(
            f"{folder} is no run of a sweep: expected a folder with transfer.csv or bottleneck.csv "
            f"and a run.json that says so, found the kind {kind!r}"
        )
    run = SweepRun(
        kind=kind,
        base=read_run(folder),
        scores=_read(folder, kind),
        abstract=_read(folder, "bottleneck_abstract"),
    )
    if kind == "transfer":
        _check_donors(run.scores, folder / "transfer.csv")
    return run


def _read(folder: Path, name: str) -> pd.DataFrame:
    return read_table(folder / f"{name}.csv", SWEEP_COLUMNS[name], SWEEP_KEYS[name])


def _check_donors(scores: pd.DataFrame, path: Path) -> None:
    """Refuse rows from which it cannot be told whose P was frozen."""
    has_donor = values(scores, "donor") != ""
    wrong = pd.DataFrame(scores[has_donor != (values(scores, "arm") == "rmr")])
    for row in wrong.to_dict("records"):
        raise RMRError(
            f"{path}: expected a donor for the arm rmr and none for others, found the donor "
            f"{row['donor']!r} for the arm {row['arm']!r} of {row['recipient']}; delete it and run "
            "the command that wrote it again"
        )
