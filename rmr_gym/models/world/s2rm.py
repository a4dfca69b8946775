"""World models of frames that are seen as a few crops: S2RM."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError
from rmr_gym.models.world.base import CUT, Prediction, taken_in
from rmr_gym.models.world.s2rm_modules import GRUModules, ModuleDynamics, SpatialModules
from rmr_gym.models.world.s2rm_patches import CropDecoder, CropEncoder
from rmr_gym.models.world.s2rm_sizes import S2RMSizes
from rmr_gym.models.world.s2rm_views import ViewGeometry, Views

Frame = Float[Tensor, "batch height width channels"]
Crops = Float[Tensor, "batch views size size channels"]
Core = TypeVar("Core")


@dataclass(frozen=True, eq=False)
class LocalState(Generic[Core]):
    """The state of a model that sees crops.

    Attributes:
        core: Of its recurrent part.
        queries: (row, column) of the centres at which it sees, or is asked about, the next frame.
        generator: Source of centres, on the device of the model.
    """

    core: Core
    queries: Int[Tensor, "batch views 2"]
    generator: torch.Generator


class Asked(NamedTuple):
    """What a model says at the queries of a state, and what came.

    Attributes:
        logits: Of the pixels of each queried crop.
        truth: The crops, in [0, 1].
    """

    logits: Crops
    truth: Crops


class LocalWorld(nn.Module, ABC, Generic[Core]):
    """A world model whose eye sees ``views`` crops of each frame, at pixels drawn anew each time.

    It is a `rmr_gym.models.world.base.WorldModel` of whole frames: where it looks is the model's
    own, drawn from the state's generator; ``decode`` asks it about a grid of crops and stitches
    the answers, ``loss`` asks about the places where it will look next. A model that sees no frame
    takes in its own answers there, cut at ``cut``. Who has crops and places already calls `see` and
    `answer`. ``model.views`` can be lowered after training: so many of the crops are seen then,
    while all are asked for.

    Source: S2RM, sections 2 and 6 (binary cross-entropy of queried crops), Appendix F.1.
    Differs: queries are the next inputs' centres, as in the paper's rollouts; crops are drawn anew
    whenever a sequence is used. Frames are stitched from as many crops as cover them (5 x 5 of
    11 x 11 in 48 x 48) where the paper takes 4 x 4 that do not.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions; 0 for a world without.

    Raises:
        RMRError: A world with actions, or crops larger than the frame.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0):
        super().__init__()
        if actions:
            raise RMRError(
                f"models of crops are for worlds without actions, got one with {actions}: record "
                "another world or choose another model"
            )
        self.geometry = ViewGeometry(*shape, sizes.views, sizes.size)
        self._views = sizes.views
        self.cut = CUT

    @property
    def views(self) -> int:
        """Number of crops that are seen of each frame."""
        return self._views

    @views.setter
    def views(self, views: int) -> None:
        if not 0 <= views <= self.geometry.views:
            raise RMRError(
                f"expected 0 to {self.geometry.views} views, as many as are asked for, got {views}"
            )
        self._views = views

    @property
    def parts(self) -> int:
        """Number of parts that `drop` can take out."""
        return 0

    def drop(self, parts: Sequence[int] = ()) -> None:
        """Take parts out; ``drop()`` brings all back.

        Raises:
            RMRError: There is no such part, or none would be left.
        """
        if parts:
            raise RMRError(
                f"expected a model of several modules to drop some of, got {list(parts)}"
            )

    def init_state(self, batch: int, generator: torch.Generator) -> LocalState[Core]:
        """Return the state before the first frame; see `WorldModel.init_state`."""
        return LocalState(
            self.start(batch, generator), self.geometry.draw(batch, generator), generator
        )

    def step(
        self, state: LocalState[Core], observation: Frame | None, action: Tensor | None
    ) -> LocalState[Core]:
        """Look at a frame, or at what was predicted; see `WorldModel.step`."""
        del action
        if observation is None:
            crops = taken_in(self.answer(state, state.queries), self.cut)
        else:
            crops = self.geometry.look(observation, state.queries)
        return self._after(state, self.advance(state.core, self.seen(crops, state)), None)

    def see(
        self,
        state: LocalState[Core],
        views: Views,
        queries: Int[Tensor, "batch views 2"] | None = None,
    ) -> LocalState[Core]:
        """Return the state after some views, any number of them, also none.

        Args:
            state: Before.
            views: What is seen.
            queries: Centres to ask about next; None to draw them.

        Raises:
            RMRError: A view or a query outside the frame.
        """
        for centres in (views.centres, queries):
            if centres is not None:
                self.geometry.check(centres)
        return self._after(state, self.advance(state.core, views), queries)

    def answer(
        self, state: LocalState[Core], centres: Int[Tensor, "batch queries 2"]
    ) -> Float[Tensor, "batch queries size size channels"]:
        """Return what the state predicts around some pixels of the next frame, in [0, 1].

        Raises:
            RMRError: A query outside the frame.
        """
        self.geometry.check(centres)
        return self.logits(state.core, centres).sigmoid()

    def decode(self, state: LocalState[Core]) -> Prediction:
        """Return the predicted frame, stitched from a grid of crops; pixels are not grouped."""
        grid = self.geometry.grid().to(state.queries.device).expand(len(state.queries), -1, -1)
        crops = self.logits(state.core, grid).sigmoid()
        return Prediction(self.geometry.stitch(crops, grid))

    def asked(self, state: LocalState[Core], following: Frame) -> Asked:
        """Return what the state predicts where it will look next, and what comes there."""
        truth = self.geometry.look(following, state.queries)
        return Asked(self.logits(self.foresight(state, truth), state.queries), truth)

    def loss(self, state: LocalState[Core], following: Frame) -> Float[Tensor, " batch"]:
        """Return the binary cross-entropy of the queried crops, summed over a crop's pixels."""
        logits, truth = self.asked(state, following)
        losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return losses.sum(dim=(2, 3, 4)).mean(dim=1)

    def foresight(self, state: LocalState[Core], truth: Crops) -> Core:
        """Return the core that answers for the next frame; only an oracle looks at ``truth``."""
        del truth
        return state.core

    @abstractmethod
    def start(self, batch: int, generator: torch.Generator) -> Core:
        """Return the core's state before the first frame."""

    @abstractmethod
    def advance(self, core: Core, views: Views) -> Core:
        """Return the core's state after some views."""

    @abstractmethod
    def logits(
        self, core: Core, centres: Int[Tensor, "batch queries 2"]
    ) -> Float[Tensor, "batch queries size size channels"]:
        """Return the logits of the crops around some pixels of the next frame."""

    def seen(self, crops: Crops, state: LocalState[Core]) -> Views:
        """Return those of the crops at a state's queries that the model is shown."""
        return Views(crops[:, : self.views], state.queries[:, : self.views])

    def _after(
        self, state: LocalState[Core], core: Core, queries: Tensor | None
    ) -> LocalState[Core]:
        if queries is None:
            queries = self.geometry.draw(len(state.queries), state.generator)
        return LocalState(core, queries, state.generator)


