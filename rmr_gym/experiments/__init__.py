"""Experiments: a folder each, with what is run (grid) and what is shown (report)."""

from importlib.resources import files


def experiments_with(part: str) -> list[str]:
    """Return the folders here that hold a module, for instance "grid" or "report", by name."""
    folders = files(__name__).iterdir()
    return sorted(folder.name for folder in folders if (folder / f"{part}.py").is_file())
