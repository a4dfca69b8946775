"""Sequences of frames for world models, and what is truly in them: owners, collisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset, Transitions
from rmr_gym.data.schema import Manifest
from rmr_gym.domains.atari import frame_transform
from rmr_gym.models.objects import cell_centres

TRUTH = ("state", "radii", "velocities")
_LIT = 255
_AT_ONCE = 1024
_STILL = 1e-4
_EDGE = 1.5
_SMALL = 1e-6
_RECORD = (
    "record binary frames, for instance with `rmr-gym record --env rmr/RNEMBalls4-v0 --options "
    'observe=["radii","velocities"]`'
)


Few = Int[np.ndarray, " few"]
"""Numbers of rows."""
Owners = UInt8[np.ndarray, "few height width"]


@dataclass(frozen=True, eq=False)
class BallsTruth:
    """Where the balls are at each row of the frames, in the box [-1, 1] x [-1, 1].

    Attributes:
        positions: Of each ball.
        radii: Of each ball, 0 for one that is not there.
        velocities: In units a second.
        seconds: Between two frames.
    """

    positions: Float[np.ndarray, "rows slots 2"]
    radii: Float[np.ndarray, "rows slots"]
    velocities: Float[np.ndarray, "rows slots 2"]
    seconds: float


@dataclass(frozen=True, eq=False)
class Clips:
    """Frames of all instants of some episodes, and windows of successive ones.

    Attributes:
        frames: Binary or gray, from 0 to 255.
        rows: The rows of each window.
        actions: Taken at each row; None in a world without actions.
        choices: Number of actions; 0 in a world without.
        truth: None where it was not recorded or not asked for.
    """

    frames: UInt8[np.ndarray, "rows height width channels"]
    rows: Int[np.ndarray, "windows time"]
    actions: Int[np.ndarray, " rows"] | None
    choices: int
    truth: BallsTruth | None

    @property
    def current(self) -> Int[np.ndarray, " windows"]:
        """First row of each window."""
        return self.rows[:, 0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame."""
        height, width, channels = self.frames.shape[1:]
        return height, width, channels

    @property
    def binary(self) -> bool:
        """Whether no pixel is gray."""
        starts = range(0, len(self.frames), _AT_ONCE)
        parts = (self.frames[start : start + _AT_ONCE] for start in starts)
        return all(bool(((part == 0) | (part == _LIT)).all()) for part in parts)

    def shown(
        self, index: Int[np.ndarray, " batch"], device: torch.device
    ) -> tuple[Float[Tensor, "batch time height width channels"], Int[Tensor, "batch time"] | None]:
        """Return the frames of some windows, in [0, 1], and the actions taken at them."""
        rows = self.rows[index]
        frames = torch.from_numpy(self.frames[rows]).to(device).float() / _LIT
        if self.actions is None:
            return frames, None
        return frames, torch.from_numpy(self.actions[rows]).to(device)


def load_clips(
    dataset: TransitionDataset,
    episodes: Sequence[int],
    length: int,
    stride: int = 1,
    *,
    truth: bool = False,
) -> Clips:
    """Load the frames of some episodes; training needs nothing else.

    Screens of an Atari game become the binary pictures of `binary_screens`.

    Args:
        dataset: Recorded with frames of one channel in its column "pixels".
        episodes: Which episodes.
        length: Frames of a window.
        stride: Frames from the start of a window to that of the next.
        truth: Whether to load `BallsTruth`, where it was recorded.

    Raises:
        RMRError: There are no such frames, or no episode is long enough.
    """
    _, choices = frames_of(dataset.manifest, dataset.path)
    recorded = dataset.manifest.columns
    known = truth and all(name in recorded for name in TRUTH)
    columns = ("pixels", *(TRUTH if known else ()), *(("action",) if choices else ()))
    transform = binary_screens if recorded["pixels"].encoding == "ale_palette" else None
    loaded = dataset.load(columns=columns, episodes=episodes, transform=transform)
    rows = loaded.windows(length, stride, needed="frames")
    actions = None
    if choices:
        actions = np.zeros(len(loaded["pixels"]), np.int64)
        actions[loaded.current] = loaded["action"]
    return Clips(loaded["pixels"], rows, actions, choices, _truth(loaded) if known else None)