class S2RM(LocalWorld[Tensor]):
    """Spatially structured recurrent modules on crops.

    Only the kernel of their places tells encoder, modules and decoder where a crop is.
    ``model.spatial.enclaves()`` are the regions that the modules attend to.

    Source: S2RM, section 4. Differs: see `LocalWorld`, `SpatialModules`, `KernelAttention`,
    `SpherePositions`, `CropEncoder`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
        dynamics: What a module does by itself; None for a GRU.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        sizes: S2RMSizes,
        actions: int = 0,
        dynamics: ModuleDynamics | None = None,
    ):
        super().__init__(shape, sizes, actions)
        self.encoder = CropEncoder(sizes.size, shape[2], sizes.channels, sizes.units)
        self.spatial = SpatialModules(
            dynamics or GRUModules(sizes.modules, sizes.units),
            sizes.units,
            shape[:2],
            sizes.modules,
            sizes.place,
            sizes.kernel,
            (sizes.input_attention, sizes.cell_attention),
            sizes.unit,
        )
        self.decoder = CropDecoder(sizes.units, sizes.size, shape[2], sizes.channels)

    @property
    def parts(self) -> int:
        """Number of modules."""
        return len(self.spatial.present)

    def drop(self, parts: Sequence[int] = ()) -> None:
        """Take modules out; see `SpatialModules.drop`."""
        self.spatial.drop(parts)

    def start(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return the modules' memory before the first frame; nothing is drawn."""
        del generator
        return self.spatial.dynamics.start(batch)

    def advance(self, core: Tensor, views: Views) -> Tensor:
        """Return the modules' memory after some views."""
        return self.spatial(core, self.encoder(views.crops), views.centres)

    def logits(
        self, core: Tensor, centres: Int[Tensor, "batch queries 2"]
    ) -> Float[Tensor, "batch queries size size channels"]:
        """Return the logits of the crops around some pixels of the next frame."""
        return self.decoder(self.spatial.poll(core, centres), None)
