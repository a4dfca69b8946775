"""World models, and those of whole frames: encoder and decoder, RIMs or an LSTM, no memory.

What every world model does: keep a state, take in a frame or none, predict the next frame.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from math import gcd
from operator import mul
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import Checked, RMRError
from rmr_gym.models.rmr.pipeline import draw_uniformly
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.rims import Reading, RIMCell, RIMSizes, RIMState

State = TypeVar("State")
Frame = Float[Tensor, "batch height width channels"]
Frames = Float[Tensor, "*rest height width channels"]
Actions = Int[Tensor, " batch"]
Sequences = Float[Tensor, "batch frames height width channels"]
Played = Int[Tensor, "batch time"] | None
Losses = Float[Tensor, "batch time"]

CUT = 0.5
"""Above this a predicted pixel is lit, below it dark, where a model takes in its own prediction."""
SURE = 1e-6
"""No predicted probability counts as closer to 0 or 1 than this."""
NOISE = 0.2
"""Probability that an input pixel is flipped (R-NEM, Appendix A.1)."""
WITH_ACTIONS = 0.02
"""Probability that an input pixel is flipped in a world with actions (R-NEM, Appendix A.2)."""


class Prediction(NamedTuple):
    """What a world model says of the frame after those that it has seen.

    Attributes:
        frame: Predicted frame, in [0, 1].
        groups: Share of each group in each pixel of the frame last taken in, 1 in sum over groups
            (slots); None, as what follows, for models that do not group pixels.
        pictures: What every group predicts.
        attention: What group k takes of group i.
    """

    frame: Frame
    groups: Float[Tensor, "batch slots height width"] | None = None
    pictures: Float[Tensor, "batch slots height width channels"] | None = None
    attention: Float[Tensor, "batch slots slots"] | None = None


@runtime_checkable
class WorldModel(Protocol[State]):
    """A recurrent model of a world that is seen as frames; every one is an ``nn.Module`` too.

    After ``step(state, x_t, a_t)`` the state predicts :math:`x_{t+1}`: ``decode`` says what it
    predicts, ``losses`` how far that is from what came. Frames are binary or gray, in [0, 1]. What
    depends on ``training``, such as noise on the input, is the model's own.

    Attributes:
        cut: Predicted pixels above it are lit, others dark, where a model takes in its own
            prediction for want of a frame, so that it sees what it was trained on; 0 to take in
            probabilities as they are, as gray frames need. May be changed at any time.
    """

    cut: float

    def init_state(self, batch: int, generator: torch.Generator) -> State:
        """Return the state before the first frame.

        Args:
            batch: Number of sequences.
            generator: Source of all that is drawn now and in later steps (a state may keep it); on
                the device of the model.
        """
        ...

    def step(self, state: State, observation: Frame | None, action: Actions | None) -> State:
        """Return the state after one more frame; states are not changed in place.

        Args:
            state: Before the frame.
            observation: The frame as it is, without noise; None to go on from what was predicted.
            action: Taken at that frame; None in a world without actions.
        """
        ...

    def decode(self, state: State) -> Prediction:
        """Return what the state predicts for the next frame."""
        ...

    def losses(self, frames: Sequences, actions: Played, generator: Generator) -> Losses:
        """Return training losses, summed over pixels, of predictions of all frames but the first.

        All frames but the last are shown. What does not hang on the frame before is computed for
        all instants at once.

        Args:
            frames: One sequence a row.
            actions: Taken at each frame but the last; None in a world without actions.
            generator: See `init_state`.
        """
        ...


def taken_in(predicted: Frames, cut: float) -> Frames:
    """Return what a model takes in of its own prediction, see `WorldModel`."""
    return (predicted > cut).to(predicted) if cut else predicted


def flipped(frame: Frames, probability: float, generator: torch.Generator) -> Frames:
    """Return frames with some pixels x turned into 1 - x."""
    if not probability:
        return frame
    kind = {"dtype": torch.float32, "device": generator.device}
    drawn = torch.rand(frame.shape, generator=generator, **kind)
    return torch.where(drawn < probability, 1 - frame, frame)


def need_actions(action: Int[Tensor, "*rest"] | None) -> Int[Tensor, "*rest"]:
    """Return the actions that a model of a world with actions is told.

    Raises:
        RMRError: There are none.
    """
    if action is None:
        raise RMRError("expected an action a sequence, as in training, got none")
    return action


def frame_bce(
    frame: Frames, following: Frames, weight: Frames | None = None
) -> Float[Tensor, "*rest"]:
    """Return the binary cross-entropy in nats of predicted frames, summed over their pixels.

    Source: R-NEM, section 4 (BCE); its code cuts probabilities off at `SURE`, which is what a wrong
    pixel of a binary prediction costs: 13.8 nats.

    Args:
        frame: Predicted probabilities.
        following: What came, in [0, 1].
        weight: Weight of each pixel.
    """
    logits = frame.logit(SURE)
    losses = F.binary_cross_entropy_with_logits(logits, following, weight, reduction="none")
    return losses.sum(dim=(-3, -2, -1))


def unroll(
    model: WorldModel[State],
    frames: Sequences,
    actions: Played,
    generator: torch.Generator,
    seen: int | None = None,
) -> Iterator[State]:
    """Give the state after each frame; from ``seen`` frames on the model sees none of them.

    Args:
        model: The model.
        frames: One sequence a row.
        actions: Taken at each frame, or None.
        generator: Passed to `WorldModel.init_state`.
        seen: Number of frames that are shown, 1 or more; None for all.

    Raises:
        RMRError: No frame is shown, or more than there are.
    """
    length = frames.shape[1]
    seen = length if seen is None else seen
    if not 1 <= seen <= length:
        raise RMRError(f"expected to show 1 to {length} frames of each sequence, got {seen}")
    state = model.init_state(len(frames), generator)
    for instant in range(length):
        observation = frames[:, instant] if instant < seen else None
        action = None if actions is None else actions[:, instant]
        state = model.step(state, observation, action)
        yield state


Vector = Float[Tensor, "batch dim"]
Vectors = Float[Tensor, "batch time dim"]
Shown = Float[Tensor, "batch time shown"]

SCREEN = (84, 84)
"""Height and width of the binary frames of games, which have a coder of their own."""
SCREEN_CHANNELS, SCREEN_WIDTH = (16, 32), 250
"""Of the coder of those frames: channels of its convolutions, width of its connected layers."""


class Glorot(nn.Module):
    """A layer whose weights are drawn uniformly as Glorot and Bengio do; its bias is 0.

    Source: R-NEM, whose code leaves weights to the defaults of TensorFlow's slim.
    """

    weight: Tensor
    bias: Any

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        nn.init.xavier_uniform_(self.weight, generator=generator)
        if self.bias is not None:
            self.bias.zero_()


class GlorotLinear(Glorot, nn.Linear):
    """A linear layer, see `Glorot`."""


class GlorotConv(Glorot, nn.Conv2d):
    """A convolution, see `Glorot`."""


class FrameEncoder(nn.Module):
    """Convolutions, then one fully connected layer: each with layer norm, then ELU.

    Kernels are twice as high and wide as `strides`.

    Source: R-NEM, Appendix A.1, layers 1 to 4 (channels 16, 32, 64, width 512, frames of 64 x 64);
    for frames of games A.2, as in its code (enc_dec_84_atari: 8 x 8 convolution of stride 4 and
    4 x 4 of stride 2, channels 16 and 32, width 250).
    Differs: layer norm is over all of a frame with a weight a channel, before the activation, as in
    the code; it adds 1e-5 to the variance, the code 1e-12. Of a game's frame 10 x 10 cells are left
    in place of 11 x 11, as many as the decoder begins with.

    Args:
        shape: Height, width and channels of a frame.
        channels: Of each convolution.
        width: Of the vector.

    Raises:
        RMRError: The frame cannot be halved so often.
    """

    def __init__(self, shape: tuple[int, int, int], channels: Sequence[int], width: int):
        super().__init__()
        grid = grids(shape, len(channels))[-1]
        layers: list[nn.Module] = []
        widths = pairwise((shape[2], *channels))
        for (before, after), stride in zip(widths, strides(shape, len(channels)), strict=True):
            layers += [GlorotConv(before, after, 2 * stride, stride=stride, padding=stride // 2)]
            layers += [nn.GroupNorm(1, after), nn.ELU()]
        cells = grid[0] * grid[1] * channels[-1]
        layers += [nn.Flatten(), GlorotLinear(cells, width), nn.LayerNorm(width), nn.ELU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: Frames) -> Float[Tensor, "*rest dim"]:
        """Return a vector a frame."""
        flat = frames.flatten(0, -4)
        vectors = self.layers(rearrange(flat, "batch h w c -> batch c h w"))
        return vectors.unflatten(0, frames.shape[:-3])


class FrameDecoder(nn.Module):
    """Two fully connected layers, then convolutions, each after repeating pixels.

    Source: R-NEM, Appendix A.1, layers 6 to 10 (widths 512 and 8 x 8 x 64, channels 32, 16, 1); for
    frames of games A.2, as in its code (widths 250 and 10 x 10 x 32, from there to 21 x 21 x 16 and
    to 84 x 84).
    Differs: as `FrameEncoder`.

    Args:
        dim: Width of the vector.
        shape: Height, width and channels of a frame.
        channels: Those of the encoder.
        width: Of the hidden layer.

    Raises:
        RMRError: The frame cannot be halved so often.
    """

    def __init__(self, dim: int, shape: tuple[int, int, int], channels: Sequence[int], width: int):
        super().__init__()
        steps = strides(shape, len(channels))[::-1]
        grid, *larger = grids(shape, len(channels))[::-1]
        cells = channels[-1] * grid[0] * grid[1]
        layers: list[nn.Module] = [GlorotLinear(dim, width), nn.LayerNorm(width), nn.ReLU()]
        layers += [GlorotLinear(width, cells), nn.LayerNorm(cells), nn.ReLU()]
        layers += [nn.Unflatten(1, (channels[-1], *grid))]
        widths = pairwise((*reversed(channels), shape[2]))
        for (before, after), step, size in zip(widths, steps, larger, strict=True):
            layers += [RepeatingConv(before, after, step, size), nn.GroupNorm(1, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-2], nn.Sigmoid())

    def forward(self, vectors: Float[Tensor, "*rest dim"]) -> Frames:
        """Return a frame a vector, in (0, 1)."""
        frames = self.layers(vectors.flatten(0, -2))
        frames = rearrange(frames, "batch c h w -> batch h w c")
        return frames.unflatten(0, vectors.shape[:-1])


class RepeatingConv(GlorotConv):
    """Each pixel repeated s x s times, then a 2 s x 2 s convolution that keeps the size.

    The repeated pixels are never made: each of the s x s output pixels of an input pixel sees 2 or
    3 neighbouring input pixels along an axis, so that they are channels of one 3 x 3 convolution of
    the input, whose weights are sums of those of the larger one. That is the same, with about half
    of the multiplications where s is 2, and a seventh where it is 4.

    Source: R-NEM, Appendix A.1 (Odena et al. 2016); s - 1 pixels of zeros before, s after, as
    TensorFlow pads.
    Differs: where the output is larger than s times the input, by a pixel, the first row and column
    are repeated once more, as in the code; above and left of them are not zeros but they again.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        repeats: s, how often a pixel is repeated along an axis.
        size: Height and width of the output.
    """

    taps: Tensor

    def __init__(self, before: int, after: int, repeats: int, size: tuple[int, int]):
        super().__init__(before, after, 2 * repeats)
        self.repeats, self.size = repeats, size
        pixel, tap = torch.arange(repeats)[:, None], torch.arange(2 * repeats)
        seen = (pixel + tap + 1) // repeats
        taps = F.one_hot(seen, 3).to(self.weight).transpose(1, 2)
        self.register_buffer("taps", taps.contiguous(), persistent=False)

    def forward(
        self, input: Float[Tensor, "batch before height width"]
    ) -> Float[Tensor, "batch after height2 width2"]:
        """Return a larger picture."""
        weight = torch.einsum("pya,qxb,ocab->opqcyx", self.taps, self.taps, self.weight)
        assert self.bias is not None
        (height, width), s = self.size, self.repeats
        if (height, width) != (s * input.shape[2], s * input.shape[3]):
            input = F.pad(input, (1, 0, 1, 0), mode="replicate")
        bias = self.bias.repeat_interleave(s * s)
        pixels = F.conv2d(input, weight.flatten(0, 2), bias, padding=1)
        return F.pixel_shuffle(pixels, s)[..., -height:, -width:]


def fitted_coder(
    shape: tuple[int, int, int], channels: tuple[int, ...], hidden: int
) -> dict[str, Any]:
    """Return channels and width, ``hidden``, of the coder of frames of a shape.

    Those of games have R-NEM's. Others keep the width, and as many of the first convolutions as can
    halve a frame, one at least.

    Source: R-NEM, Appendix A.2 (Space Invaders, 84 x 84), as in its code.
    Differs: the text has four convolutions, and a decoder that does not fit the frame.
    """
    if shape[:2] == SCREEN:
        return {"channels": SCREEN_CHANNELS, "hidden": SCREEN_WIDTH}
    side, count = gcd(*shape[:2]), len(channels)
    while count > 1 and side % 2**count:
        count -= 1
    return {"channels": channels[:count], "hidden": hidden}


def strides(shape: tuple[int, int, int], count: int) -> tuple[int, ...]:
    """Return the stride of each convolution: 4 and 2 for frames of games, always 2 for others."""
    return (4, 2) if (shape[:2], count) == (SCREEN, 2) else (2,) * count


def grids(shape: tuple[int, int, int], count: int) -> list[tuple[int, int]]:
    """Return height and width of a frame, and those after each of some convolutions.

    Raises:
        RMRError: It cannot be halved so often, or there is no convolution.
    """
    height, width, _ = shape
    part = 2**count
    if not count or height % part or width % part:
        raise RMRError(
            f"expected frames whose height and width can be halved {count} times (one or more), "
            f"a convolution each, found {height} x {width}: record with resolution=32, or choose a "
            "preset of fewer convolutions"
        )
    parts = accumulate((1, *strides(shape, count)), mul)
    return [(height // part, width // part) for part in parts]


class Recurrence(nn.Module, ABC, Generic[State]):
    """A recurrent core: it takes in a vector an instant, and shows one."""

    @abstractmethod
    def start(self, batch: int, generator: torch.Generator) -> State:
        """Return the state before the first vector."""

    @abstractmethod
    def run(self, core: State, vectors: Vectors) -> tuple[Shown, State]:
        """Return what is shown after each vector of sequences, and the state after the last."""

    @abstractmethod
    def shown(self, core: State) -> Vector:
        """Return what of the state is decoded."""


LSTMState = tuple[Float[Tensor, "1 batch dim"], Float[Tensor, "1 batch dim"]]
"""The state of an LSTM: what it shows, and what it remembers."""


class LSTMRecurrence(Recurrence[LSTMState]):
    """One LSTM; nothing but its initial weights is drawn."""

    lstm: nn.LSTM

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the LSTM's weights uniformly in +-1/sqrt(units)."""
        draw_uniformly(self.lstm.parameters(), self.lstm.hidden_size, generator)

    def start(self, batch: int, generator: torch.Generator) -> LSTMState:
        """Return a state of 0."""
        zeros = next(self.lstm.parameters()).new_zeros(1, batch, self.lstm.hidden_size)
        return zeros, zeros

    def run(self, core: LSTMState, vectors: Vectors) -> tuple[Shown, LSTMState]:
        """Return what is shown after each vector, and the last state."""
        return self.lstm(vectors, core)

    def shown(self, core: LSTMState) -> Vector:
        """Return what the LSTM shows."""
        return core[0][0]


