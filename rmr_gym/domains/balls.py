"""What ties bouncing balls to the models: pipelines on positions and on pixels, windows, scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import Checked, RMRError
from rmr_gym.core.metrics import foreground_ari
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset, Transitions
from rmr_gym.models import objects
from rmr_gym.models.rmr import pipeline as models
from rmr_gym.models.rmr.processors import PassiveProcessor, ProcessorSizes

HISTORY = 3
"""Instants that a prediction starts from (RMR, section 4)."""

FRAME = 0.05
"""Seconds between two instants; displacements are divided by it where a speed is meant."""

TENTH = 10
"""The instant of a rollout that is scored beside the first."""

BATCH, FRAME_BATCH = 500, 64
"""Windows of positions and of frames that are scored at once."""

PRECISIONS = ("fp32", "bf16")
OUTSIDE = 0.01
"""A ball counts as outside where its centre is so far beyond where the wall stops it; the
simulator's own go 0.006 beyond."""

PUSHES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
"""Direction of each action's push of ball 0 in rmr/PushedBalls."""
KICK, RADIUS = 0.5 * FRAME, 0.15
"""Way a frame that a push adds in its direction, and radius of every ball, there."""
PALETTE = ((255, 255, 255), (230, 60, 50), *[(70, 110, 200)] * 3)
"""Colour of each ball there: the agent's, its target, the others."""
FAR, ROUNDS = 9.0, 5
"""A distance that there is not in the box, and rounds of k-means over the pixels of a colour."""

Actions = Int[Tensor, "batch time"]
Index = Int[np.ndarray, " chosen"]
"""Numbers of windows."""

Past = Float[Tensor, "batch 3 slots 2"]
Given = Float[Tensor, "batch instants slots 2"]
"""Three past positions, and the push of every ball as a fourth where balls are pushed."""
Positions = Float[Tensor, "batch slots 2"]
Rollout = Float[Tensor, "batch time slots 2"]
Walls = Float[Tensor, "slots 1"]
"""Farthest places of the balls' centres from the middle, on either axis."""
Window = Float[Tensor, "batch time *shape"]

Predictor = Callable[[Float[Tensor, "batch 3 *shape"]], Float[Tensor, "batch *shape"]]
"""From three past instants, positions or frames, to the next."""

Roller = Callable[[Past, int], Rollout]
"""From three past positions to so many next ones."""


@dataclass(frozen=True)
class BallsModel(ProcessorSizes):
    """Sizes of the pipeline on positions, P's among them.

    Attributes:
        dim: Width of a ball's latent vector and of its messages (RMR, Appendix A: 128).
        core: Processor core: mpnn, deep_sets, mlp, interaction or none.
        aggregation: Aggregation of messages: max, sum or mean.
        passes: Passes of message passing; the interaction network always makes one.
        predict: What g gives: "position" (the paper), "change" or "acceleration"; see
            `next_positions`.
        precision: Arithmetic of the message passing: fp32 or bf16 (fp32 sums).
    """

    choices: ClassVar = {"predict": ("prediction", ("position", "change", "acceleration"))}

    predict: str = "position"
    precision: str = "fp32"

    @property
    def label(self) -> str:
        """What tells it from others in titles."""
        return f"{self.core} dim {self.dim}"


