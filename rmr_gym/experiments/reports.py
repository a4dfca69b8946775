"""The report of every experiment, found by the kind that run.json names."""

from importlib import import_module
from importlib.resources import files
from pathlib import Path

from rmr_gym.analysis.report import PAGES, write_report_and_text
from rmr_gym.core.errors import unknown_name
from rmr_gym.report import page
from rmr_gym.report.runs import run_kind


def kinds() -> list[str]:
    """Return the kinds of run that have a report: folders here with a report.py."""
    folders = files("rmr_gym.experiments").iterdir()
    return sorted(folder.name for folder in folders if (folder / "report.py").is_file())


def write_report(folder: Path | str, out: Path | str | None = None) -> tuple[Path, str]:
    """Write the report of a run folder of any kind; see `rmr_gym.report.page.write_report`.

    Raises:
        RMRError: If the kind is unknown, the folder is no run, a file in it is damaged, or the
            page cannot be written.
    """
    kind = run_kind(folder).replace("-", "_")
    if kind in PAGES:
        return write_report_and_text(folder, out)
    if kind not in kinds():
        raise unknown_name("kind of run", kind, kinds())
    report = import_module(f"rmr_gym.experiments.{kind}.report").report
    return page.write_report(folder, report, out)
