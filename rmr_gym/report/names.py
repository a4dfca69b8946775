"""What arms, objectives, probes, models and agents are called: a row each of names.csv.

The rows of a kind stand in the order of every table and figure. Colours are of Okabe and Ito's
palette: colour-blind readers tell them apart.
"""

import csv
from collections.abc import Iterable, Mapping
from importlib.resources import files

import numpy as np

with (files("rmr_gym.report") / "names.csv").open(encoding="utf-8") as _file:
    ROWS = tuple(csv.DictReader(_file))


def labels_of(kind: str) -> dict[str, str]:
    """Return what the names of a kind are called, in order."""
    return {row["name"]: row["label"] for row in ROWS if row["kind"] == kind}


def looks_of(*kinds: str) -> dict[str, dict[str, str]]:
    """Return colour, marker and dashes of the names of some kinds, as far as they have any."""
    styles = {"color": "colour", "marker": "marker", "linestyle": "line"}
    return {
        row["name"]: {style: row[column] for style, column in styles.items() if row[column]}
        for row in ROWS
        if row["kind"] in kinds and row["colour"]
    }


ARM_LABELS, OBJECTIVE_LABELS = labels_of("arm"), labels_of("objective")
PROBE_LABELS, MODEL_LABELS = labels_of("probe"), labels_of("model")
_LABELS = {**PROBE_LABELS, **MODEL_LABELS, **ARM_LABELS}


def called(names: Iterable[str], labels: Mapping[str, str]) -> np.ndarray:
    """Return what names are called, as a column."""
    return np.array([labels.get(name, name) for name in names], object)


def label(name: str) -> str:
    """Return what an arm, probe or abstract model is called."""
    return _LABELS.get(name, name)


def objective_label(name: str) -> str:
    """Return what an objective is called."""
    return OBJECTIVE_LABELS.get(name, name)
