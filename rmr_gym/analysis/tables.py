"""Summary tables of a run: means over seeds, paired differences, the paper's figures beside."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.analysis.cells import Cell, cells, trained_steps
from rmr_gym.analysis.differences import (
    DIFFERENCE_COLUMNS,
    difference_columns,
    means,
    with_corrected,
)
from rmr_gym.analysis.paper import paper_abstract, paper_natural
from rmr_gym.analysis.run import (
    ARM_LABELS,
    MODEL_LABELS,
    Run,
    in_order,
    load_run,
    values,
    where,
)
from rmr_gym.core.files import write_atomically

__all__ = [
    "abstract_table",
    "checkpoint_table",
    "contrast_table",
    "load_run",
    "natural_table",
    "summarise",
]

BASELINES = ("cswm", "untrained")
CONTROLS = ("random_p", "shuffled_p", "no_p")
NATURAL_METRICS = ("micro_f1", "macro_f1", "slot_accuracy", "effective_rank", "dead_slots")
ABSTRACT_METRICS = ("slot_accuracy", "bit_f1", "bit_accuracy", "mask_accuracy")


@dataclass(frozen=True, eq=False)
class Summary:
    """All tables of a run.

    Attributes:
        natural: `natural_table` at the last checkpoint under the headline probe.
        contrast: `contrast_table` at the same place.
        checkpoints: `checkpoint_table`.
        abstract: `abstract_table`.
    """

    natural: pd.DataFrame
    contrast: pd.DataFrame
    checkpoints: pd.DataFrame
    abstract: pd.DataFrame


def summarise(run: Run) -> Summary:
    """Compute all tables of a run, the headline under `headline_probe`."""
    probe = headline_probe(run)
    return Summary(
        natural=natural_table(run, probe),
        contrast=contrast_table(run, probe),
        checkpoints=checkpoint_table(run),
        abstract=abstract_table(run),
    )


def natural_table(run: Run, probe: str = "ridge", step: int | None = None) -> pd.DataFrame:
    """Return one row a game and arm: scores over seeds, and differences to C-SWM and untrained.

    Source: RMR, section 5, Table 1. Differs: every arm of the decisions page, 13, not only RMR and
    C-SWM; both one-sided tests; a correction for the number of tests.

    Args:
        run: The run.
        probe: Which probe's scores.
        step: Checkpoint of the trained arms; None for the last that any of them reached. An arm
            without a row there has 0 seeds; the untrained, supervised and PCA columns, where they
            have none, stand with their own last step.

    Returns:
        Columns: game, objective, probe, checkpoint, arm, label, step, seeds; ``<metric>_mean`` and
        ``<metric>_std`` (sample deviation, NaN under two seeds) for micro_f1, macro_f1,
        slot_accuracy, effective_rank, dead_slots; ``paper_mean``, ``paper_std``; and for each
        baseline, cswm and untrained, of the difference in micro_f1 paired by seed:
        ``<baseline>_pairs``, ``_difference``, ``_low``, ``_high`` (95% bootstrap interval),
        ``_p_better``, ``_p_worse``, ``_verdict``, and the same after Benjamini-Hochberg over all
        cells of this table with at least 5 pairs, each direction on its own: ``_p_better_bh``,
        ``_p_worse_bh``, ``_verdict_bh``.

    Raises:
        RMRError: Unknown probe, or a step that no arm has.
    """
    rows = [
        _arm_row(cell, arm, frame)
        for cell in cells(run, probe, step)
        for arm, frame in cell.arms.items()
    ]
    table = pd.DataFrame(rows, columns=_NATURAL_COLUMNS)
    for baseline in BASELINES:
        table = with_corrected(table, f"{baseline}_")
    return table


def contrast_table(run: Run, probe: str = "ridge", step: int | None = None) -> pd.DataFrame:
    """Return RMR against the controls whose P is frozen at random, weight-shuffled, or absent.

    These rows, and not the difference to C-SWM, say whether what P learned from RAM matters.

    Args:
        run: The run.
        probe: As in `natural_table`.
        step: As in `natural_table`.

    Returns:
        Columns: game, objective, probe, checkpoint, control, label; pairs, difference, low, high,
        p_better, p_worse, verdict, p_better_bh, p_worse_bh, verdict_bh.
    """
    rows = [
        {
            "game": cell.game,
            "objective": cell.objective,
            "probe": probe,
            "checkpoint": cell.checkpoint,
            "control": control,
            "label": ARM_LABELS[control],
            **difference_columns(cell, "rmr", control, ""),
        }
        for cell in cells(run, probe, step)
        for control in CONTROLS
        if control in cell.arms and "rmr" in cell.arms
    ]
    return with_corrected(pd.DataFrame(rows, columns=_CONTRAST_COLUMNS), "")


def checkpoint_table(run: Run) -> pd.DataFrame:
    """Return `natural_table` for every probe and every checkpoint, one under the other.

    Each (probe, checkpoint) is corrected as its own table.
    """
    parts = [
        natural_table(run, probe, step)
        for probe in run.probes
        for step in trained_steps(where(run.natural, probe=probe))
    ]
    return pd.concat(parts, ignore_index=True) if parts else natural_table(run)


def abstract_table(run: Run) -> pd.DataFrame:
    """Return one row a game and abstract model at its last step, the paper's figures beside.

    Source: RMR, appendix B, Table 2.

    Returns:
        Columns: game, model, label, step, seeds; ``<metric>_mean`` and ``<metric>_std`` for
        slot_accuracy, bit_f1, bit_accuracy, mask_accuracy; paper_slot_accuracy, paper_bit_f1.
    """
    rows = []
    for game in run.games:
        of_game = where(run.abstract, game=game)
        for model in in_order(values(of_game, "model"), MODEL_LABELS):
            frame = where(of_game, model=model)
            last = int(values(frame, "step").max())
            rows.append(_model_row(game, model, last, where(frame, step=last)))
    return pd.DataFrame(rows, columns=_ABSTRACT_COLUMNS)


def summary_tables(summary: Summary) -> dict[str, pd.DataFrame]:
    """Return the tables by the names of their files."""
    return {
        "natural_summary.csv": summary.natural,
        "contrast_summary.csv": summary.contrast,
        "checkpoint_summary.csv": summary.checkpoints,
        "abstract_summary.csv": summary.abstract,
    }


def save_tables(tables: dict[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write tables as CSV, the same bytes for the same tables, and return their paths.

    Raises:
        RMRError: If a file cannot be written.
    """
    return [
        write_atomically(folder / name, table.to_csv(index=False, float_format="%.6g"))
        for name, table in tables.items()
    ]


