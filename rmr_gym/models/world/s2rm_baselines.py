"""Baselines of S2RM, and all models of crops by name."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rmr_gym.models.world.crops import CropDecoder, CropEncoder, Views
from rmr_gym.models.world.frames import LSTMState
from rmr_gym.models.world.rims import RIMCell, RIMSizes, RIMState
from rmr_gym.models.world.s2rm import (
    S2RM,
    AttentionSizes,
    LocalState,
    LocalWorld,
    MemoryCores,
    MemoryModules,
    MemorySizes,
    S2RMSizes,
    SpherePositions,
)

Core = TypeVar("Core")
Vector = Float[Tensor, "batch dim"]


class Aggregated(LocalWorld[Core]):
    r"""The scaffold of all baselines: encoded crops are summed, a network takes in their sum.

    .. math:: r_t = \sum_a E(O_t^a, s_t^a), \quad h_{t+1} = F(r_t, h_t), \quad
              \hat O^q_{t+1} = D(h_{t+1}, s^q)

    Source: S2RM, Appendix D, eq. 29 to 31. Differs: see `LocalWorld`, `CropEncoder`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
        dim: Width of h.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int, dim: int):
        super().__init__(shape, sizes, actions)
        self.places = SpherePositions(sizes.place, sizes.unit)
        seen = (sizes.size, shape[2], sizes.channels)
        self.encoder = CropEncoder(*seen, sizes.summary, sizes.place)
        self.decoder = CropDecoder(dim, *seen, sizes.place)

    def summary(self, views: Views) -> Vector:
        """Return r, the sum of the encoded crops."""
        return self.encoder(views.crops, self.places(views.centres)).sum(dim=1)

    def advance(self, core: Core, views: Views) -> Core:
        """Return the network's state after some views."""
        return self.take(core, self.summary(views))

    def logits(
        self, core: Core, centres: Int[Tensor, "batch queries 2"]
    ) -> Float[Tensor, "batch queries size size channels"]:
        """Return the logits of the crops around some pixels of the next frame."""
        hidden = self.shown(core)[:, None].expand(-1, centres.shape[1], -1)
        return self.decoder(hidden, self.places(centres))

    @abstractmethod
    def take(self, core: Core, summary: Vector) -> Core:
        """Return the network's state after a sum of encoded crops."""

    @abstractmethod
    def shown(self, core: Core) -> Vector:
        """Return h, what of the state is decoded."""


class CropLSTM(Aggregated[LSTMState]):
    """An LSTM on the scaffold.

    Source: S2RM, Appendix D. Differs: see `Aggregated`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0):
        super().__init__(shape, sizes, actions, sizes.lstm_units)
        self.lstm = nn.LSTMCell(sizes.summary, sizes.lstm_units)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the LSTM's weights uniformly in +-1/sqrt(units)."""
        bound = self.lstm.hidden_size**-0.5
        for parameter in self.lstm.parameters():
            parameter.uniform_(-bound, bound, generator=generator)

    def start(self, batch: int, generator: torch.Generator) -> LSTMState:
        """Return a state of 0; nothing is drawn."""
        del generator
        zeros = self.lstm.weight_hh.new_zeros(batch, self.lstm.hidden_size)
        return LSTMState(zeros, zeros)

    def take(self, core: LSTMState, summary: Vector) -> LSTMState:
        """Return the state after a sum of encoded crops."""
        return LSTMState(*self.lstm(summary, (core.hidden, core.memory)))

    def shown(self, core: LSTMState) -> Vector:
        """Return what the LSTM shows."""
        return core.hidden


