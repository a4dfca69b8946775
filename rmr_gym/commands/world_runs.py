"""What the commands of world models share: tasks, options of their runs, what they print."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmr_gym.commands.balls import read_balls_processor
from rmr_gym.commands.console import out_console, print_rows
from rmr_gym.commands.tasks import CellRuns, conclude
from rmr_gym.commands.world_data import find_data
from rmr_gym.errors import RMRError

if TYPE_CHECKING:
    from rmr_gym.protocol.world_models import WorldTask


@dataclass(frozen=True, kw_only=True)
class WorldRuns(CellRuns):
    """Options of every command that computes a run folder over world models and seeds.

    Attributes:
        data: Folder of the data set that they are trained on, or an environment that is played
            now, for instance rmr/RNEMBalls4-v0.
        preset: Sizes and steps.
        seeds: Number of paired seeds.
        steps: Gradient steps at most; default: the preset's.
    """

    data: Path
    seeds: int = 1
    steps: int | None = None

    def run_folder(self, name: str) -> Path:
        """Return the run folder.

        Raises:
            RMRError: A table was asked for.
        """
        out = self.folder(name)
        if out.suffix == ".csv":
            raise RMRError(
                f"expected a folder for --out, which holds the tables, got {out}: leave .csv out"
            )
        return out

    def tasks(
        self,
        models: Iterable[str],
        groups: int | None = None,
        processor: Path | None = None,
    ) -> "list[WorldTask]":
        """Return a task a model; the number of groups is for models that have several."""
        from rmr_gym.protocol.world_model_presets import find_world_model  # noqa: PLC0415

        several = {model: find_world_model(model).grouped for model in models}
        data = find_data(self.data, self.preset, self.root)
        how = (self.preset, self.root, self.device, processor, self.steps)
        return [
            make_task(data, model, groups if grouped else None, *how)
            for model, grouped in several.items()
        ]

    def found(self, tests: Sequence[Path]) -> list[Path]:
        """Return the folders of test sets; environments among them are played."""
        return [find_data(test, self.preset, self.root) for test in tests]


def make_task(
    data: Path,
    model: str,
    groups: int | None,
    preset: str,
    root: Path,
    device: str,
    processor: Path | None = None,
    steps: int | None = None,
) -> "WorldTask":
    """Return the task of some data; the processor is for models with a P inside alone."""
    from rmr_gym.models.pipeline import find_device  # noqa: PLC0415
    from rmr_gym.protocol.store import Store  # noqa: PLC0415
    from rmr_gym.protocol.world_model_presets import (  # noqa: PLC0415
        find_world_model,
        find_world_preset,
    )
    from rmr_gym.protocol.world_models import WorldTask  # noqa: PLC0415

    chosen = find_world_preset(preset, model)
    if steps is not None:
        chosen = replace(chosen, steps=steps, check_every=min(chosen.check_every, max(steps, 1)))
    find_device(device)
    if find_world_model(model).arm is None:
        processor = None
    elif processor is not None:
        read_balls_processor(processor)
    store = Store(root / "store").root
    data = find_data(data, preset, root)
    return WorldTask(data, store, model, chosen, groups, device, processor)


def print_table(rows: Iterable[Mapping[Any, Any]], shown: Mapping[str, str]) -> None:
    """Print columns of rows under other names; what is None stays empty."""
    readable = [
        {label: "" if row[name] is None else row[name] for name, label in shown.items()}
        for row in rows
    ]
    print_rows(readable, tuple(shown.values()))


def report_run(out: Path, table: str, shown: Mapping[str, str], problems: Sequence[str]) -> None:
    """Print a table of a run folder, write its report and print what it says."""
    import pandas as pd  # noqa: PLC0415

    from rmr_gym.analysis.report import write_report_and_text  # noqa: PLC0415

    scores = pd.read_csv(out / table).convert_dtypes()
    print_table(scores.astype(object).where(scores.notna(), None).to_dict("records"), shown)
    report, said = write_report_and_text(out)
    out_console.print(said, markup=False, highlight=False, soft_wrap=True)
    for path in (*sorted(out.glob("*.csv")), report):
        out_console.print(f"written: {path}", markup=False, soft_wrap=True)
    conclude(None, problems)
