"""Bouncing balls seen as pixels: the natural pipeline, its clips, its scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.metrics import foreground_ari
from rmr_gym.core.seeding import integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.balls import HISTORY, BallsModel, window_ends
from rmr_gym.models.objects import (
    DECODERS,
    MOMENTS,
    CellFeatures,
    Decoded,
    ObjectDecoder,
    SlotEncoder,
    cell_centres,
)
from rmr_gym.models.rmr.pipeline import build, torch_generator

PRECISIONS = ("fp32", "bf16")
SCORE_BATCH = 64


@dataclass(frozen=True)
class PixelModel:
    """Sizes of the natural pipeline.

    Attributes:
        processor: Sizes of P; its ``dim`` is the width of what encoder and decoder give and take.
        slot_dim: Width of a slot of Slot Attention.
        spare: Slots beyond those of the balls; the background needs one.
        channels: Of the encoder's convolutions.
        cell: Height and width in pixels of a cell that slots compete for.
        iterations: Rounds of attention on the first frame of a clip and on every other.
        decoder: "object" or "broadcast", see `rmr_gym.models.objects`.
        decoder_channels: Of the decoder's transposed convolutions.
        grid: Height and width of the decoder's grid.
        precision: Of convolutions and linear layers outside of P: fp32 or bf16.
    """

    processor: BallsModel = field(default_factory=BallsModel)
    slot_dim: int = 64
    spare: int = 1
    channels: int = 32
    cell: int = 4
    iterations: tuple[int, int] = (3, 1)
    decoder: str = "object"
    decoder_channels: int = 32
    grid: int = 8
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.decoder not in DECODERS:
            raise unknown_name("decoder", self.decoder, DECODERS)


class PixelPipeline(nn.Module):
    r"""From three past frames to the next, :math:`\tilde g(P(\tilde f(x)))`.

    Source: RMR, section 4 and Appendix A: Slot Attention on each frame, the slots of an object
    concatenated and projected, P, a broadcast decoder.
    Differs: see `SlotEncoder` and `ObjectDecoder`.

    Args:
        encoder: Clips to slots.
        processor: P.
        decoder: Latents to a frame.
        dim: Width of P's latents.
        precision: "bf16" lets encoder and decoder compute in bfloat16; P never does.
    """

    def __init__(
        self,
        encoder: SlotEncoder,
        processor: nn.Module,
        decoder: nn.Module,
        dim: int = 128,
        precision: str = "fp32",
    ):
        super().__init__()
        self.encoder, self.processor, self.decoder = encoder, processor, decoder
        self.join = nn.Linear(HISTORY * encoder.width, dim)
        self.precision = precision

    def forward(self, past: Float[Tensor, "batch 3 height width 3"]) -> Decoded:
        """Predict the frame after three others; colours are in [0, 1]."""
        with self._arithmetic(past):
            slots = self.encoder(past)
            latents = self.join(torch.cat(slots.unbind(1), dim=-1))
        latents = self.processor(latents.float())
        with self._arithmetic(past):
            return self.decoder(latents)

    def still(self, clip: Float[Tensor, "batch time height width 3"]) -> Decoded:
        """Decode every frame of a clip from its own slots, as if nothing moved and there were no P.

        The slots are handed on from frame to frame as in `forward`; frames of all clips come one
        after another.
        """
        with self._arithmetic(clip):
            slots = self.encoder(clip).flatten(0, 1)
            return self.decoder(self.join(torch.cat([slots] * HISTORY, dim=-1)))

    def _arithmetic(self, like: Tensor) -> torch.autocast:
        on = self.precision == "bf16"
        return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=on)


def pixel_pipeline(
    model: PixelModel, processor: nn.Module, seed: int, *, resolution: int, balls: int
) -> PixelPipeline:
    """Make the natural pipeline around P; all else is drawn from (seed, "pixel pipeline")."""
    dim = model.processor.dim

    def make() -> PixelPipeline:
        cells = CellFeatures(resolution, model.channels, model.slot_dim, model.cell)
        return PixelPipeline(
            SlotEncoder(cells, model.slot_dim, balls + model.spare, model.iterations),
            nn.Identity(),
            DECODERS[model.decoder](dim, resolution, model.decoder_channels, model.grid),
            dim,
            model.precision,
        )

    pipeline = build(make, torch_generator(integer_seed(seed, "pixel pipeline")))
    if isinstance(pipeline.decoder, ObjectDecoder):
        _aim(pipeline, pipeline.decoder)
    pipeline.processor = processor
    return pipeline


@torch.no_grad()
def _aim(pipeline: PixelPipeline, decoder: ObjectDecoder) -> None:
    """Begin with place and colour of the last frame's slots handed to the decoder as they are."""
    decoder.aim()
    pipeline.join.weight[:MOMENTS] = 0
    pipeline.join.bias[:MOMENTS] = 0
    pipeline.join.weight[:MOMENTS, -MOMENTS:].fill_diagonal_(1.0)


