"""Pictures of what world models do: groups in colour, attention, predictions beside the truth."""

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmr_gym.analysis.balls_figures import slot_colours
from rmr_gym.analysis.canvas import new_figure
from rmr_gym.analysis.films import enlarged

_INCHES = 0.8
SEEN, SIMULATED = "#2CA02C", "#555555"

Gray = Float[np.ndarray, "time height width"]
Shares = Float[np.ndarray, "time slots height width"]


def group_colours(shares: Shares) -> Float[np.ndarray, "time height width 3"]:
    """Return each pixel in the mixture of the colours of the groups that share it.

    Source: R-NEM, Figure 2, row 7 from the bottom: a pixel of one group has its full colour, one
    that all groups share is gray.
    """
    return np.einsum("tkhw,kc->thwc", shares, slot_colours(shares.shape[1]))


def attended(
    pictures: Shares, attention: Float[np.ndarray, "time slots slots"]
) -> Float[np.ndarray, "time slots height width 3"]:
    """Return each group's picture in gray, with what it attends to over it in colour.

    Source: R-NEM, Figure 2, rows 2 to 6: alpha_ki psi_i on top of psi_k, in the colour of i.
    """
    over = np.einsum("tki,tihw,ic->tkhwc", attention, pictures, slot_colours(pictures.shape[1]))
    return np.clip(pictures[..., None] + over, 0, 1)


def groups_figure(
    truth: Gray,
    predicted: Gray,
    seen: int,
    shares: Shares | None = None,
    pictures: Shares | None = None,
    attention: Float[np.ndarray, "time slots slots"] | None = None,
) -> Figure:
    """Draw a sequence: frames, their predictions, their groups, and what each group predicts.

    All arguments are of the same frames; green edges mark frames that the model was shown.

    Source: R-NEM, Figure 2 (from the top: truth, prediction, groups, one row a group).

    Args:
        truth: Frames, in [0, 1].
        predicted: Predictions of them.
        seen: How many of the frames the model was shown; it predicted the others from its own.
        shares: Of the groups in them; None for models without groups.
        pictures: What each group predicted; with ``attention``.
        attention: What group k took of group i.
    """
    rows = {"truth": _rgb(truth), "predicted": _rgb(predicted)}
    if shares is not None:
        rows["groups"] = group_colours(shares)
    if pictures is not None and attention is not None:
        each = attended(pictures, attention)
        rows |= {f"group {k + 1}": each[:, k] for k in range(each.shape[1])}
    figure = new_figure(_INCHES * len(truth), _INCHES * len(rows) + 0.3)
    axes = figure.subplots(len(rows), len(truth), squeeze=False)
    for line, (title, frames) in zip(axes, rows.items(), strict=True):
        for column, frame in enumerate(frames):
            _show(line[column], frame, SEEN if column < seen else SIMULATED)
        line[0].set_ylabel(title, fontsize=7)
    return figure


def film_frames(
    truth: Gray, predicted: Gray, shares: Shares | None = None, times: int = 4
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Return frames of a film: truth, prediction and groups side by side, enlarged."""
    columns = [_rgb(truth), _rgb(predicted)]
    if shares is not None:
        columns.append(group_colours(shares))
    wide = np.concatenate(
        [np.pad(part, ((0, 0), (0, 0), (1, 1), (0, 0)), constant_values=0.35) for part in columns],
        axis=2,
    )
    return [enlarged((np.clip(frame, 0, 1) * 255).astype(np.uint8), times) for frame in wide]


def _rgb(frames: Gray) -> Float[np.ndarray, "time height width 3"]:
    return np.repeat(frames[..., None], 3, axis=-1)


def _show(axes: Axes, picture: np.ndarray, edge: str) -> None:
    axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, edgecolor=edge, linewidth=1.5)