def headline_probe(run: Run) -> str:
    """Return the probe of the headline table: ridge, or the first there is."""
    return next(iter(run.probes), "ridge")


def _arm_row(cell: Cell, arm: str, frame: pd.DataFrame) -> dict[str, Any]:
    paper = paper_natural(cell.game)
    row = {
        "game": cell.game,
        "objective": cell.objective,
        "probe": cell.probe,
        "checkpoint": cell.checkpoint,
        "arm": arm,
        "label": ARM_LABELS.get(arm, arm),
        "step": int(values(frame, "step").max()) if len(frame) else cell.checkpoint,
        "seeds": int((~np.isnan(values(frame, "micro_f1"))).sum()),
        **means(frame, NATURAL_METRICS),
        "paper_mean": paper.get(f"{arm}_mean", np.nan),
        "paper_std": paper.get(f"{arm}_std", np.nan),
    }
    for baseline in BASELINES:
        row |= difference_columns(cell, arm, baseline, f"{baseline}_")
    return row


def _model_row(game: str, model: str, step: int, frame: pd.DataFrame) -> dict[str, Any]:
    paper = paper_abstract(game)
    name = model.replace("_", "")
    return {
        "game": game,
        "model": model,
        "label": MODEL_LABELS.get(model, model),
        "step": step,
        "seeds": int((~np.isnan(values(frame, "bit_f1"))).sum()),
        **means(frame, ABSTRACT_METRICS),
        "paper_slot_accuracy": paper.get(f"{name}_slot_acc", np.nan),
        "paper_bit_f1": paper.get(f"{name}_bit_f1", np.nan),
    }


def _pairs_of(metrics: tuple[str, ...]) -> list[str]:
    return [f"{metric}_{kind}" for metric in metrics for kind in ("mean", "std")]


_NATURAL_COLUMNS = [
    *("game", "objective", "probe", "checkpoint", "arm", "label", "step", "seeds"),
    *_pairs_of(NATURAL_METRICS),
    *("paper_mean", "paper_std"),
    *(f"{baseline}_{name}" for baseline in BASELINES for name in DIFFERENCE_COLUMNS),
]
_CONTRAST_COLUMNS = [
    *("game", "objective", "probe", "checkpoint", "control", "label"),
    *DIFFERENCE_COLUMNS,
]
_ABSTRACT_COLUMNS = [
    *("game", "model", "label", "step", "seeds"),
    *_pairs_of(ABSTRACT_METRICS),
    *("paper_slot_accuracy", "paper_bit_f1"),
]
