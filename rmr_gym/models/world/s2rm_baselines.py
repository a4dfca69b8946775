"""Baselines of S2RM, and all models of crops by name."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from rmr_gym.models.world.crops import (
    Centres,
    Core,
    CropDecoder,
    CropEncoder,
    Crops,
    LocalState,
    LocalWorld,
    ViewGeometry,
    Views,
)
from rmr_gym.models.world.frames import (
    LSTMRecurrence,
    LSTMState,
    Recurrence,
    RIMsRecurrence,
    Vector,
)
from rmr_gym.models.world.rims import RIMCell, RIMSizes, RIMState
from rmr_gym.models.world.s2rm import (
    S2RM,
    AttentionSizes,
    MemoryCores,
    MemoryModules,
    MemorySizes,
    S2RMSizes,
    SpherePositions,
)


class Aggregated(LocalWorld[Core], Recurrence[Core]):
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
        super().__init__(ViewGeometry(*shape, sizes.views, sizes.size), actions)
        self.places = SpherePositions(sizes.place, sizes.unit)
        seen = (sizes.size, shape[2], sizes.channels)
        self.encoder = CropEncoder(*seen, sizes.summary, sizes.place)
        self.decoder = CropDecoder(dim, *seen, sizes.place)

    def advance(self, core: Core, views: Views) -> Core:
        """Return the network's state after some views, of r, the sum of the encoded crops."""
        summary = self.encoder(views.crops, self.places(views.centres)).sum(dim=1)
        return self.take(core, summary)

    def logits(self, core: Core, centres: Centres) -> Crops:
        """Return the logits of the crops around some pixels of the next frame."""
        hidden = self.shown(core)[:, None].expand(-1, centres.shape[1], -1)
        return self.decoder(hidden, self.places(centres))


class CropLSTM(LSTMRecurrence, Aggregated[LSTMState]):
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


class CropRIMs(RIMsRecurrence, Aggregated[RIMState]):
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

    def take(self, core: Tensor, vector: Vector) -> Tensor:
        """Return the memory after a sum of encoded crops."""
        return self.core(vector[:, None, None], core)

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

    def foresight(self, state: LocalState[Tensor], truth: Crops) -> Tensor:
        """Return what it makes of the views of the next frame."""
        return self.advance(state.core, self.seen(truth, state))

    def start(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return a state of 0; nothing is drawn."""
        del generator
        return self.second.bias.new_zeros(batch, self.second.out_features)

    def take(self, core: Tensor, vector: Vector) -> Tensor:
        """Return what it makes of a sum of encoded crops, whatever came before."""
        del core
        return self.second(self.first(vector).relu()).tanh()

    def shown(self, core: Tensor) -> Vector:
        """Return the state."""
        return core


def ablated(
    shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0, *, attention: str, terms: str
) -> S2RM:
    """Make an S2GRU one of whose attentions, a field of its sizes, has a single term."""
    left = replace(getattr(sizes, attention), terms=terms)
    return S2RM(shape, replace(sizes, **{attention: left}), actions)


S2RM_MODELS: dict[str, Callable[[tuple[int, int, int], S2RMSizes, int], LocalWorld]] = {
    "s2gru": S2RM,
    "s2rmc": partial(S2RM, make_dynamics=MemoryModules),
    "s2gru_input_local": partial(ablated, attention="input_attention", terms="local"),
    "s2gru_input_nonlocal": partial(ablated, attention="input_attention", terms="nonlocal"),
    "s2gru_cells_local": partial(ablated, attention="cell_attention", terms="local"),
    "s2gru_cells_nonlocal": partial(ablated, attention="cell_attention", terms="nonlocal"),
    "crops_lstm": CropLSTM,
    "crops_rims": CropRIMs,
    "crops_rmc": CropRMC,
    "crops_oracle": CropOracle,
}
"""Models by name, made from (shape of a frame, sizes, number of actions)."""

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