@torch.no_grad()
def align(pipeline: PixelPipeline, abstract: dict[str, Tensor], seed: int) -> None:
    """Begin where the abstract pipeline ended: its encoder reads the places where slots are drawn.

    After the warm start the decoder says where it draws each slot's picture, linearly in the slot,
    in the coordinates of the balls' positions. So the abstract encoder can read these places in
    three frames, and the abstract decoder say where the next pictures go: P meets the latents that
    it was trained on, though no frame was ever paired with a state. Colour and content of the
    pictures are added in directions that the abstract encoder and decoder do not use. Everything
    but a frozen P is trained on from there.

    Source: none; RMR starts from fresh encoders and decoders. What it changes is in
    docs/bouncing_balls.md.

    Args:
        pipeline: Changed in place; its decoder is an `ObjectDecoder`.
        abstract: Tensors of a pipeline that predicts positions (`BallsModel.predict`).
        seed: Fixes the directions of colour and content.

    Raises:
        RMRError: Another decoder, or latents too narrow to hold place, colour and content.
    """
    decoder, dim = pipeline.decoder, pipeline.join.out_features
    if not isinstance(decoder, ObjectDecoder):
        raise RMRError(
            f"an aligned start needs the decoder 'object', found {type(decoder).__name__}"
        )
    used = torch.cat([abstract["encoder.weight"].T, abstract["decoder.weight"]])
    used = torch.cat([used, abstract["encoder.bias"][None]])
    looks = (decoder.colour, decoder.content)
    needed = len(used) + sum(layer.out_features for layer in looks)
    if dim < needed:
        raise RMRError(f"an aligned start needs latents of {needed} or more, found {dim}")
    place = _read_from_slot(pipeline, decoder.position)
    seen = [_read_from_slot(pipeline, layer) for layer in looks]
    generator = torch_generator(integer_seed(seed, "directions of an aligned start"))
    free = torch.randn(dim, needed - len(used), generator=generator)
    free = torch.linalg.qr(torch.cat([used.T, free], dim=1))[0][:, len(used) :]
    join = abstract["encoder.weight"].unflatten(1, (HISTORY, 2))
    pipeline.join.weight.copy_(torch.cat([each @ place[0] for each in join.unbind(1)], dim=1))
    pipeline.join.bias.copy_(abstract["encoder.bias"] + (join @ place[1]).sum(dim=1))
    pipeline.join.weight[:, -pipeline.encoder.width :] += free @ torch.cat([w for w, _ in seen])
    pipeline.join.bias += free @ torch.cat([b for _, b in seen])
    decoder.position.weight.copy_(abstract["decoder.weight"])
    decoder.position.bias.copy_(abstract["decoder.bias"])
    for layer, rows in zip(
        looks, free.T.split([layer.out_features for layer in looks]), strict=True
    ):
        layer.weight.copy_(rows)
        layer.bias.zero_()


