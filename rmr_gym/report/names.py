"""What arms, objectives, probes and abstract models are called, and their order everywhere."""

from collections.abc import Iterable, Mapping

import numpy as np

ARM_LABELS = {
    "rmr": "RMR (frozen P)",
    "cswm": "C-SWM (P trained)",
    "random_p": "frozen random P",
    "shuffled_p": "weight-shuffled P",
    "no_p": "no P",
    "untrained": "untrained encoder",
    "supervised": "supervised on RAM (ceiling)",
    "pca": "pixels through PCA",
    "player": "player that sees RAM",
}
"""Arms in the order in which every table and figure shows them."""

OBJECTIVE_LABELS = {
    "cswm": "C-SWM hinge",
    "infonce": "InfoNCE",
    "infonce_slow": "InfoNCE, lower rate",
    "infonce_current": "InfoNCE, the state itself a negative",
    "infonce_3step": "InfoNCE, 3 steps",
    "cswm_aligned": "C-SWM hinge, aligned start",
    "infonce_aligned": "InfoNCE, aligned start",
}
"""Objectives in the order of tables and figures, those of committed runs too."""

PROBE_LABELS = {
    "ridge": "ridge",
    "adam_raw": "Adam on raw features",
    "adam_std": "Adam on standardised features",
}
"""Probes, the headline first."""

MODEL_LABELS = {
    "copy": "copy baseline",
    "mlp": "MLP",
    "deep_sets": "Deep Sets",
    "mpnn": "MPNN",
}
"""Abstract models in the order of the paper's Table 2."""

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