class RIMsRecurrence(Recurrence[RIMState]):
    """A layer of RIMs; a vector is the one element of its input, and it shows all its states."""

    cell: RIMCell

    @property
    def parts(self) -> int:
        """Number of RIMs."""
        return self.cell.sizes.rims

    def drop(self, parts: Sequence[int] = ()) -> None:
        """Take RIMs out; see `RIMCell.drop`."""
        self.cell.drop(parts)

    def start(self, batch: int, generator: torch.Generator) -> RIMState:
        """Return a state of 0 that keeps the generator for dropout."""
        return self.cell.init_state(batch, generator)

    def run(self, core: RIMState, vectors: Vectors) -> tuple[Shown, RIMState]:
        """Return what is shown after each vector, and the last state; all are read at once."""
        readings, shown = self.cell.read(vectors[:, :, None]), []
        for now in zip(*(part.unbind(1) for part in readings), strict=True):
            core = self.cell(Reading(*now), core)
            shown.append(self.shown(core))
        return torch.stack(shown, dim=1), core

    def shown(self, core: RIMState) -> Vector:
        """Return the states of all RIMs."""
        return core.hidden.flatten(1)


@dataclass(frozen=True)
class FrameSizes(Checked):
    """Sizes of RIMs on frames and of their baseline.

    Attributes:
        rims: Of the layer of RIMs; the paper does not give those of its bouncing balls.
        lstm_units: Width of the baseline.
        channels: Of the encoder's convolutions; the decoder has them the other way round.
        hidden: Width of the layers before and after the recurrence.

    Raises:
        RMRError: Counts below 1.
    """

    rims: RIMSizes = field(default_factory=RIMSizes)
    lstm_units: int = 250
    channels: tuple[int, ...] = (16, 32, 64)
    hidden: int = 512

    def with_processor(self, processor: ProcessorSizes) -> "FrameSizes":
        """Return the same sizes, with RIMs that communicate through a P."""
        return replace(self, rims=replace(self.rims, processor=processor))

    def fitted(self, shape: tuple[int, int, int], actions: int) -> "FrameSizes":
        """Return the sizes for frames of a shape, see `fitted_coder`."""
        return replace(self, **fitted_coder(shape, self.channels, self.hidden))