@dataclass(frozen=True)
class PixelModel(Checked):
    """Sizes of the pipeline on pixels.

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

    ranges: ClassVar = {"spare": "[0, inf)"}
    choices: ClassVar = {
        "precision": ("precision", PRECISIONS),
        "decoder": ("decoder", objects.DECODERS),
    }

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

    @property
    def label(self) -> str:
        """What tells it from others in titles: the core and the width of P."""
        return self.processor.label


def make_balls_processor(model: BallsModel, seed: int, slots: int = 10) -> PassiveProcessor:
    """Make P for latents [batch slots dim], with initial weights from (seed, "processor").

    Only the core "mlp" fixes the number of slots; all others take any.

    Raises:
        RMRError: If there is no such aggregation.
    """
    return models.build_seeded(lambda: model.make(slots, model.precision), seed, "processor")


class PositionEncoder(nn.Linear):
    """From three past positions of every ball to its latent vector, f.

    It sees the three positions where the next one is predicted; otherwise the last position and
    the last two velocities, the later one first; beside them pushes, where there are any.

    Source: RMR, section 4 and Appendix A (f linear, one vector a ball).
    Differs: velocities; the map from positions to them is linear too; pushes.
    """

    def __init__(self, dim: int, predict: str, pushed: bool = False):
        super().__init__(2 * (HISTORY + pushed), dim)
        self.predict = predict

    def forward(self, input: Given) -> models.Latents:
        """Encode three positions, and pushes where a fourth entry holds them."""
        oldest, previous, last, *pushes = input.unbind(1)
        seen = oldest, previous, last
        if self.predict != "position":
            seen = last, (last - previous) / FRAME, (previous - oldest) / FRAME
        return super().forward(torch.cat([*seen, *pushes], dim=-1))


PositionPipeline = models.EncodeProcessDecode[PositionEncoder, nn.Module, nn.Linear]
FramePipeline = models.EncodeProcessDecode[objects.ClipEncoder, nn.Module, objects.BroadcastDecoder]


def abstract_pipeline(
    model: BallsModel, seed: int, slots: int = 10, pushed: bool = False
) -> PositionPipeline:
    """Make the pipeline on positions, with f and g from (seed, "abstract encoder and decoder").

    Source: RMR, section 4 and Appendix A (f and g linear, one vector a ball). Differs: none.
    """
    drawn = models.torch_generator(integer_seed(seed, "abstract encoder and decoder"))
    encoder = models.build(lambda: PositionEncoder(model.dim, model.predict, pushed), drawn)
    decoder = models.build(lambda: nn.Linear(model.dim, 2), drawn)
    return models.EncodeProcessDecode(encoder, make_balls_processor(model, seed, slots), decoder)


def next_positions(pipeline: PositionPipeline, past: Given) -> Positions:
    r"""Predict positions: the outcome of g, or where a ball would be without it and the outcome.

    .. math:: \hat x_{t+1} = x_t + \delta u \;\text{(change)}, \qquad
              \hat x_{t+1} = 2 x_t - x_{t-1} + \delta u \;\text{(acceleration)}

    with the outcome :math:`u` and the seconds :math:`\delta` of a frame.

    Source: RMR, section 4 ("position").
    Differs: "change" and "acceleration"; the function class is that of linear f and g with a linear
    skip from x to y.
    """
    outcome, (_, previous, last) = pipeline(past), past[:, :HISTORY].unbind(1)
    if pipeline.encoder.predict == "position":
        return outcome
    kept = last if pipeline.encoder.predict == "change" else last + (last - previous)
    return kept + FRAME * outcome


def pixel_pipeline(
    model: PixelModel, processor: nn.Module, seed: int, *, resolution: int, balls: int
) -> FramePipeline:
    """Make the pipeline on pixels around P; all else is drawn from (seed, "pixel pipeline").

    Source: RMR, section 4 and Appendix A: Slot Attention on each frame, the slots of an object
    concatenated and projected, P, a broadcast decoder.
    Differs: see `objects.SlotEncoder` and `objects.ObjectDecoder`.
    """
    dim, drawn = model.processor.dim, models.torch_generator(integer_seed(seed, "pixel pipeline"))
    slots = models.build(lambda: _slot_encoder(model, resolution, balls), drawn)
    sizes = (dim, resolution, model.decoder_channels, model.grid, model.precision)
    decoder = models.build(lambda: objects.DECODERS[model.decoder](*sizes), drawn)
    join = models.build(lambda: nn.Linear(HISTORY * slots.width, dim), drawn)
    if isinstance(decoder, objects.ObjectDecoder):
        _aim(join, decoder)
    encoder = objects.ClipEncoder(slots, join, model.precision)
    return models.EncodeProcessDecode(encoder, processor, decoder)


def _slot_encoder(model: PixelModel, resolution: int, balls: int) -> objects.SlotEncoder:
    cells = objects.CellFeatures(resolution, model.channels, model.slot_dim, model.cell)
    return objects.SlotEncoder(cells, model.slot_dim, balls + model.spare, model.iterations)


@torch.no_grad()
def _aim(join: nn.Linear, decoder: objects.ObjectDecoder) -> None:
    """Begin with place and colour of the last frame's slots handed to the decoder as they are."""
    decoder.aim()
    join.weight[: objects.MOMENTS] = 0
    join.bias[: objects.MOMENTS] = 0
    join.weight[: objects.MOMENTS, -objects.MOMENTS :].fill_diagonal_(1.0)


