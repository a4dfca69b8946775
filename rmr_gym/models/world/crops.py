"""Frames that are seen as a few crops: where they are, what is made of them, what a model does."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import Checked, RMRError
from rmr_gym.models.world import frames as world

Core = TypeVar("Core")
Centres = Int[Tensor, "*batch views 2"]
Crops = Float[Tensor, "*batch views size size channels"]
Places = Float[Tensor, "*batch views place"]
Vectors = Float[Tensor, "*batch views dim"]
FeatureMap = Float[Tensor, "batch channels height width"]


class Views(NamedTuple):
    """What is seen of each world at one instant.

    Attributes:
        crops: Squares around the centres, in [0, 1].
        centres: (row, column) of the middle pixel of each; (-1, -1) where nobody looks: that view
            is as if it were not there.
    """

    crops: Crops
    centres: Centres


@dataclass(frozen=True)
class ViewGeometry:
    """How frames are seen: so many crops at a time, each of so many pixels.

    Source: S2RM, section 6 and Appendix B.2: 10 crops of 11 x 11 in frames of 48 x 48.
    Differs: crops reach over the edge and are padded with zeros there; the paper does not say.

    Attributes:
        height: Of a frame.
        width: Of a frame.
        channels: Of a frame.
        views: Crops at an instant.
        size: Height and width of a crop, odd.

    Raises:
        RMRError: No crop, an even size, or crops larger than the frame.
    """

    height: int
    width: int
    channels: int
    views: int
    size: int

    def __post_init__(self) -> None:
        side = min(self.height, self.width)
        if self.views < 1 or self.size < 1 or self.size % 2 == 0 or self.size > side:
            raise RMRError(
                f"expected 1 crop or more of an odd size from 1 to {side}, the side of a frame, "
                f"got {self.views} of {self.size} x {self.size} in frames of {self.height} x "
                f"{self.width}: record larger frames or take smaller crops"
            )

    def draw(self, batch: int, generator: torch.Generator) -> Centres:
        """Draw centres uniformly among the pixels, on the device of the generator."""
        return drawn_pixels((self.height, self.width), (batch, self.views), generator)

    @property
    def of_agents(self) -> bool:
        """Whether agents look, whom the first of several channels marks; else pixels are drawn."""
        return self.channels > 1

    def agents(self, frames: world.Frame, generator: torch.Generator) -> Centres:
        """Return where agents are, in random order; (-1, -1) for views beyond their number."""
        marked = (frames[..., 0] > world.CUT).flatten(1)
        order = torch.rand(marked.shape, generator=generator, device=generator.device)
        ranks, cells = ((1 - order) * marked).topk(self.views)
        places = torch.stack([cells // self.width, cells % self.width], dim=-1)
        return torch.where(ranks[..., None] > 0, places, -1)

    def look(self, frames: world.Frames, centres: Centres) -> Crops:
        """Return the crops around centres, 0 beyond the edge."""
        reach = self.size // 2
        wide = F.pad(frames.flatten(0, -4), (0, 0, reach, reach, reach, reach))
        return wide[self._pixels(centres.flatten(0, -3))].unflatten(0, centres.shape[:-2])

    def grid(self) -> Int[Tensor, "views 2"]:
        """Return centres of the fewest crops whose union is the whole frame."""
        axes = [
            torch.linspace(self.size // 2, side - 1 - self.size // 2, -(-side // self.size)).long()
            for side in (self.height, self.width)
        ]
        return torch.cartesian_prod(*axes)

    def stitch(self, crops: Crops, centres: Centres) -> world.Frame:
        """Return frames made of crops: their mean where they overlap, 0 where there is none."""
        reach, pixels = self.size // 2, self._pixels(centres)
        there = present(centres)[..., None, None, None].to(crops)
        sides = self.height + 2 * reach, self.width + 2 * reach
        empty = crops.new_zeros(len(crops), *sides, self.channels)
        total, count = (
            empty.index_put(pixels, part, accumulate=True)
            for part in (crops * there, there.expand_as(crops))
        )
        whole = total / count.clamp(min=1)
        return whole[:, reach : reach + self.height, reach : reach + self.width]

    def _pixels(self, centres: Centres) -> tuple[Tensor, Tensor, Tensor]:
        """Return world, row and column of the pixels of crops, in frames with a margin."""
        steps = torch.arange(self.size, device=centres.device)
        worlds = torch.arange(len(centres), device=centres.device)[:, None, None, None]
        rows, columns = centres[..., None, None].unbind(2)
        return worlds, rows + steps[:, None], columns + steps


@dataclass(frozen=True)
class Kernel(Checked):
    r"""The truncated Gaussian kernel on the unit sphere.

    .. math:: Z(p, s) = \exp[-2 \epsilon (1 - p \cdot s)] \;\; (p \cdot s \ge \tau), \quad
              Z(p, s) = 0 \;\; (\text{else})

    Gradients pass as if it were not truncated.

    Source: S2RM, eq. 5, Appendix C.1 and E.4.1. Differs: none.

    Attributes:
        bandwidth: :math:`\epsilon`, above 0.
        truncation: :math:`\tau`, in [-1, 1).

    Raises:
        RMRError: Numbers outside these ranges.
    """

    ranges: ClassVar = {"bandwidth": "(0, inf)", "truncation": "[-1, 1)"}

    bandwidth: float = 1.0
    truncation: float = 0.6

    def __call__(
        self, places: Float[Tensor, "*rest i dim"], others: Float[Tensor, "*more j dim"]
    ) -> Float[Tensor, "*out i j"]:
        """Return the kernel of each pair of unit vectors."""
        cosine = places @ others.transpose(-1, -2)
        whole = torch.exp(-2 * self.bandwidth * (1 - cosine))
        truncated = torch.where(cosine >= self.truncation, whole, 0.0)
        return whole + (truncated - whole).detach()


class SpherePositions(nn.Module):
    r"""Places in the frame as points of a sphere; nothing is learned.

    .. math:: P(x) = s / \|s\|, \quad
              (s_{m,i}, s_{m,i+1}) = (\sin, \cos)(x_m / 10000^{i n / d}), \quad i = 0, 2, \dots

    for the n = 2 coordinates :math:`x_m`, in pixels. The scalar product of two of these is a mean
    of cosines of their differences.

    Source: S2RM, eq. 3.
    Differs: the exponent is i n / d, and coordinates do not share components; taken literally
    (exponent i, index i + m) all but the first frequency are 0 to working accuracy, and components
    overwrite each other. The unit of x is not given; pixels make the wavelengths 6 to 6,000 pixels.

    Args:
        dim: Width d, a multiple of 4.
        unit: Pixels that count as 1 in x, above 0.

    Raises:
        RMRError: Another width or unit.
    """

    frequencies: Tensor

    def __init__(self, dim: int, unit: float = 1.0):
        super().__init__()
        if dim < 4 or dim % 4:
            raise RMRError(f"expected a width of places that is a multiple of 4, got {dim}")
        if not unit > 0:
            raise RMRError(f"expected a unit of places above 0 pixels, got {unit}")
        exponents = torch.arange(dim // 4, dtype=torch.float64) * (4 / dim)
        self.register_buffer("frequencies", (10_000.0**-exponents / unit).float(), persistent=False)

    def forward(self, centres: Int[Tensor, "*batch 2"]) -> Float[Tensor, "*batch dim"]:
        """Return the points of pixels (row, column), of length 1."""
        angles = (centres[..., None] * self.frequencies).flatten(-2)
        return torch.cat([angles.sin(), angles.cos()], dim=-1) * angles.shape[-1] ** -0.5


def present(centres: Centres) -> Bool[Tensor, "*batch views"]:
    """Return which views there are, see `Views`."""
    return centres[..., 0] >= 0


def drawn_pixels(
    frame: tuple[int, int], shape: tuple[int, ...], generator: torch.Generator
) -> Int[Tensor, "*shape 2"]:
    """Draw pixels (row, column) of a frame uniformly, on the device of the generator."""
    height, width = frame
    place = generator.device
    chosen = torch.randint(height * width, shape, generator=generator, device=place)
    return torch.stack([chosen // width, chosen % width], dim=-1)


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(ReLU(x)))), both convolutions 3 x 3.

    Args:
        channels: Of x.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return the sum."""
        return x + self.second(F.relu(self.first(F.relu(x))))