class RecurrentFrames(Recurrence[State]):
    """What both share: frames are encoded, a core takes them in, its state is decoded.

    A model that sees no frame takes in the one that it predicted, cut at ``cut``. It is a
    `rmr_gym.models.world.frames.WorldModel`.

    Source: RIMs, section 4.2.1 and Appendix C.10 (next frames, binary cross-entropy, teacher
    forcing; encoder and decoder of R-NEM).
    Differs: in a world with actions an embedding of the action is added to the encoded frame; what
    a model predicts and takes in is cut.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of encoder and decoder.
        actions: Number of actions; 0 for a world without.
        dim: Width of what is decoded.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: FrameSizes, actions: int, dim: int):
        super().__init__()
        self.cut = CUT
        self.encoder = FrameEncoder(shape, sizes.channels, sizes.hidden)
        self.decoder = FrameDecoder(dim, shape, sizes.channels, sizes.hidden)
        self.action = nn.Linear(actions, sizes.hidden, bias=False) if actions else None

    def init_state(self, batch: int, generator: torch.Generator) -> State:
        """Return the state before the first frame; see `WorldModel.init_state`."""
        return self.start(batch, generator)

    def step(self, state: State, observation: Frame | None, action: Actions | None) -> State:
        """Take in a frame, or what was predicted; see `WorldModel.step`.

        Raises:
            RMRError: Actions are missing.
        """
        if observation is None:
            observation = taken_in(self.decode(state).frame, self.cut)
        return self.run(state, self.encode(observation, action)[:, None])[1]

    def encode(self, frames: Frames, actions: Int[Tensor, "*rest"] | None) -> Vectors | Vector:
        """Return the vectors of frames at which actions are taken."""
        vectors = self.encoder(frames)
        if self.action is None:
            return vectors
        return vectors + self.action.weight.T[need_actions(actions)]

    def decode(self, state: State) -> Prediction:
        """Return the predicted frame; pixels are not grouped."""
        return Prediction(self.decoder(self.shown(state)))

    def losses(self, frames: Sequences, actions: Played, generator: Generator) -> Losses:
        """Return the binary cross-entropy of the predicted frames, summed over pixels."""
        vectors = self.encode(frames[:, :-1], actions)
        shown, _ = self.run(self.start(len(frames), generator), vectors)
        return frame_bce(self.decoder(shown), frames[:, 1:])


class FrameRIMs(RIMsRecurrence, RecurrentFrames[RIMState]):
    """RIMs on frames: one encoded frame is the input, the states of all RIMs are decoded.

    ``model.drop([0, 3])`` takes RIMs out.

    Source: RIMs, section 4.2.1, Appendix C.3 and C.10. Differs: see `RIMCell`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions; 0 for a world without.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: FrameSizes, actions: int = 0):
        super().__init__(shape, sizes, actions, sizes.rims.rims * sizes.rims.units)
        self.cell = RIMCell(sizes.hidden, sizes.rims)