def still(pipeline: FramePipeline, clip: objects.Clip) -> objects.Decoded:
    """Show every frame of a clip again, decoded from its own slots without P.

    Frames of all clips come one after another.
    """
    return pipeline.decoder(pipeline.encoder.still(clip))


@torch.no_grad()
def align(pipeline: FramePipeline, abstract: dict[str, Tensor], seed: int) -> None:
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
    decoder, join = pipeline.decoder, pipeline.encoder.join
    dim = join.out_features
    if not isinstance(decoder, objects.ObjectDecoder):
        raise RMRError(
            f"an aligned start needs the decoder 'object', found {type(decoder).__name__}"
        )
    used = torch.cat([abstract["encoder.weight"].T, abstract["decoder.weight"]])
    used = torch.cat([used, abstract["encoder.bias"][None]])
    looks = (decoder.colour, decoder.content)
    needed = len(used) + sum(layer.out_features for layer in looks)
    if dim < needed:
        raise RMRError(f"an aligned start needs latents of {needed} or more, found {dim}")
    place = _read_from_slot(join, decoder.position)
    weights, biases = zip(*(_read_from_slot(join, layer) for layer in looks), strict=True)
    drawn = models.torch_generator(integer_seed(seed, "directions of an aligned start"))
    free = torch.randn(dim, needed - len(used), generator=drawn, dtype=used.dtype)
    free = torch.linalg.qr(torch.cat([used.T, free], dim=1))[0][:, len(used) :]
    instants = abstract["encoder.weight"].unflatten(1, (HISTORY, 2))
    join.weight.copy_(torch.cat([part @ place[0] for part in instants.unbind(1)], dim=1))
    join.bias.copy_(abstract["encoder.bias"] + (instants @ place[1]).sum(dim=1))
    join.weight[:, -pipeline.encoder.encoder.width :] += free @ torch.cat(weights)
    join.bias += free @ torch.cat(biases)
    decoder.position.weight.copy_(abstract["decoder.weight"])
    decoder.position.bias.copy_(abstract["decoder.bias"])
    for layer, rows in zip(
        looks, free.T.split([layer.out_features for layer in looks]), strict=True
    ):
        layer.weight.copy_(rows)
        layer.bias.zero_()


