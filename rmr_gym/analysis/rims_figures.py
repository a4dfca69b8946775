"""Pictures of which RIMs are active when."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmr_gym.analysis.canvas import STYLE, new_figure, styled
from rmr_gym.core.errors import RMRError

Shares = Float[np.ndarray, "time slots"]

_INCHES_A_RIM, _WIDTH = 0.22, 8.0
_EDGE = "#D55E00"


@styled
def activation_figure(patterns: Mapping[str, Shares], phases: Mapping[str, int]) -> Figure:
    """Draw which RIMs are active at which instant: black where they are, white where not.

    Source: RIMs, Figure 4. Differs: shares of several sequences are gray; lines part the phases.

    Args:
        patterns: By title, the share of sequences in which each RIM is active, 0 to 1; all have
            as many instants and RIMs.
        phases: Names of the phases and the instant at which each begins, in order from 0.

    Raises:
        RMRError: No pattern, patterns of different shapes, a phase that begins outside.
    """
    shapes = {pattern.shape for pattern in patterns.values()}
    if len(shapes) != 1:
        raise RMRError(
            f"expected one pattern or more of one shape, instants by RIMs, got {sorted(shapes)}"
        )
    time, rims = shapes.pop()
    if not all(0 <= begin < time for begin in phases.values()):
        raise RMRError(f"expected phases that begin at 0 to {time - 1}, got {dict(phases)}")
    height = 0.55 + _INCHES_A_RIM * rims
    figure = new_figure(_WIDTH, height * len(patterns) + 0.5)
    panels = figure.subplots(len(patterns), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (title, pattern) in zip(panels, patterns.items(), strict=True):
        panel.imshow(
            pattern.T, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
        )
        panel.set_title(title, loc="left", pad=18 if panel is panels[0] else 4)
        panel.set_yticks(range(rims), [str(rim + 1) for rim in range(rims)])
        panel.set_ylabel("RIM")
        panel.grid(visible=False)
        for rim in range(1, rims):
            panel.axhline(rim - 0.5, color=STYLE["grid.color"], linewidth=0.6)
        for begin in phases.values():
            if begin:
                panel.axvline(begin - 0.5, color=_EDGE, linewidth=1.2)
    panels[-1].set_xlabel("instant")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    ends = [*list(phases.values())[1:], time]
    for (name, begin), end in zip(phases.items(), ends, strict=True):
        panels[0].text(
            (begin + end) / 2 - 0.5, -0.7, name, color=_EDGE, ha="center", va="bottom", fontsize=8
        )
    return figure