def _read_from_slot(pipeline: PixelPipeline, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias of what a layer of the decoder reads from a still slot."""
    still = pipeline.join.weight.unflatten(1, (HISTORY, pipeline.encoder.width)).sum(dim=1)
    return layer.weight @ still, layer.weight @ pipeline.join.bias + layer.bias


class FrameData(NamedTuple):
    """Frames of all instants of all episodes, and where windows of three instants end."""

    frames: UInt8[Tensor, "rows height width 3"]
    current: Int[np.ndarray, " windows"]

    @property
    def resolution(self) -> int:
        """Height and width of a frame in pixels."""
        return self.frames.shape[1]


def load_frames(dataset: TransitionDataset, episodes: Sequence[int]) -> FrameData:
    """Load the frames of some episodes, and nothing else.

    Raises:
        RMRError: The data set has no square colour frames, or no episode is long enough.
    """
    spec = dataset.manifest.columns.get("pixels")
    if spec is None or len(spec.shape) != 3 or spec.shape[0] != spec.shape[1] or spec.shape[2] != 3:
        raise RMRError(
            f"expected a data set with square colour frames in its column 'pixels', found "
            f"{', '.join(dataset.manifest.columns)} in {dataset.path}: record one with "
            "`rmr-gym record --env rmr/BouncingBalls-v0`"
        )
    frames = dataset.load(columns=("pixels",), episodes=episodes)["pixels"]
    lengths = [dataset.episodes[index].length + 1 for index in episodes]
    return frame_data(torch.from_numpy(frames), lengths)


def frame_data(frames: UInt8[Tensor, "rows height width 3"], lengths: Sequence[int]) -> FrameData:
    """Take frames of episodes, one after another, of the given numbers of instants.

    Raises:
        RMRError: No episode has the four instants that a prediction and its truth need.
    """
    return FrameData(frames, window_ends(lengths))


def clips(
    data: FrameData, index: Int[np.ndarray, " batch"], ahead: int = 1
) -> Float[Tensor, "batch time height width 3"]:
    """Return three past frames and those that follow; colours are in [0, 1]."""
    rows = data.current[index][:, None] + np.arange(1 - HISTORY, ahead + 1)
    return data.frames[torch.from_numpy(rows)].float() / 255


def owners(
    positions: Float[np.ndarray, "rows slots 2"],
    radii: Float[np.ndarray, " slots"],
    resolution: int,
) -> UInt8[np.ndarray, "rows height width"]:
    """Return the ball that owns each pixel, from 1; 0 for the background.

    A pixel belongs to the ball with the nearest centre, where it lies within that ball's radius.
    """
    cells = cell_centres(resolution).numpy()
    away = np.linalg.norm(cells[None, :, None] - positions[:, None], axis=-1)
    nearest = away.argmin(axis=-1)
    inside = np.take_along_axis(away, nearest[..., None], -1)[..., 0] <= radii[nearest]
    return np.where(inside, nearest + 1, 0).astype(np.uint8).reshape(-1, resolution, resolution)


class FrameScores(NamedTuple):
    """Scores of predicted frames; colours are in [0, 1].

    Attributes:
        mse: Mean squared error a pixel and channel.
        copy_mse: That of the last frame seen.
        ratio_to_copy: The first over the second; NaN where nothing moves.
        ari: Mean adjusted Rand index of the masks over the pixels that balls own; NaN where the
            true owners are not given.
    """

    mse: float
    copy_mse: float
    ratio_to_copy: float
    ari: float


@torch.no_grad()
def score_frames(
    pipeline: PixelPipeline,
    data: FrameData,
    index: Int[np.ndarray, " chosen"],
    truth: UInt8[np.ndarray, "chosen height width"] | None = None,
    *,
    still: bool = False,
) -> FrameScores:
    """Score the frames predicted for some windows.

    Args:
        pipeline: Predicts.
        data: Frames.
        index: Windows.
        truth: Owners of the pixels of the frame after each window.
        still: Show the frame after each window again, instead of predicting it.
    """
    errors, copied, agreement = [], [], []
    for start in range(0, len(index), SCORE_BATCH):
        few = slice(start, start + SCORE_BATCH)
        clip = clips(data, index[few]).to(next(pipeline.parameters()).device)
        following = clip[:, HISTORY]
        decoded = _last_of(pipeline.still(clip[:, 1:])) if still else pipeline(clip[:, :HISTORY])
        errors.append((decoded.frame - following).square().mean(dim=(1, 2, 3)))
        copied.append((clip[:, HISTORY - 1] - following).square().mean(dim=(1, 2, 3)))
        if truth is not None:
            found = decoded.masks.argmax(dim=1).cpu().numpy()
            agreement.append(foreground_ari(truth[few], found))
    mse, copy_mse = torch.cat(errors).mean().item(), torch.cat(copied).mean().item()
    return FrameScores(
        mse,
        copy_mse,
        mse / copy_mse if copy_mse else float("nan"),
        float(np.nanmean(np.concatenate(agreement))) if agreement else float("nan"),
    )


def _last_of(decoded: Decoded) -> Decoded:
    """Keep the last frame of every clip."""
    return Decoded(*(part[HISTORY - 1 :: HISTORY] for part in decoded))


def windows_ahead(data: FrameData, steps: int) -> Int[np.ndarray, " chosen"]:
    """Return the windows that are followed by ``steps`` frames of their episode.

    Raises:
        RMRError: No episode is long enough.
    """
    reach = data.current[steps - 1 :] - data.current[: 1 - steps or None]
    following = np.flatnonzero(reach < steps)
    if not len(following):
        raise RMRError(f"expected an episode of {HISTORY + steps} frames: record longer ones")
    return following


@torch.no_grad()
def score_rollouts(
    pipeline: PixelPipeline, data: FrameData, index: Int[np.ndarray, " chosen"], steps: int
) -> tuple[float, float]:
    """Return the mean squared error of rolled out frames, and that of the last frame seen."""
    place = next(pipeline.parameters()).device
    errors, copied = [], []
    for start in range(0, len(index), SCORE_BATCH):
        clip = clips(data, index[start : start + SCORE_BATCH], steps).to(place)
        past, truth = clip[:, :HISTORY], clip[:, HISTORY:]
        frames, _ = imagine(pipeline, past, steps)
        errors.append((frames - truth).square().mean(dim=(1, 2, 3, 4)))
        copied.append((past[:, -1:] - truth).square().mean(dim=(1, 2, 3, 4)))
    if not errors:
        return float("nan"), float("nan")
    return torch.cat(errors).mean().item(), torch.cat(copied).mean().item()


@torch.no_grad()
def imagine(
    pipeline: PixelPipeline, past: Float[Tensor, "batch 3 height width 3"], steps: int
) -> tuple[
    Float[Tensor, "batch time height width 3"], Float[Tensor, "batch time slots height width"]
]:
    """Predict ``steps`` frames, each from those predicted before; return them and their masks."""
    frames, masks = [], []
    for _ in range(steps):
        decoded = pipeline(past)
        frames.append(decoded.frame.clamp(0, 1))
        masks.append(decoded.masks)
        past = torch.cat([past[:, 1:], frames[-1][:, None]], dim=1)
    return torch.stack(frames, dim=1), torch.stack(masks, dim=1)