def _read_from_slot(join: nn.Linear, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return weight and bias of what a layer of the decoder reads from a still slot."""
    of_a_still = join.weight.unflatten(1, (HISTORY, -1)).sum(dim=1)
    return layer.weight @ of_a_still, layer.weight @ join.bias + layer.bias


class BallsData(NamedTuple):
    """What was seen at all instants of all episodes, and where windows of three instants end.

    Attributes:
        seen: Positions [rows slots 2], or frames of bytes [rows height width 3].
        current: Row of the last instant of each window.
    """

    seen: Shaped[Tensor, "rows *shape"]
    current: Int[np.ndarray, " windows"]

    @property
    def slots(self) -> int:
        """Number of balls."""
        return self.seen.shape[1]

    @property
    def resolution(self) -> int:
        """Height and width of a frame in pixels."""
        return self.seen.shape[1]


COLUMNS = {"state": "the positions of balls", "pixels": "square colour frames"}
"""Columns that are learned from, and what they hold."""


def load_balls(
    dataset: TransitionDataset, episodes: Sequence[int], column: str = "state", ahead: int = 1
) -> BallsData:
    """Load the positions or the frames of some episodes, and nothing else.

    Args:
        dataset: Recorded from an environment of bouncing balls.
        episodes: Positions in ``dataset.episodes``.
        column: "state" or "pixels".
        ahead: Instants that must follow each window.

    Raises:
        RMRError: The data set has no such column, or no episode is long enough.
    """
    spec = dataset.manifest.columns.get(column)
    shape = () if spec is None else spec.shape
    if shape != {"state": (*shape[:1], 2), "pixels": (*shape[:1], *shape[:1], 3)}[column]:
        raise RMRError(
            f"expected a data set with {COLUMNS[column]} in its column {column!r}, found "
            f"{', '.join(dataset.manifest.columns)} in {dataset.path}: record one with "
            "`rmr-gym record --env rmr/BouncingBalls-v0`"
        )
    loaded = dataset.load(columns=(column,), episodes=episodes)
    return balls_data(loaded, column, ahead)


def balls_data(loaded: Transitions, column: str, ahead: int = 1) -> BallsData:
    """Take a column of some episodes, and find where windows end.

    Raises:
        RMRError: No episode is long enough for three instants and those ahead.
    """
    rows = loaded.windows(HISTORY + ahead, needed="instants")
    seen = torch.from_numpy(loaded[column])
    return BallsData(seen if column == "pixels" else seen.float(), rows[:, HISTORY - 1])


def windows(data: BallsData, index: Index, ahead: int = 1) -> Window:
    """Return three past instants and those that follow; colours are in [0, 1]."""
    rows = data.current[index][:, None] + np.arange(1 - HISTORY, ahead + 1)
    seen = data.seen[torch.from_numpy(rows)]
    return seen if seen.is_floating_point() else seen.float() / 255


def drawn_windows(data: BallsData, count: int, ahead: int, seed: int) -> list[Window]:
    """Return at most ``count`` windows, drawn once for a seed, in batches."""
    order = generator(seed, "balls windows").permutation(len(data.current))
    return [windows(data, few, ahead) for few in _batches(np.sort(order[:count]), BATCH)]


def windows_ahead(data: BallsData, steps: int) -> Index:
    """Return the windows that are followed by ``steps`` instants of their episode.

    Raises:
        RMRError: No episode is long enough.
    """
    reach = data.current[steps - 1 :] - data.current[: 1 - steps or None]
    following = np.flatnonzero(reach < steps)
    if not len(following):
        raise RMRError(f"expected an episode of {HISTORY + steps} frames: record longer ones")
    return following


def _batches(index: Index, size: int) -> list[Int[np.ndarray, " _"]]:
    return np.split(index, range(size, len(index), size))


def rollout(predict: Predictor, past: Float[Tensor, "batch 3 *shape"], steps: int) -> Window:
    """Predict ``steps`` instants, each from those predicted before."""
    predicted = []
    for _ in range(steps):
        predicted.append(predict(past))
        past = torch.cat([past[:, 1:], predicted[-1][:, None]], dim=1)
    return torch.stack(predicted, dim=1)


def rollout_loss(predict: Predictor, window: Window) -> Float[Tensor, ""]:
    """Return the mean squared error over all instants of a window after the first three.

    Source: RMR, Appendix A, for one instant. Differs: more than one is an option.
    """
    past, future = window[:, :HISTORY], window[:, HISTORY:]
    return (rollout(predict, past, future.shape[1]) - future).square().mean()


def baselines(walls: Walls) -> dict[str, Roller]:
    """Return the rollouts that learn nothing, by name.

    ``copy``: nothing moves; ``linear``: every ball keeps its velocity; ``reflected``: it keeps its
    speed, and walls throw it back.

    Args:
        walls: Largest coordinate of each ball's centre, 1 minus its radius.
    """

    def copy(past: Tensor, steps: int) -> Tensor:
        return past[:, -1:].expand(-1, steps, -1, -1)

    def linear(past: Tensor, steps: int) -> Tensor:
        times = torch.arange(1, steps + 1, device=past.device)[:, None, None]
        return past[:, -1:] + times * (past[:, -1:] - past[:, -2:-1])

    def reflected(past: Tensor, steps: int) -> Tensor:
        there_and_back = torch.remainder(linear(past, steps) + walls, 4 * walls)
        return torch.minimum(there_and_back, 4 * walls - there_and_back) - walls

    return {"copy": copy, "linear": linear, "reflected": reflected}


def under_pushes(pipeline: PositionPipeline, actions: Actions) -> Predictor:
    """Return what predicts successive instants, the first ball being pushed before each."""
    given = iter(PUSHES[actions].unbind(1))

    def predict(past: Past) -> Positions:
        push = torch.zeros_like(past[:, :1])
        push[:, 0, 0] = next(given)
        return next_positions(pipeline, torch.cat([past, push], dim=1))

    return predict


def extrapolated(past: Past, actions: Actions) -> Rollout:
    """Roll out that balls keep their velocities, but for known pushes of the first, and walls."""
    place, way, places = past[:, -1], past[:, -1] - past[:, -2], []
    for push in PUSHES[actions].unbind(1):
        kick = nn.functional.pad(KICK * push[:, None], (0, 0, 0, past.shape[2] - 1))
        ahead = place + way + kick
        mirrored = 2 * ahead.clamp(RADIUS - 1, 1 - RADIUS) - ahead
        way, place = torch.where(ahead == mirrored, 1, -1) * (ahead - place), mirrored
        places.append(place)
    return torch.stack(places, dim=1)


def seen_places(
    frames: UInt8[Tensor, "batch height width 3"], before: Positions | None = None
) -> Positions:
    """Return where the pushed balls are, from pixels and without any label.

    A pixel's share of each colour is linear in it; a ball's place is the mean of the pixels of its
    colour, and balls that share one are parted by k-means.

    Args:
        frames: On black ground.
        before: Places a frame before, so that every ball of a colour keeps its row; None: balls of
            a colour come in any order.
    """
    cells, colours = objects.cell_centres(frames.shape[1]), [*dict.fromkeys(PALETTE)]
    shares = (frames.float() @ torch.linalg.pinv(torch.tensor(colours).float())).clamp(0, 1)
    shares, cells = shares.flatten(1, 2), cells.expand(len(frames), -1, -1)
    alike = torch.tensor([[ball == colour for ball in PALETTE] for colour in colours])
    others = torch.where(alike, 0.0, FAR)
    places = torch.full((len(frames), len(PALETTE), 2), FAR) if before is None else before
    for ball in range(0 if before is not None else len(PALETTE)):
        colour = colours.index(PALETTE[ball])
        away = (torch.cdist(cells, places) + others[colour]).amin(-1) * (shares[..., colour] > 0.5)
        places[:, ball] = cells[torch.arange(len(frames)), away.argmax(1)]
    for _ in range(ROUNDS):
        nearest = (torch.cdist(cells, places)[:, :, None] + others).argmin(-1)
        own = (nn.functional.one_hot(nearest, len(PALETTE)) * shares[..., None]).sum(2)
        places = own.mT @ cells / own.sum(1)[..., None].clamp(min=1e-6)
    return places


class BallsScores(NamedTuple):
    """Scores of rollouts.

    Attributes:
        mse_1: Mean squared error of the coordinates at the first instant.
        mse_10: The same at the tenth.
        outside: Share of predicted balls whose centre is more than `OUTSIDE` beyond a wall.
        excursion: Largest way of a centre beyond a wall, in units of half the box.
        energy: Drift of the kinetic energy: that of the last displacement of the rollouts over that
            of the last displacement before them, all balls and rollouts together, minus 1.
    """

    mse_1: float
    mse_10: float
    outside: float
    excursion: float
    energy: float


def score_rollouts(past: Past, predicted: Rollout, future: Rollout, walls: Walls) -> BallsScores:
    """Score rollouts of at least 10 instants against what happened; masses count as equal."""
    error = (predicted - future).square().mean(dim=(0, 2, 3))
    beyond = predicted.abs() - walls
    before = (past[:, -1] - past[:, -2]).square().sum()
    after = (predicted[:, -1] - predicted[:, -2]).square().sum()
    return BallsScores(
        mse_1=error[0].item(),
        mse_10=error[TENTH - 1].item(),
        outside=(beyond > OUTSIDE).any(dim=-1).double().mean().item(),
        excursion=max(0.0, beyond.max().item()),
        energy=(after / before - 1).item(),
    )


def owners(
    positions: Float[np.ndarray, "rows slots 2"],
    radii: Float[np.ndarray, " slots"],
    resolution: int,
) -> UInt8[np.ndarray, "rows height width"]:
    """Return the ball that owns each pixel, from 1; 0 for the background.

    A pixel belongs to the ball with the nearest centre, where it lies within that ball's radius.
    """
    cells = objects.cell_centres(resolution).numpy()
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
    pipeline: FramePipeline,
    data: BallsData,
    index: Index,
    truth: UInt8[np.ndarray, "chosen height width"] | None = None,
    *,
    again: bool = False,
) -> FrameScores:
    """Score the frames predicted for some windows.

    Args:
        pipeline: Predicts.
        data: Frames.
        index: Windows.
        truth: Owners of the pixels of the frame after each window.
        again: Show the frame after each window again, instead of predicting it.
    """
    errors, copied, claimed = [], [], []
    for clip in _clips(pipeline, data, index):
        decoded = _last_again(pipeline, clip[:, 1:]) if again else pipeline(clip[:, :HISTORY])
        errors.append(_squared_errors(decoded.frame, clip[:, HISTORY]))
        copied.append(_squared_errors(clip[:, HISTORY - 1], clip[:, HISTORY]))
        claimed.append(decoded.masks.argmax(dim=1).cpu())
    mse, copy_mse = torch.cat(errors).mean().item(), torch.cat(copied).mean().item()
    ratio, ari = mse / copy_mse if copy_mse else float("nan"), float("nan")
    if truth is not None:
        ari = float(np.nanmean(foreground_ari(truth, torch.cat(claimed).numpy())))
    return FrameScores(mse, copy_mse, ratio, ari)


@torch.no_grad()
def alone_error(pipeline: FramePipeline, data: BallsData, index: Index) -> float:
    """Return the error of frames whose pixels one slot shows alone, over that of copying.

    It is the slot of the largest share; the last of three frames is shown again.
    Low errors say that slots are bound to objects, and no label is needed to tell.
    """
    errors, copied = [], []
    for clip in _clips(pipeline, data, index):
        _, masks, pictures = _last_again(pipeline, clip[:, :HISTORY])
        shown = pictures.take_along_dim(masks.argmax(dim=1)[:, None, ..., None], dim=1)[:, 0]
        errors.append(_squared_errors(shown, clip[:, HISTORY - 1]))
        copied.append(_squared_errors(clip[:, HISTORY - 2], clip[:, HISTORY - 1]))
    return (torch.cat(errors).mean() / torch.cat(copied).mean()).item()


def _last_again(pipeline: FramePipeline, clip: Tensor) -> objects.Decoded:
    """Show the last frame of every clip again."""
    return objects.Decoded(*(part[HISTORY - 1 :: HISTORY] for part in still(pipeline, clip)))


def _clips(
    pipeline: FramePipeline, data: BallsData, index: Index, ahead: int = 1
) -> Iterator[objects.Clip]:
    """Yield windows of frames in batches, on the device of the pipeline."""
    place = next(pipeline.parameters()).device
    for few in _batches(index, FRAME_BATCH):
        yield windows(data, few, ahead).to(place)


def _squared_errors(predicted: Tensor, truth: Tensor) -> Float[Tensor, " batch"]:
    return (predicted - truth).square().flatten(1).mean(dim=1)


@torch.no_grad()
def score_imagined(
    pipeline: FramePipeline, data: BallsData, index: Index, steps: int
) -> tuple[float, float]:
    """Return the mean squared error of rolled out frames, and that of the last frame seen."""
    if not len(index):
        return float("nan"), float("nan")
    errors, copied = [], []
    for clip in _clips(pipeline, data, index, steps):
        past, truth = clip[:, :HISTORY], clip[:, HISTORY:]
        errors.append(_squared_errors(imagine(pipeline, past, steps)[0], truth))
        copied.append(_squared_errors(past[:, -1:], truth))
    return torch.cat(errors).mean().item(), torch.cat(copied).mean().item()


@torch.no_grad()
def imagine(
    pipeline: FramePipeline, past: Float[Tensor, "batch 3 height width 3"], steps: int
) -> tuple[objects.Clip, Float[Tensor, "batch time slots height width"]]:
    """Predict ``steps`` frames, each from those predicted before; return them and their masks."""
    masks = []

    def predict(seen: Tensor) -> Tensor:
        decoded = pipeline(seen)
        masks.append(decoded.masks)
        return decoded.frame.clamp(0, 1)

    return rollout(predict, past, steps), torch.stack(masks, dim=1)