@dataclass(frozen=True)
class CropCoding:
    """How crops become vectors, and vectors crops: an MLP or convolutions.

    The MLP has two hidden layers. Convolutions are seven, four of them in two residual blocks; the
    crop is halved twice. A place that is let in stands beside the flat pixels or features, and
    beside the vector that is decoded.

    Source: S2RM, Appendix D, E.1 (seven-layer CNN with residual layers, deconvolutions with
    residual layers; the baselines' take in the place).
    Differs: the MLP is ours: a tenth of the time at a better auto-encoding loss. Channels, strides,
    order and how the place comes in are drawn in figures that are lost; deconvolutions are
    repeated pixels and convolutions.

    Attributes:
        size: Height and width of a crop.
        channels: Of a crop.
        width: Of the MLP's hidden layers, or channels of the first convolutions and of the last
            ones of the decoder; twice as many in between.
        convolve: Whether there are convolutions.
        place: Width of the place that is let in; 0 for none.
    """

    size: int
    channels: int
    width: int
    convolve: bool
    place: int = 0

    def encoder(self, dim: int) -> "CropEncoder":
        """Make what turns crops into vectors of a width."""
        pixels, flat = self.size**2 * self.channels, nn.Flatten()
        if not self.convolve:
            return CropEncoder(flat, _layers(pixels + self.place, self.width, dim))
        width, small = self.width, (self.size + 3) // 4
        layers = (
            *(_conv(self.channels, width), nn.ReLU(), _conv(width, width, 2)),
            *(ResidualBlock(width), nn.ReLU(), _conv(width, 2 * width, 2)),
            *(ResidualBlock(2 * width), nn.ReLU()),
        )
        after = nn.Linear(2 * width * small**2 + self.place, dim)
        return CropEncoder(nn.Sequential(*layers, flat), after)

    def decoder(self, dim: int) -> "CropDecoder":
        """Make what turns vectors of a width into logits of crops."""
        shape = (self.channels, self.size, self.size)
        if not self.convolve:
            pixels = self.size**2 * self.channels
            before = _layers(dim + self.place, self.width, pixels)
            return CropDecoder(before, nn.Unflatten(1, shape))
        width, small, half = self.width, (self.size + 3) // 4, (self.size + 1) // 2
        layers = (
            *(nn.Unflatten(1, (2 * width, small, small)), nn.ReLU()),
            *(_conv(2 * width, 2 * width), ResidualBlock(2 * width), nn.ReLU()),
            *(nn.Upsample(half), _conv(2 * width, width), ResidualBlock(width), nn.ReLU()),
            *(nn.Upsample(self.size), _conv(width, width), nn.ReLU(), _conv(width, self.channels)),
        )
        before = nn.Linear(dim + self.place, 2 * width * small**2)
        return CropDecoder(before, nn.Sequential(*layers))


