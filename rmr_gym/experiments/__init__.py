"""Experiments: folders with what is run (grid) and what is shown (report).

A folder is an experiment; one that holds several names them in ``EXPERIMENTS``, with a line about
each.
"""

from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import known_name


def experiments() -> dict[str, tuple[str, str]]:
    """Return the folder of every experiment and one line about it, by name."""
    known = {}
    for folder in files(__name__).iterdir():
        if (folder / "grid.py").is_file():
            package = import_module(f"{__name__}.{folder.name}")
            own = getattr(package, "EXPERIMENTS", {folder.name: package.__doc__})
            known |= {name: (folder.name, line.partition("\n")[0]) for name, line in own.items()}
    return dict(sorted(known.items()))


def part_of(experiment: str, part: str) -> Any:
    """Return the class in the "grid" of an experiment, or the function in its "report".

    Raises:
        RMRError: If there is no such experiment.
    """
    folder, _ = experiments()[known_name("experiment", experiment, experiments())]
    module = import_module(f"{__name__}.{folder}.{part}")
    if part == "report":
        return getattr(module, experiment)
    return next(own for own in vars(module).values() if getattr(own, "kind", "") == experiment)


def write_report(folder: Path | str, out: Path | str | None = None) -> tuple[Path, str]:
    """Write the report of a run folder of any kind; see `rmr_gym.report.page.write_report`.

    Raises:
        RMRError: If the kind is unknown, the folder is no run, a file in it is damaged, or the
            page cannot be written.
    """
    from rmr_gym.report import page, runs  # noqa: PLC0415 - jinja2 and matplotlib

    return page.write_report(folder, part_of(runs.run_kind(folder), "report"), out)