def frames_of(manifest: Manifest, data: Path) -> tuple[tuple[int, int, int], int]:
    """Return the shape of the frames that `load_clips` gives of some data, and how many actions.

    Args:
        manifest: Of the data; nothing else is read.
        data: Where they lie, for the message.

    Raises:
        RMRError: There are no frames of one channel, nor of battles.
    """
    spec, actions = manifest.columns.get("pixels"), manifest.actions or 0
    choices = actions if actions > 1 else 0
    if spec is not None and spec.encoding == "ale_palette":
        return (84, 84, 1), choices
    grids = 1 in spec.shape[2:] or "places" in manifest.columns if spec else False
    if spec is None or len(spec.shape) != 3 or not grids or spec.dtype != "uint8":
        raise RMRError(
            f"expected frames of one channel in the column 'pixels' of {data}, found "
            f"{'none' if spec is None else list(spec.shape)}: {_RECORD}"
        )
    height, width, channels = spec.shape
    return (height, width, channels), choices


def binary_screens(indices: UInt8[np.ndarray, "time 210 160"]) -> UInt8[np.ndarray, "time 84 84 1"]:
    """Return 255 where a screen of an Atari game is not black, 84 x 84; the argument is of palette.

    Source: R-NEM, Appendix A.2: pictures as in Mnih et al. 2013 (gray, shrunk to 110 x 84, of which
    84 rows are kept), thresholded at 0.0001.
    Differs: shrunk by area, in whole gray levels; rows 18 to 101, which are not stated.
    """
    small = frame_transform(110, 84)(indices)[:, 18:102, :, None]
    return np.where(small > 0, 255, 0).astype(np.uint8)


def _truth(columns: Transitions) -> BallsTruth:
    now, then = columns.current, columns.current + 1
    positions, radii, velocities = (np.asarray(columns[name], np.float64) for name in TRUTH)
    moved = np.linalg.norm(positions[then] - positions[now], axis=-1)
    speed = np.linalg.norm(velocities[now], axis=-1)
    straight = ~_turned(velocities[now], velocities[then]) & (speed > _STILL)
    seconds = float(np.median(moved[straight] / speed[straight])) if straight.any() else 0.0
    return BallsTruth(positions, radii, velocities, seconds)


def true_groups(clips: Clips, rows: Few) -> Owners:
    """Return the ball that owns each lit pixel of some frames, from 1; 0 for all else.

    A lit pixel belongs to the ball whose edge it is deepest within. One that is beyond the edge of
    every ball by more than a pixel, as those of a fixed ball are, gets a number of its own.

    Source: R-NEM scores groupings on the pixels that one object owns.
    Differs: pixels that two balls share, while they collide, go to one of them (in this simulator
    balls overlap by less than a pixel) instead of being left out.

    Raises:
        RMRError: The truth was not recorded.
    """
    beyond, (height, width, _) = _beyond(clips, rows), clips.shape
    owner = np.where(beyond.min(axis=-1) < _EDGE * 2 / height, beyond.argmin(axis=-1) + 1, 0)
    owner[owner == 0] = beyond.shape[-1] + 1
    lit = clips.frames[rows][..., 0].reshape(len(rows), -1) > 0
    return (owner * lit).astype(np.uint8).reshape(-1, height, width)


def _beyond(clips: Clips, rows: Few, seconds: float = 0.0) -> Float[np.ndarray, "few pixels slots"]:
    """Return how far pixels are beyond each ball's edge, some time after if none collides.

    A ball that is not there is infinitely far from all of them.
    """
    truth = _known(clips)
    height, width, _ = clips.shape
    if height != width:
        raise RMRError(f"expected square frames of the box, found {height} x {width}")
    radii, room = truth.radii[rows], 1 - truth.radii[rows][..., None]
    ahead = truth.positions[rows] + seconds * truth.velocities[rows]
    places = np.abs((ahead - room) % (4 * room) - 2 * room) - room if seconds else ahead
    away = np.linalg.norm(cell_centres(height).numpy()[:, None] - places[:, None], axis=-1)
    return np.where(radii[:, None] > 0, away - radii[:, None], np.inf)


def gone_on(clips: Clips, rows: Few, ahead: int) -> Bool[np.ndarray, "few ahead height width"]:
    """Return which pixels would be lit if balls went on as they move at some rows.

    They are reflected at walls and do not meet. What stands still of itself, as a fixed ball does,
    stays lit; of a curtain nothing is known.

    Raises:
        RMRError: The truth was not recorded.
    """
    owners, seconds = true_groups(clips, rows), _known(clips).seconds
    fixed = owners > _known(clips).radii.shape[1]
    lit = (
        (_beyond(clips, rows, step * seconds) < 0).any(-1).reshape(fixed.shape) | fixed
        for step in range(1, ahead + 1)
    )
    return np.stack([*lit], axis=1)


