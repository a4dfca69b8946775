"""The report of every experiment, found by the kind that run.json names."""

from importlib import import_module
from pathlib import Path

from rmr_gym.core.errors import unknown_name
from rmr_gym.experiments import experiments_with
from rmr_gym.report import page
from rmr_gym.report.runs import run_kind


def write_report(folder: Path | str, out: Path | str | None = None) -> tuple[Path, str]:
    """Write the report of a run folder of any kind; see `rmr_gym.report.page.write_report`.

    Raises:
        RMRError: If the kind is unknown, the folder is no run, a file in it is damaged, or the
            page cannot be written.
    """
    kind = run_kind(folder).replace("-", "_")
    known = experiments_with("report")
    if kind not in known:
        raise unknown_name("kind of run", kind, known)
    report = import_module(f"rmr_gym.experiments.{kind}.report").report
    return page.write_report(folder, report, out)
