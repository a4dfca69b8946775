"""Bit F1 against the size of the latents, for the arms and for P on RAM itself."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmr_gym.analysis.bottleneck import abstract_sizes, at_size, sizes
from rmr_gym.analysis.canvas import (
    COLOURS,
    MARKERS,
    OTHER,
    draw_seeds,
    finish,
    panel_grid,
    styled,
)
from rmr_gym.analysis.cells import cells
from rmr_gym.analysis.checkpoint_figures import panel_titles, require_rows
from rmr_gym.analysis.run import ARM_LABELS, in_order, where
from rmr_gym.analysis.sweep_run import SweepRun

_ACROSS = "latent size, dim z"


@styled
def size_curves(sweep: SweepRun, probe: str = "ridge") -> Figure:
    """Draw bit F1 of every arm against the latent size: lines are means, bands the seeds' range.

    Source: RMR, Figure 5.

    Args:
        sweep: A bottleneck run.
        probe: Which probe's scores, at the last checkpoint.

    Raises:
        RMRError: If there are none.
    """
    found: dict[tuple[str, str], dict[str, list[pd.DataFrame]]] = {}
    for dim in sizes(sweep):
        for cell in cells(at_size(sweep, dim, probe), probe):
            arms = found.setdefault((cell.game, cell.objective), {})
            for arm, rows in cell.arms.items():
                arms.setdefault(arm, []).append(rows.assign(dim=dim))
    require_rows(len(found), sweep.base, "bottleneck.csv")
    figure, panels = panel_grid(panel_titles(list(found)))
    for arms, panel in zip(found.values(), panels, strict=True):
        for order, arm in enumerate(in_order(arms, ARM_LABELS)):
            style = {"color": COLOURS.get(arm, OTHER), "marker": MARKERS.get(arm, "*")}
            style |= {"linestyle": "--" if arm == "untrained" else "-", "zorder": 4 - 0.1 * order}
            label = ARM_LABELS.get(arm, arm)
            draw_seeds(panel, pd.concat(arms[arm]), "dim", "micro_f1", label=label, **style)
        _powers_of_two(panel, sizes(sweep))
    finish(figure, panels, _ACROSS, "bit F1 (micro)", ARM_LABELS)
    return figure


@styled
def abstract_size_curves(sweep: SweepRun) -> Figure:
    """Draw what each pretrained P itself scores on RAM against its latent size.

    Args:
        sweep: A bottleneck run.

    Raises:
        RMRError: If it has no scores of this.
    """
    table = abstract_sizes(sweep)
    require_rows(len(table), sweep.base, "bottleneck_abstract.csv")
    games = [game for game in sweep.named("games", column="game") if game in set(table["game"])]
    figure, panels = panel_grid(games)
    labels = {
        "bit_f1": "bit F1",
        "slot_accuracy": "slot accuracy",
        "mask_accuracy": "mask accuracy",
    }
    for game, panel in zip(games, panels, strict=True):
        rows = where(table, game=game)
        for metric, arm in zip(labels, ("rmr", "cswm", "random_p"), strict=True):
            style = {"color": COLOURS[arm], "marker": MARKERS[arm]}
            draw_seeds(panel, rows, "dim", metric, label=labels[metric], **style)
        _powers_of_two(panel, sizes(sweep))
    finish(figure, panels, _ACROSS, "P on RAM, next step", labels)
    return figure


def _powers_of_two(panel: Axes, dims: list[int]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks(dims, [str(dim) for dim in dims])
    panel.set_xticks([], minor=True)