class CropEncoder(nn.Module):
    """Crops to vectors, see `CropCoding`.

    Args:
        features: Of the pixels, flat.
        layers: From features, and a place, to vectors.
    """

    def __init__(self, features: nn.Module, layers: nn.Module):
        super().__init__()
        self.features, self.layers = features, layers

    def forward(self, crops: Crops, places: Places | None = None) -> Vectors:
        """Return an encoding a crop."""
        features = self.features(rearrange(crops.flatten(0, -4), "b h w c -> b c h w"))
        return self.layers(_beside(features.unflatten(0, crops.shape[:-3]), places))


class CropDecoder(nn.Module):
    """Vectors to logits of crops, see `CropCoding`.

    Args:
        layers: From vectors, and a place.
        picture: From what comes out of them to a crop, channels first.
    """

    def __init__(self, layers: nn.Module, picture: nn.Module):
        super().__init__()
        self.layers, self.picture = layers, picture

    def forward(self, vectors: Vectors, places: Places | None = None) -> Crops:
        """Return the logits of a crop a vector."""
        features = self.layers(_beside(vectors, places).flatten(0, -2))
        crops = rearrange(self.picture(features), "b c h w -> b h w c")
        return crops.unflatten(0, vectors.shape[:-1])


def _conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, padding=1)