class CropRIMs(Aggregated[RIMState]):
    """A layer of RIMs on the scaffold; all their states are decoded together.

    Source: S2RM, Appendix D. Differs: see `Aggregated` and `RIMCell`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0):
        super().__init__(shape, sizes, actions, sizes.rims.rims * sizes.rims.units)
        self.cell = RIMCell(sizes.summary, sizes.rims)

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

    def take(self, core: RIMState, summary: Vector) -> RIMState:
        """Return the state after a sum of encoded crops."""
        return self.cell(self.cell.read(summary[:, None]), core)[0]

    def shown(self, core: RIMState) -> Vector:
        """Return the states of all RIMs."""
        return core.hidden.flatten(1)


class CropRMC(Aggregated[Tensor]):
    """A relational memory core on the scaffold; its whole memory is decoded.

    Source: S2RM, Appendix D. Differs: see `Aggregated` and `MemoryCores`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0):
        super().__init__(shape, sizes, actions, sizes.memory.slots * sizes.memory.row)
        self.core = MemoryCores(1, sizes.summary, 1, sizes.memory)

    def start(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return the memory before the first frame; nothing is drawn."""
        del generator
        return self.core.start(batch)

    def take(self, core: Tensor, summary: Vector) -> Tensor:
        """Return the memory after a sum of encoded crops."""
        return self.core(summary[:, None, None], core)

    def shown(self, core: Tensor) -> Vector:
        """Return the memory as one vector."""
        return core.flatten(1)


class CropOracle(Aggregated[Tensor]):
    """The time-travelling oracle: it sees the views of the frame that it is asked about.

    It has no memory and no dynamics; it shows what encoder, sum and decoder can do. `loss` and
    `asked` let it see the future. ``decode`` and simulations have none to see, and get what it
    makes of the frame that it saw last.

    Source: S2RM, Appendix D: h_{t+1} = F(r_{t+1}) with a two-layer MLP F.
    Differs: see `Aggregated`; ReLU between the layers, tanh after them, as a recurrent state has.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0):
        super().__init__(shape, sizes, actions, sizes.oracle)
        self.first = nn.Linear(sizes.summary, sizes.oracle)
        self.second = nn.Linear(sizes.oracle, sizes.oracle)

    def foresight(
        self,
        state: LocalState[Tensor],
        truth: Float[Tensor, "batch views size size channels"],
    ) -> Tensor:
        """Return what it makes of the views of the next frame."""
        return self.advance(state.core, self.seen(truth, state))

    def start(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return a state of 0; nothing is drawn."""
        del generator
        return self.second.bias.new_zeros(batch, self.second.out_features)

    def take(self, core: Tensor, summary: Vector) -> Tensor:
        """Return what it makes of a sum of encoded crops, whatever came before."""
        del core
        return self.second(self.first(summary).relu()).tanh()

    def shown(self, core: Tensor) -> Vector:
        """Return the state."""
        return core


Maker = Callable[[S2RMSizes, tuple[int, int, int], int], LocalWorld]


def _with_memories(sizes: S2RMSizes, shape: tuple[int, int, int], actions: int) -> S2RM:
    cores = MemoryModules(sizes.modules, sizes.units, sizes.module_memory)
    return S2RM(shape, sizes, actions, cores)


def _ablated(attention: str, terms: str) -> Maker:
    def make(sizes: S2RMSizes, shape: tuple[int, int, int], actions: int) -> S2RM:
        left = replace(getattr(sizes, attention), terms=terms)
        return S2RM(shape, replace(sizes, **{attention: left}), actions)

    return make


S2RM_MODELS: dict[str, Maker] = {
    "s2gru": lambda sizes, shape, actions: S2RM(shape, sizes, actions),
    "s2rmc": _with_memories,
    "s2gru_input_local": _ablated("input_attention", "local"),
    "s2gru_input_nonlocal": _ablated("input_attention", "nonlocal"),
    "s2gru_cells_local": _ablated("cell_attention", "local"),
    "s2gru_cells_nonlocal": _ablated("cell_attention", "nonlocal"),
    "crops_lstm": lambda sizes, shape, actions: CropLSTM(shape, sizes, actions),
    "crops_rims": lambda sizes, shape, actions: CropRIMs(shape, sizes, actions),
    "crops_rmc": lambda sizes, shape, actions: CropRMC(shape, sizes, actions),
    "crops_oracle": lambda sizes, shape, actions: CropOracle(shape, sizes, actions),
}
"""Makers by name, of (sizes, shape of a frame, number of actions)."""

S2RM_SIZES = {
    "smoke": S2RMSizes(
        views=4,
        size=5,
        channels=4,
        modules=3,
        units=8,
        place=8,
        input_attention=AttentionSizes(2, 4, 4),
        cell_attention=AttentionSizes(2, 4, 4),
        module_memory=MemorySizes(2, 2, 4, 4),
        summary=16,
        lstm_units=16,
        rims=RIMSizes(rims=3, active=2, units=6, keys=4, heads=2, message=4),
        memory=MemorySizes(1, 2, 8, 4),
        oracle=16,
    ),
    "laptop": S2RMSizes(
        channels=8,
        units=64,
        input_attention=AttentionSizes(2, 16, 64),
        cell_attention=AttentionSizes(4, 16, 64),
        module_memory=MemorySizes(4, 4, 16, 16),
        summary=256,
        lstm_units=256,
        rims=RIMSizes(rims=6, active=5, units=42, keys=32),
        memory=MemorySizes(1, 4, 64, 64),
        oracle=256,
    ),
    "paper": S2RMSizes(),
}
"""Sizes by the name of the preset."""
