"""Pictures and films of arrays: frames beside RAM, rollouts, masks, groups, activity."""

import colorsys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import imageio.v3 as imageio
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.report.charts import OTHER, Block, heat_map, new_figure, picture_grid, styled

SEEN = "#2CA02C"
"""Edge of frames that a model was shown; those that it predicted have a gray one."""

CHANGED = "#FF5A1F"
"""Frame of a RAM byte that changed; bright on each colour of a byte."""

CAPTION = 16
"""Rows of pixels above a film, which hold the names of its parts."""

Pixels = UInt8[np.ndarray, "_ _ 3"] | UInt8[np.ndarray, "_ _ 1"]
Frames = Float[np.ndarray, "_ height width 3"]
Gray = Float[np.ndarray, "time height width"]
Shares = Float[np.ndarray, "time slots height width"]
Film = list[UInt8[np.ndarray, "_ _ 3"]]


def enlarged(frame: Pixels, times: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return a frame in colours, every pixel a square of ``times`` pixels."""
    colours = np.ascontiguousarray(np.broadcast_to(frame, (*frame.shape[:2], 3)))
    size: Any = None
    return cv2.resize(colours, size, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)


def check_film(path: Path) -> None:
    """Raise an RMRError where `write_film` could not write a film of this name."""
    kind = path.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise RMRError(f"cannot write a film as {path.name}: choose an ending of .gif or .mp4")
    if kind == ".mp4" and not find_spec("imageio_ffmpeg"):
        raise RMRError(
            f"expected the FFmpeg of imageio to write {path.name}: `pip install imageio[ffmpeg]`, "
            "or choose a name that ends in .gif"
        )


def write_film(path: Path, frames: Sequence[Pixels], fps: float = 20.0) -> Path:
    """Write frames of one size as a film, in the format that the name ends in.

    - ``.gif``: plays in a loop; shows at most 50 frames a second, and times in hundredths.
    - ``.mp4``: H.264, through the FFmpeg that comes with imageio's wheel; an odd width or height
      gets one more row or column of black.

    Raises:
        RMRError: No frames, frames that differ in size, a rate that is not above 0, another ending,
            or MP4 without imageio[ffmpeg].
    """
    check_film(path)
    return write_atomically(path, film_bytes(frames, path.suffix.lower(), fps))


def film_bytes(frames: Sequence[Pixels], ending: str = ".gif", fps: float = 20.0) -> bytes:
    """Return a film as `write_film` writes it."""
    sizes = {frame.shape[:2] for frame in frames}
    if len(sizes) != 1 or fps <= 0:
        raise RMRError(
            f"a film needs frames of one size and a rate above 0, got {len(frames)} frames of "
            f"{len(sizes)} sizes at {fps} a second"
        )
    film = np.stack([enlarged(frame, 1) for frame in frames])
    if ending == ".gif":
        options: Any = {"plugin": "pillow", "duration": max(20, round(1000 / fps)), "loop": 0}
    else:
        film = np.pad(film, ((0, 0), (0, film.shape[1] % 2), (0, film.shape[2] % 2), (0, 0)))
        options = {"plugin": "FFMPEG", "fps": fps, "macro_block_size": 2}
        options |= {"ffmpeg_log_level": "error"}
    return imageio.imwrite("<bytes>", film, extension=ending, **options)


def write_sheet(path: Path, frames: Sequence[Pixels], columns: int = 8, times: int = 3) -> Path:
    """Write frames side by side, row by row, as one PNG.

    Raises:
        RMRError: No frames.
    """
    if not frames:
        raise RMRError("a sheet needs at least one frame, got none")
    pad = ((2,), (2,), (0,))
    tiles = [np.pad(enlarged(frame, times), pad, constant_values=90) for frame in frames]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    return write_atomically(path, imageio.imwrite("<bytes>", np.vstack(rows), extension=".png"))


@styled
def frames_beside_ram(frames: Mapping[str, UInt8[np.ndarray, "..."]], game: str) -> Figure:
    """Draw three frames of a game with the 128 RAM bytes of the same instant, in hexadecimal.

    Args:
        frames: ``<Game>_rgb`` uint8[k, height, width, 3] and ``<Game>_ram`` uint8[k, 128].
        game: Name of the game.

    Raises:
        RMRError: If there are no frames of the game.
    """
    pictures, memory = (frames.get(f"{game}_{kind}", np.empty(0)) for kind in ("rgb", "ram"))
    if not 0 < len(pictures) == len(memory):
        raise RMRError(
            f"there are no frames of {game}: expected {game}_rgb and {game}_ram of equal length in "
            "frames.npz; run `rmr-gym run compare` again"
        )
    count = min(3, len(pictures))
    figure = new_figure(3.2 * count, 6.6)
    axes = figure.subplots(2, count, squeeze=False, height_ratios=[1, 1.15])
    for index, (above, below) in enumerate(axes.T):
        above.imshow(pictures[index], interpolation="nearest")
        above.set_axis_off()
        above.set_title(f"{game}, frame {index + 1}")
        _draw_ram(below, memory[index], memory[index] != memory[max(index - 1, 0)])
    return figure


def _draw_ram(panel: Axes, memory: UInt8[np.ndarray, " bytes"], changed: np.ndarray) -> None:
    """Draw the bytes in rows of 8, value as colour and hexadecimal; changed ones are framed."""
    table = memory.reshape(-1, 8)
    panel.imshow(table, cmap="cividis", vmin=0, vmax=255, aspect="auto")
    style: Any = {"ha": "center", "va": "center", "family": "monospace", "size": 7}
    for index, (byte, moved) in enumerate(zip(memory, changed, strict=True)):
        row, column = divmod(index, 8)
        ink = "white" if byte < 140 else "black"
        panel.text(column, row, f"{byte:02X}", color=ink, **style)
        if moved:
            corner = (column - 0.45, row - 0.45)
            panel.add_patch(Rectangle(corner, 0.9, 0.9, fill=False, color=CHANGED, linewidth=1.6))
    panel.set_xticks(range(8), [f"+{offset}" for offset in range(8)])
    panel.set_yticks(range(len(table)), [f"{0x80 + 8 * row:02X}" for row in range(len(table))])
    panel.tick_params(length=0, labelsize=7)
    panel.grid(visible=False)


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
    seen = len(past)
    rows = {"predicted": [*past, *predicted], "truth": [*[None] * seen, *truth]}
    titles = [f"{step:+d}" if step else "now" for step in range(1 - seen, len(truth) + 1)]
    return picture_grid(rows, titles, [SEEN] * seen)


def masks_figure(frames: Frames, predicted: Frames, masks: Shares) -> Figure:
    """Draw, for each row, the frame, its prediction, who owns which pixel, and every slot's mask.

    A pixel is as bright in the third picture as the frame is there, in the colours of the slots.
    """
    slots = masks.shape[1]
    colours = slot_colours(slots)
    titles = ["frame", "predicted", "owners", *(f"slot {slot + 1}" for slot in range(slots))]
    owned = group_colours(masks) * predicted.max(axis=-1, keepdims=True)
    painted = masks[..., None] * colours[:, None, None]
    rows = {
        str(row + 1): [frames[row], predicted[row], owned[row], *painted[row]]
        for row in range(len(frames))
    }
    return picture_grid(rows, titles, [OTHER] * 3 + [*colours])


def rollout_frames(
    past: Frames, predicted: Frames, truth: Frames, masks: Shares, times: int = 5
) -> Film:
    """Return frames of a film: what happens, what is predicted, and who owns which pixel.

    While the past is shown, it stands in the places of all three.
    """
    owned = group_colours(masks) * predicted.max(axis=-1, keepdims=True)
    parts = {"truth": truth, "predicted": predicted, "owners": owned}
    films = {name: np.concatenate([past, part]) for name, part in parts.items()}
    return _film(films, times, 0.0)


def _film(parts: Mapping[str, Frames], times: int, edge: float) -> Film:
    """Put films side by side, each in an edge and below its name, and enlarge them."""
    pad = ((0,), (1,), (1,), (0,))
    padded = [np.pad(part, pad, constant_values=edge) for part in parts.values()]
    pixels = (np.clip(np.concatenate(padded, axis=2), 0, 1) * 255).round().astype(np.uint8)
    above = np.full((CAPTION, pixels.shape[2] * times, 3), round(255 * edge), np.uint8)
    for place, name in enumerate(parts):
        corner = (place * padded[0].shape[2] * times + 2 * times, CAPTION - 5)
        cv2.putText(above, name, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255))
    return [np.vstack([above, enlarged(frame, times)]) for frame in pixels]


def slot_colours(slots: int) -> Float[np.ndarray, "slots 3"]:
    """Return a colour a slot, evenly around the colour circle."""
    return np.array([colorsys.hsv_to_rgb(slot / slots, 0.75, 1.0) for slot in range(slots)])


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
        groups = attended(pictures, attention)
        rows |= {f"group {k + 1}": groups[:, k] for k in range(groups.shape[1])}
    return picture_grid({name: [*row] for name, row in rows.items()}, (), [SEEN] * seen)


def film_frames(truth: Gray, predicted: Gray, shares: Shares | None = None, times: int = 4) -> Film:
    """Return frames of a film: truth, prediction and groups side by side, enlarged."""
    parts = {"truth": _rgb(truth), "predicted": _rgb(predicted)}
    parts |= {} if shares is None else {"groups": group_colours(shares)}
    return _film(parts, times, 0.35)


def _rgb(frames: Gray) -> Float[np.ndarray, "time height width 3"]:
    return np.repeat(frames[..., None], 3, axis=-1)


def activation_figure(
    patterns: Mapping[str, Float[np.ndarray, "time slots"]], phases: Mapping[str, int]
) -> Figure:
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
    names = [f"RIM {rim + 1}" for rim in range(rims)]
    blocks = [Block(names, pattern.T, title=title) for title, pattern in patterns.items()]
    begins = {begin: name for name, begin in phases.items()}
    columns = [begins.get(instant, "") for instant in range(time)]
    figure = heat_map(blocks, columns, colours="Greys", inches=(8 / time, 0.2))
    for panel in figure.axes:
        for begin in [*phases.values()] if panel.images else []:
            panel.axvline(begin - 0.5, color="#D55E00", linewidth=1.2)
    return figure
