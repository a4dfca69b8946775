"""One self-contained HTML page about a run, the same bytes for the same run folder."""

from pathlib import Path

from rmr_gym.analysis import html
from rmr_gym.analysis.agents_report import agents_page
from rmr_gym.analysis.bottleneck_report import bottleneck_page
from rmr_gym.analysis.measures_report import measures_page
from rmr_gym.analysis.objectives_report import objectives_page
from rmr_gym.analysis.page import Page
from rmr_gym.analysis.run import run_kind
from rmr_gym.analysis.tables import save_tables
from rmr_gym.analysis.transfer_report import transfer_page
from rmr_gym.analysis.views_report import views_page
from rmr_gym.analysis.world_models_report import world_models_page
from rmr_gym.core.errors import unknown_name
from rmr_gym.core.files import write_atomically

PAGES = {
    "transfer": transfer_page,
    "bottleneck": bottleneck_page,
    "agents": agents_page,
    "objectives": objectives_page,
    "measures": measures_page,
    "world_models": world_models_page,
    "views": views_page,
}
"""Page of each kind of run."""


def write_report(folder: Path | str, out: Path | str | None = None) -> Path:
    """Write report.html for a run folder; beside it its tables, and its figures in ``figures/``.

    The page needs no network and holds its pictures. What the run lacks is left out.

    Args:
        folder: A run folder of any kind; a run.json without a kind is one of a comparison.
        out: The HTML file; None for ``<folder>/report.html``.

    Returns:
        Path of the page.

    Raises:
        RMRError: If the folder is no run, a file in it is damaged, or the page cannot be written.
    """
    path, _ = write_report_and_text(folder, out)
    return path


def write_report_and_text(folder: Path | str, out: Path | str | None = None) -> tuple[Path, str]:
    """Write the report, see `write_report`; return its path and its short form in plain text."""
    folder = Path(folder)
    path = folder / "report.html" if out is None else Path(out)
    kind = run_kind(folder)
    if kind not in PAGES:
        raise unknown_name("kind of run", kind, PAGES)
    page: Page = PAGES[kind](folder, path.parent / "figures")
    save_tables(page.tables, path.parent)
    kept = {name: content for name, content in page.sections.items() if content}
    return write_atomically(path, html.page(page.title, page.lead, kept)), page.text
