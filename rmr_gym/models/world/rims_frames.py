"""World models of frames after RIMs: encoder, a layer of RIMs or an LSTM, decoder."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, check_counts
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.base import CUT, Prediction, frame_bce, taken_in
from rmr_gym.models.world.nem_frames import FrameDecoder, FrameEncoder, halving
from rmr_gym.models.world.rims import RIMCell, RIMSizes, RIMState

Frame = Float[Tensor, "batch height width channels"]
State = TypeVar("State")


@dataclass(frozen=True)
class FrameSizes:
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

    def __post_init__(self) -> None:
        check_counts(self)

    def with_processor(self, processor: ProcessorSizes) -> "FrameSizes":
        """Return the same sizes, with RIMs that communicate through a P."""
        return replace(self, rims=replace(self.rims, processor=processor))

    def fitted(self, shape: tuple[int, int, int], actions: int) -> "FrameSizes":
        """Return the sizes for frames of a shape, with as many convolutions as can halve them."""
        del actions
        return replace(self, channels=halving(self.channels, shape))


class RecurrentFrames(nn.Module, ABC, Generic[State]):
    """What both share: frames are encoded, a core takes them in, its state is decoded.

    A model that sees no frame takes in the one that it predicted, cut at ``cut``. It is a
    `rmr_gym.models.world.base.WorldModel`.

    Source: RIMs, section 4.2.1 and Appendix C.10 (next frames, binary cross-entropy, teacher
    forcing; encoder and decoder of R-NEM).
    Differs: in a world with actions an embedding of the action is added to the encoded frame; what
    a model predicts and takes in is cut.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of encoder and decoder.
        dim: Width of what is decoded.
        actions: Number of actions; 0 for a world without.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: FrameSizes, dim: int, actions: int):
        super().__init__()
        self.cut = CUT
        self.encoder = FrameEncoder(shape, sizes.channels, sizes.hidden)
        self.decoder = FrameDecoder(dim, shape, sizes.channels, sizes.hidden)
        self.action = nn.Linear(actions, sizes.hidden, bias=False) if actions else None

    def step(
        self, state: State, observation: Frame | None, action: Int[Tensor, " batch"] | None
    ) -> State:
        """Take in a frame, or what was predicted; see `WorldModel.step`.

        Raises:
            RMRError: Actions are missing.
        """
        frame = observation
        if frame is None:
            frame = taken_in(self.decode(state).frame, self.cut)
        vector = self.encoder(frame)
        if self.action is not None:
            if action is None:
                raise RMRError("expected an action a sequence, as in training, got none")
            vector = vector + self.action.weight.T[action]
        return self.advance(state, vector)

    def decode(self, state: State) -> Prediction:
        """Return the predicted frame; pixels are not grouped."""
        return Prediction(self.decoder(self.shown(state)))

    def loss(self, state: State, following: Frame) -> Float[Tensor, " batch"]:
        """Return the binary cross-entropy of the predicted frame, summed over pixels."""
        return frame_bce(self.decode(state).frame, following)

    @abstractmethod
    def advance(self, state: State, vector: Float[Tensor, "batch dim"]) -> State:
        """Return the state after an encoded frame."""

    @abstractmethod
    def shown(self, state: State) -> Float[Tensor, "batch dim"]:
        """Return what of the state is decoded."""


class FrameRIMsState(NamedTuple):
    """The state of RIMs on frames.

    Attributes:
        layer: Of the layer of RIMs.
        active: Which of them were active at the last frame; none before the first.
    """

    layer: RIMState
    active: Bool[Tensor, "batch slots"]


class FrameRIMs(RecurrentFrames[FrameRIMsState]):
    """RIMs on frames: one encoded frame is the input, the states of all RIMs are decoded.

    ``model.cell.drop([0, 3])`` takes RIMs out.

    Source: RIMs, section 4.2.1, Appendix C.3 and C.10. Differs: see `RIMCell`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions; 0 for a world without.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: FrameSizes, actions: int = 0):
        super().__init__(shape, sizes, sizes.rims.rims * sizes.rims.units, actions)
        self.cell = RIMCell(sizes.hidden, sizes.rims)

    def init_state(self, batch: int, generator: torch.Generator) -> FrameRIMsState:
        """Return the state before the first frame; see `WorldModel.init_state`."""
        layer = self.cell.init_state(batch, generator)
        return FrameRIMsState(layer, torch.zeros_like(layer.hidden[..., 0], dtype=torch.bool))

    def advance(self, state: FrameRIMsState, vector: Float[Tensor, "batch dim"]) -> FrameRIMsState:
        """Return the state after an encoded frame."""
        layer, activity = self.cell(self.cell.read(vector[:, None]), state.layer)
        return FrameRIMsState(layer, activity.active)

    def shown(self, state: FrameRIMsState) -> Float[Tensor, "batch dim"]:
        """Return the states of all RIMs."""
        return state.layer.hidden.flatten(1)


class LSTMState(NamedTuple):
    """The state of the baseline: what it shows, and what it remembers."""

    hidden: Float[Tensor, "batch dim"]
    memory: Float[Tensor, "batch dim"]


class FrameLSTM(RecurrentFrames[LSTMState]):
    """The baseline: one LSTM in the place of the RIMs.

    Source: RIMs, section 4.2.1 and Appendix C.10.2 (250 units). Differs: none.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions; 0 for a world without.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: FrameSizes, actions: int = 0):
        super().__init__(shape, sizes, sizes.lstm_units, actions)
        self.lstm = nn.LSTMCell(sizes.hidden, sizes.lstm_units)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the LSTM's weights uniformly in +-1/sqrt(units)."""
        bound = self.lstm.hidden_size**-0.5
        for parameter in self.lstm.parameters():
            parameter.uniform_(-bound, bound, generator=generator)

    def init_state(self, batch: int, generator: torch.Generator) -> LSTMState:
        """Return the state before the first frame, which is 0; nothing is drawn."""
        del generator
        zeros = self.lstm.weight_hh.new_zeros(batch, self.lstm.hidden_size)
        return LSTMState(zeros, zeros)

    def advance(self, state: LSTMState, vector: Float[Tensor, "batch dim"]) -> LSTMState:
        """Return the state after an encoded frame."""
        return LSTMState(*self.lstm(vector, (state.hidden, state.memory)))

    def shown(self, state: LSTMState) -> Float[Tensor, "batch dim"]:
        """Return what the LSTM shows."""
        return state.hidden


RIMS_SIZES = {
    "smoke": FrameSizes(
        RIMSizes(rims=4, active=2, units=8, keys=8, heads=2, message=4), 16, (2, 4), 16
    ),
    "laptop": FrameSizes(RIMSizes(units=40, message=16), 128, (8, 16), 128),
    "paper": FrameSizes(),
}
"""Sizes by the name of the preset."""

RIMS_MODELS = {
    "rims": lambda sizes, shape, actions: FrameRIMs(shape, sizes, actions),
    "rims_p": lambda sizes, shape, actions: FrameRIMs(
        shape,
        sizes if sizes.rims.processor else sizes.with_processor(ProcessorSizes()),
        actions,
    ),
    "rims_lstm": lambda sizes, shape, actions: FrameLSTM(shape, sizes, actions),
}
"""Makers by name, of (sizes, shape of a frame, number of actions)."""