class FrameLSTM(LSTMRecurrence, RecurrentFrames[LSTMState]):
    """The baseline: one LSTM in the place of the RIMs.

    Source: RIMs, section 4.2.1 and Appendix C.10.2 (250 units). Differs: none.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions; 0 for a world without.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: FrameSizes, actions: int = 0):
        super().__init__(shape, sizes, actions, sizes.lstm_units)
        self.lstm = nn.LSTM(sizes.hidden, sizes.lstm_units, batch_first=True)


RIMS_MODELS = {"rims": FrameRIMs, "rims_lstm": FrameLSTM}
"""Models by name, made from (shape of a frame, sizes, number of actions)."""


@dataclass(frozen=True)
class MemorylessSizes(Checked):
    """Sizes of the model without memory.

    Attributes:
        channels: Of the hidden layer.
        kernel: Height and width of what a predicted pixel sees of the frame, odd.
        noise: Probability that an input pixel is flipped, in [0, 1/2], in a world without actions.

    Raises:
        RMRError: No channel, another kernel, no such probability.
    """

    ranges: ClassVar = {"noise": "[0, 0.5]"}

    channels: int = 16
    kernel: int = 7
    noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise RMRError(f"expected an odd kernel, got {self}")

    def fitted(self, shape: tuple[int, int, int], actions: int) -> "MemorylessSizes":
        """Return the sizes for a world of so many actions, whose noise is `WITH_ACTIONS`."""
        return replace(self, noise=WITH_ACTIONS if actions and self.noise else self.noise)


class MemorylessState(NamedTuple):
    """The last frame, as it was seen, and the source of the noise."""

    frame: Frame
    generator: torch.Generator


class Memoryless(nn.Module):
    """Predicts each pixel from what surrounds it in the last frame: a learned blur.

    It cannot tell where anything moves: a world model that predicts no better has learnt nothing of
    motion, though it may well beat copying, of which a wrong pixel costs 13.8 nats. It sees no
    actions, and frames without noise, or with as much as R-NEM's family (its noisy twin). It is a
    `rmr_gym.models.world.frames.WorldModel`.

    Source: ours; a control.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of its two layers.
        actions: Number of actions, which it does not see.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: MemorylessSizes, actions: int = 0):
        super().__init__()
        self.shape, self.noise, self.cut = shape, sizes.noise, CUT
        self.around = nn.Conv2d(shape[2], sizes.channels, sizes.kernel, padding=sizes.kernel // 2)
        self.pixel = nn.Conv2d(sizes.channels, shape[2], 1)

    def init_state(self, batch: int, generator: torch.Generator) -> MemorylessState:
        """Return a dark frame; nothing is drawn."""
        return MemorylessState(self.pixel.weight.new_zeros(batch, *self.shape), generator)

    def step(
        self, state: MemorylessState, observation: Frame | None, action: Actions | None
    ) -> MemorylessState:
        """Return the frame, or what was predicted; see `WorldModel.step`."""
        if observation is None:
            observation = taken_in(self.decode(state).frame, self.cut)
        return state._replace(frame=flipped(observation, self.noise, state.generator))

    def decode(self, state: MemorylessState) -> Prediction:
        """Return the predicted frame; pixels are not grouped."""
        return Prediction(self.predict(state.frame))

    def predict(self, frames: Frame) -> Frame:
        """Return what comes after each frame."""
        pixels = rearrange(frames, "b h w c -> b c h w")
        logits = self.pixel(torch.relu(self.around(pixels)))
        return rearrange(logits.sigmoid(), "b c h w -> b h w c")

    def losses(self, frames: Sequences, actions: Played, generator: Generator) -> Losses:
        """Return the binary cross-entropy of the predicted frames, summed over pixels.

        Instants are computed one after another: all at once, their pictures leave the cache.
        """
        predicted = [
            self.predict(flipped(frame, self.noise, generator))
            for frame in frames[:, :-1].unbind(1)
        ]
        return frame_bce(torch.stack(predicted, dim=1), frames[:, 1:])
