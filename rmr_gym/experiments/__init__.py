"""Experiments: a folder each, with what is run (grid) and what is shown (report)."""

from importlib import import_module
from importlib.resources import files
from pathlib import Path

from rmr_gym.core.errors import unknown_name


def experiments_with(part: str) -> list[str]:
    """Return the folders here that hold a module, for instance "grid" or "report", by name."""
    folders = files(__name__).iterdir()
    return sorted(folder.name for folder in folders if (folder / f"{part}.py").is_file())


def write_report(folder: Path | str, out: Path | str | None = None) -> tuple[Path, str]:
    """Write the report of a run folder of any kind; see `rmr_gym.report.page.write_report`.

    Raises:
        RMRError: If the kind is unknown, the folder is no run, a file in it is damaged, or the
            page cannot be written.
    """
    from rmr_gym.report import page, runs  # noqa: PLC0415 - jinja2 and matplotlib

    kind, known = runs.run_kind(folder).replace("-", "_"), experiments_with("report")
    if kind not in known:
        raise unknown_name("kind of run", kind, known)
    report = import_module(f"{__name__}.{kind}.report").report
    return page.write_report(folder, report, out)
