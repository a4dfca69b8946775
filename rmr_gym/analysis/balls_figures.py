"""Pictures of predicted bouncing balls: rollouts beside the truth, masks in colour."""

import colorsys

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmr_gym.analysis.balls_ratios import WARM_START
from rmr_gym.analysis.canvas import new_figure
from rmr_gym.analysis.films import enlarged
from rmr_gym.analysis.run import values, where
from rmr_gym.core.errors import RMRError

SEEN, PREDICTED = "#2CA02C", "#555555"
_INCHES = 0.8
_PANELS = {"next frame": "mse", "rollout of 8 frames": "rollout_mse"}
_RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)

Frames = Float[np.ndarray, "_ height width 3"]


def rollout_figure(past: Frames, predicted: Frames, truth: Frames) -> Figure:
    """Draw a rollout: what was seen (green frames), what was predicted, and below it what happened.

    Source: RMR, Figure 3.

    Args:
        past: Frames that the prediction starts from, colours in [0, 1].
        predicted: Predicted frames.
        truth: The frames that truly followed.

    Raises:
        RMRError: Predictions and truth differ in shape.
    """
    if predicted.shape != truth.shape:
        raise RMRError(
            f"expected as many true frames as predicted, of one size, found {truth.shape} and "
            f"{predicted.shape}"
        )
    seen, ahead = len(past), len(predicted)
    figure = new_figure(_INCHES * (seen + ahead), 2 * _INCHES + 0.3)
    axes = figure.subplots(2, seen + ahead, squeeze=False)
    for column, frame in enumerate([*past, *predicted]):
        is_seen = column < seen
        _show(axes[0, column], frame, SEEN if is_seen else PREDICTED)
        axes[0, column].set_title(f"{column - seen + 1:+d}" if column != seen - 1 else "now")
        if is_seen:
            axes[1, column].set_axis_off()
        else:
            _show(axes[1, column], truth[column - seen], PREDICTED)
    axes[0, seen].set_ylabel("predicted")
    axes[1, seen].set_ylabel("truth")
    return figure


def masks_figure(
    frames: Float[np.ndarray, "rows height width 3"],
    predicted: Float[np.ndarray, "rows height width 3"],
    masks: Float[np.ndarray, "rows slots height width"],
) -> Figure:
    """Draw, for each row, the frame, its prediction, who owns which pixel, and every slot's mask.

    A pixel is as bright in the third picture as the frame is there, in the colours of the slots.
    """
    rows, slots = masks.shape[:2]
    figure = new_figure(_INCHES * (3 + slots), _INCHES * rows + 0.3)
    axes = figure.subplots(rows, 3 + slots, squeeze=False)
    colours = slot_colours(slots)
    for row in range(rows):
        owned = _owned(masks[row], predicted[row])
        for column, picture in enumerate((frames[row], predicted[row], owned)):
            _show(axes[row, column], picture, PREDICTED)
        for slot in range(slots):
            _show(axes[row, 3 + slot], masks[row, slot, ..., None] * colours[slot], colours[slot])
    titles = ["frame", "predicted", "owners", *(f"slot {slot + 1}" for slot in range(slots))]
    for column, title in enumerate(titles):
        axes[0, column].set_title(title, fontsize=7)
    return figure


def rollout_frames(
    past: Frames,
    predicted: Frames,
    truth: Frames,
    masks: Float[np.ndarray, "_ slots height width"],
    times: int = 5,
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Return frames of a film: what happens, what is predicted, and who owns which pixel.

    While the past is shown, it stands in the places of all three.
    """
    frames = []
    for instant in range(len(past) + len(predicted)):
        ahead = instant - len(past)
        if ahead < 0:
            parts = [past[instant]] * 3
        else:
            owned = _owned(masks[ahead], predicted[ahead])
            parts = [truth[ahead], predicted[ahead], owned]
        joined = np.concatenate([np.pad(part, ((1,), (1,), (0,))) for part in parts], axis=1)
        pixels = (np.clip(joined, 0, 1) * 255).round().astype(np.uint8)
        frames.append(enlarged(pixels, times))
    return frames


def arms_figure(table: pd.DataFrame) -> Figure:
    """Draw the error of every arm and seed over that of copying the last frame.

    Left the next frame, right a rollout; a line marks the mean (geometric) over seeds, arms that
    hand the abstract pipeline over are filled.

    Args:
        table: ``arm``, ``seed``, ``mse``, ``copy_mse``, ``rollout_mse``, ``rollout_copy_mse``.
    """
    arms = [arm for arm in dict.fromkeys(values(table, "arm")) if arm != WARM_START]
    figure = new_figure(8.0, 0.9 + 0.28 * len(arms))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (title, error) in zip(panels, _PANELS.items(), strict=True):
        for row, arm in enumerate(arms):
            few = where(table, arm=arm)
            ratios = values(few, error) / values(few, error.replace("mse", "copy_mse"))
            face = SEEN if arm.endswith("_aligned") else "white"
            panel.scatter(ratios, np.full(len(ratios), row), s=22, color=face, edgecolor=SEEN)
            mean = np.exp(np.log(ratios).mean())
            panel.plot([mean, mean], [row - 0.3, row + 0.3], color="black", linewidth=1.2)
        panel.axvline(1.0, color=PREDICTED, linestyle=":", linewidth=1)
        panel.set_xscale("log")
        panel.set_xticks(_RATIOS, [str(ratio) for ratio in _RATIOS], minor=False)
        panel.set_xticks([], minor=True)
        panel.set_title(title)
        panel.set_xlabel("error over that of the last frame seen")
    panels[0].set_yticks(range(len(arms)), arms)
    panels[0].invert_yaxis()
    return figure


def slot_colours(slots: int) -> Float[np.ndarray, "slots 3"]:
    """Return a colour a slot, evenly around the colour circle."""
    return np.array([colorsys.hsv_to_rgb(slot / slots, 0.75, 1.0) for slot in range(slots)])


def _owned(
    masks: Float[np.ndarray, "slots height width"], picture: Float[np.ndarray, "height width 3"]
) -> Float[np.ndarray, "height width 3"]:
    """Return a picture in the colours of the slots, as bright as it is."""
    owned = np.einsum("shw,sc->hwc", masks, slot_colours(len(masks)))
    return owned * picture.max(axis=-1, keepdims=True)


def _show(axes: Axes, picture: np.ndarray, edge: object) -> None:
    axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, edgecolor=edge, linewidth=1.5)