def _layers(before: int, width: int, after: int) -> nn.Sequential:
    hidden = (nn.Linear(before, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(width, after))


def _beside(vectors: Tensor, places: Places | None) -> Tensor:
    return vectors if places is None else torch.cat([vectors, places], dim=-1)


@dataclass(frozen=True, eq=False)
class LocalState(Generic[Core]):
    """The state of a model that sees crops.

    Attributes:
        core: Of its recurrent part.
        queries: (row, column) of the centres at which it sees, or is asked about, the next frame.
        generator: Source of centres, on the device of the model.
    """

    core: Core
    queries: Centres
    generator: torch.Generator


class Asked(NamedTuple):
    """What a model says where it will look next, at every instant, and what comes there.

    Attributes:
        logits: Of the pixels of each queried crop.
        truth: The crops, in [0, 1].
        queries: Their centres.
        seen: What it had seen the instant before; None where that is not known.
    """

    logits: Crops
    truth: Crops
    queries: Centres
    seen: Views | None = None


State = LocalState[Core]


class LocalWorld(nn.Module, ABC, Generic[Core]):
    """A world model whose eye sees ``views`` crops of each frame, at pixels drawn anew each time.

    It is a `rmr_gym.models.world.frames.WorldModel` of whole frames: where it looks is the model's
    own, drawn from the state's generator; ``decode`` asks it about a grid of crops and stitches
    the answers, ``losses`` ask about the places where it will look next. A model that sees no frame
    takes in its own answers there, cut at ``cut``. ``model.views`` can be lowered after training:
    so many of the crops are seen then, while all are asked for.

    Frames of several channels are of agents, whom the first channel marks: each is the centre of a
    view, where it is at that instant, and of a query, where it will be. They come in random order,
    at most as many as views; with fewer ``model.views``, so many are drawn anew at every instant
    that share what they see. A model that sees no frame looks at the whole one that it predicts.

    Source: S2RM, sections 2 and 6 (binary cross-entropy of queried crops), Appendix F.1.
    Differs: queries are the next inputs' centres, as in the paper's rollouts; crops are drawn anew
    whenever a sequence is used. Frames are stitched from as many crops as cover them (5 x 5 of
    11 x 11 in 48 x 48) where the paper takes 4 x 4 that do not.

    Args:
        geometry: How frames are seen.
        actions: Number of actions, which must be 0.

    Raises:
        RMRError: A world with actions.
    """

    ahead = 0
    """How many frames ahead it sees in `asked`."""

    def __init__(self, geometry: ViewGeometry, actions: int):
        super().__init__()
        if actions:
            raise RMRError(
                f"models of crops are for worlds without actions, got one with {actions}: record "
                "another world or choose another model"
            )
        self.geometry, self.views = geometry, geometry.views
        self.cut = world.CUT

    @property
    def parts(self) -> int:
        """Number of parts that `drop` can take out."""
        return 0

    def init_state(self, batch: int, generator: torch.Generator) -> State:
        """Return the state before the first frame; see `WorldModel.init_state`."""
        core = self.start(batch, generator)
        return LocalState(core, self.geometry.draw(batch, generator), generator)

    def step(self, state: State, observation: world.Frame | None, action: Tensor | None) -> State:
        """Look at a frame, or at what was predicted; see `WorldModel.step`."""
        places, of_agents = state.queries, self.geometry.of_agents
        if of_agents:
            if observation is None:
                observation = world.taken_in(self.decode(state).frame, self.cut)
            places = self.geometry.agents(observation, state.generator)
        if observation is None:
            crops = world.taken_in(self.logits(state.core, places).sigmoid(), self.cut)
        else:
            crops = self.geometry.look(observation, places)
        seen = Views(crops[:, : self.views], places[:, : self.views])
        queries = places if of_agents else self.geometry.draw(len(crops), state.generator)
        return LocalState(self.advance(state.core, seen), queries, state.generator)

    def decode(self, state: State) -> world.Prediction:
        """Return the predicted frame, stitched from a grid of crops; pixels are not grouped."""
        grid = self.geometry.grid().to(state.queries.device).expand(len(state.queries), -1, -1)
        crops = self.logits(state.core, grid).sigmoid()
        return world.Prediction(self.geometry.stitch(crops, grid))

    def asked(self, frames: world.Sequences, generator: torch.Generator) -> Asked:
        """Return what it predicts of each frame but the first, all being shown but the last.

        All crops are encoded at once, and all answers decoded; states are those that `step` makes.
        """
        batch, time = frames.shape[:2]
        core, first = self.start(batch, generator), self.ahead
        if self.geometry.of_agents:
            drawn = [self.geometry.agents(frame, generator) for frame in frames.unbind(1)]
        else:
            drawn = [self.geometry.draw(batch, generator) for _ in range(time)]
        centres = torch.stack(drawn, dim=1)
        crops = self.geometry.look(frames, centres)
        shown = slice(first, first + time - 1)
        views = Views(crops[:, shown, : self.views], centres[:, shown, : self.views])
        logits = self.answers(self.watch(core, views)[0], centres[:, 1:])
        return Asked(logits, crops[:, 1:], centres[:, 1:], views)

    def losses(
        self, frames: world.Sequences, actions: world.Played, generator: torch.Generator
    ) -> world.Losses:
        """Return the binary cross-entropy of the queried crops, summed over a crop's pixels."""
        logits, truth, queries, _ = self.asked(frames, generator)
        losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        there = present(queries)
        return (losses.sum(dim=(3, 4, 5)) * there).sum(dim=2) / there.sum(dim=2).clamp(min=1)

    @abstractmethod
    def start(self, batch: int, generator: torch.Generator) -> Core:
        """Return the core's state before the first frame."""

    @abstractmethod
    def watch(self, core: Core, views: Views) -> tuple[Any, Core]:
        """Return what is shown after the views of each instant, and the core's state at the end.

        Args:
            core: Before the first.
            views: What is seen at each instant [batch, time, views].
        """

    def shown(self, core: Core) -> Any:
        """Return what of a state is decoded: all of it, where a model does not say otherwise."""
        return core

    @abstractmethod
    def answers(self, shown: Any, centres: Centres) -> Crops:
        """Return the logits of the crops around some pixels of the next frame."""

    def advance(self, core: Core, views: Views) -> Core:
        """Return the core's state after some views."""
        return self.watch(core, Views(*(part[:, None] for part in views)))[1]

    def logits(self, core: Core, centres: Centres) -> Crops:
        """Return the logits of the crops around some pixels of the next frame."""
        return self.answers(self.shown(core), centres)