def lone_shifts(
    clips: Clips, rows: Few, predicted: Float[np.ndarray, "few height width"]
) -> tuple[Float[np.ndarray, "few slots 2"], Float[np.ndarray, "few slots 2"]]:
    """Return how far balls are predicted to move from some rows to the next, and how far they do.

    That is the shift of the centroid of what is lit around a ball, in the box; 0 for a ball near
    which something else is lit, and for one that is not seen.

    Args:
        clips: With their truth.
        rows: Which.
        predicted: Frames after them, in [0, 1].

    Raises:
        RMRError: The truth was not recorded.
    """
    truth, side = _known(clips), clips.shape[0]
    path = np.linalg.norm(truth.velocities[rows], axis=-1) * truth.seconds + 2 * _EDGE / side
    near = _beyond(clips, rows) < path[:, None]
    ball = np.arange(near.shape[-1]) + 1
    for instant in (rows, rows + 1):
        owners = true_groups(clips, instant).reshape(*near.shape[:2], 1)
        strange = near & (owners > 0) & (owners != ball)
        near &= (~strange.any(1) & (near & (owners == ball)).any(1))[:, None]
    pixels = cell_centres(side).numpy()
    frames = (clips.frames[rows] / _LIT, predicted, clips.frames[rows + 1] / _LIT)
    masses = [near * frame.reshape(*near.shape[:2], 1) for frame in frames]
    start, made, came = (
        np.einsum("npk,pc->nkc", mass, pixels) / np.maximum(mass.sum(1), _SMALL)[..., None]
        for mass in masses
    )
    seen = [mass.sum(1)[..., None] > _SMALL for mass in masses]
    return (made - start) * seen[1], came - start


def pixels_a_frame(dataset: TransitionDataset) -> float | None:
    """Return how far balls move from a frame to the next, in pixels: the root of the mean square.

    Args:
        dataset: Whose first 10 episodes are looked at; None comes of one without positions.
    """
    columns, most = dataset.manifest.columns, min(10, len(dataset.episodes))
    if "state" not in columns or columns["state"].shape[1:] != (2,):
        return None
    loaded = dataset.load(columns=("state",), episodes=range(most))
    moved = np.asarray(loaded["state"][loaded.current + 1] - loaded["state"][loaded.current])
    squares = (moved.astype(np.float64) ** 2).sum(axis=-1)
    return float((squares[squares > 0].mean() ** 0.5) * columns["pixels"].shape[0] / 2)


def collided(clips: Clips, rows: Few) -> Bool[np.ndarray, "few slots"]:
    """Return which balls collide with a ball between each row and the next.

    Those are pairs of which both turn, and which were near enough to meet.

    Raises:
        RMRError: The truth was not recorded.
    """
    truth = _known(clips)
    places, radii = truth.positions[rows], truth.radii[rows]
    before, after = truth.velocities[rows], truth.velocities[rows + 1]
    turned = _turned(before, after) & (radii > 0)
    path = np.linalg.norm(before, axis=-1) * truth.seconds
    apart = np.linalg.norm(places[:, :, None] - places[:, None], axis=-1)
    reach = (radii + path)[:, :, None] + (radii + path)[:, None]
    others = ~np.eye(radii.shape[1], dtype=bool)
    return (turned[:, :, None] & turned[:, None] & others & (apart <= reach)).any(axis=-1)


def relational_weight(clips: Clips, rows: Few) -> Owners:
    """Return 1 for the pixels that colliding balls own, in each row or in the next.

    Source: R-NEM, section 4, the relational BCE. Differs: the masks of the paper's data were not
    published; a ball counts where it was and where it comes to be.
    """
    hit = np.pad(collided(clips, rows), ((0, 0), (1, 1)))
    window = np.arange(len(rows))[:, None, None]
    before, after = (hit[window, true_groups(clips, instant)] for instant in (rows, rows + 1))
    return (before | after).astype(np.uint8)


def _turned(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.asarray((np.abs(after - before) > _STILL).any(axis=-1))


def _known(clips: Clips) -> BallsTruth:
    if clips.truth is None:
        raise RMRError(f"expected the columns {', '.join(TRUTH)}, found no truth: {_RECORD}")
    return clips.truth
