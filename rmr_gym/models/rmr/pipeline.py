"""The one architecture that the abstract and the natural pipeline share: its parts and objectives.

Encoders map console memory (abstract) or frames (natural) to one latent vector a slot; decoders map
processed latents to RAM or to the next latents; objectives are the masked binary cross-entropy on
RAM and contrastive losses on latents. Initial weights are drawn from a generator that is passed in,
never from torch's global one.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.core.seeding import integer_seed
from rmr_gym.models.rmr.kernels.encoder import EncoderEngine, encoder_engine

Latents = Float[Tensor, "batch slots dim"]
Bits = Float[Tensor, "batch slots bits"]
Loss = Float[Tensor, ""]

TRUNKS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "anand2019": ((32, 8, 4), (64, 4, 2), (128, 4, 2), (64, 3, 1)),
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
}
"""Convolutions of each trunk as (channels, kernel, stride).

``anand2019`` is the trunk that the paper uses on 210 x 160 frames; it leaves a 9 x 6 map there but
a single cell of an 84 x 84 frame. ``nature`` (Mnih et al. 2015) leaves 7 x 7 of an 84 x 84 frame.
"""


class RamEncoder(nn.Module):
    r"""Linear encoder of RAM bits with a one-hot name of each slot.

    .. math:: z = W^f \bar{x} + U^f o + b^f, \quad o = I

    Source: RMR, Appendix F, eq. 1.
    Differs: none; since ``o`` is the identity, ``U^f o`` is stored as one vector a slot.
    """

    def __init__(self, slots: int = 128, bits: int = 8, dim: int = 64):
        super().__init__()
        self.content = nn.Linear(bits, dim)
        self.slot = nn.Parameter(torch.empty(slots, dim))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the slot vectors as a linear layer over [x, o] would."""
        draw_uniformly([self.slot], self.content.in_features + len(self.slot), generator)

    def forward(self, bits: Bits) -> Latents:
        """Encode bits in {0, 1}."""
        return self.content(bits) + self.slot


class SlotAffine(nn.Module):
    """An affine map of its own for every slot; the identity until it is set or trained."""

    def __init__(self, slots: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(slots, dim, dim))
        self.bias = nn.Parameter(torch.empty(slots, dim))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Become the identity."""
        self.weight.copy_(torch.eye(self.weight.shape[-1]))
        self.bias.zero_()

    def forward(self, z: Latents) -> Latents:
        """Map the latents of every slot."""
        return torch.einsum("bsi,sij->bsj", z, self.weight) + self.bias


class SlotCNN(nn.Module):
    """Convolutional encoder that gives every slot its own feature maps.

    Trunk, 1x1 convolution to ``slots * maps`` maps, flatten each slot's maps, one linear projection
    to ``dim`` shared by the slots.

    Source: RMR, section 5, natural pipeline; trunk of Anand et al. 2019.
    Differs: the mean training frame is removed and the result divided by the global deviation
    (decisions page, 11a); both are buffers, so they travel with the weights.

    Args:
        height: Rows of a frame, pixels.
        width: Columns of a frame, pixels.
        slots: Number of slots.
        maps: Feature maps a slot (the paper's m).
        dim: Width of a slot's latent vector.
        trunk: A name in `TRUNKS`.
        affine: Whether an affine map of its own for every slot follows (not in the paper).

    Raises:
        RMRError: If the trunk is unknown or the frame is too small for it.
    """

    mean_frame: Tensor
    deviation: Tensor
    precision = "fp32"
    """Arithmetic: "fp32", or "bf16" for operands of that kind and sums of float32, in training."""

    def __init__(
        self,
        height: int = 210,
        width: int = 160,
        *,
        slots: int = 128,
        maps: int = 1,
        dim: int = 64,
        trunk: str = "anand2019",
        affine: bool = False,
    ):
        super().__init__()
        self.slots = slots
        self.trunk, cells = _trunk(trunk, height, width)
        self.slot_maps = nn.Conv2d(TRUNKS[trunk][-1][0], slots * maps, 1)
        self.project = nn.Linear(maps * cells, dim)
        self.affine = SlotAffine(slots, dim) if affine else None
        self.register_buffer("mean_frame", torch.zeros(height, width))
        self.register_buffer("deviation", torch.ones(()))

    def standardise_by(self, mean_frame: Float[Tensor, "height width"], deviation: float) -> None:
        """Set the statistics that `forward` removes; both in gray levels, 0 to 255."""
        self.mean_frame.copy_(mean_frame)
        self.deviation.fill_(max(deviation, 1e-6))

    def forward(self, frames: UInt8[Tensor, "batch height width"]) -> Latents:
        """Encode gray frames (0 to 255)."""
        half = self.precision == "bf16"
        if half and frames.device.type == "cpu" and (engine := self._engine(frames)):
            parts = self.trunk, self.slot_maps, self.project
            weights = [weight for part in parts for weight in part.parameters()]
            strides = [layer.stride[0] for layer in self.trunk if isinstance(layer, nn.Conv2d)]
            statistics = self.mean_frame, self.deviation
            latents = engine.encode(frames, statistics, weights, strides, self.slots)
        else:
            with torch.autocast("cuda", torch.bfloat16, enabled=half and frames.is_cuda):
                latents = self._encoded(frames)
        return latents if self.affine is None else self.affine(latents)

    def _engine(self, frames: Tensor) -> EncoderEngine | None:
        fits = frames.shape[1:] == self.mean_frame.shape
        return encoder_engine() if fits and self.project.weight.dtype == torch.float32 else None

    def _encoded(self, frames: Tensor) -> Tensor:
        inputs = frames.to(self.mean_frame.dtype).sub_(self.mean_frame).div_(self.deviation)
        maps = self.slot_maps(self.trunk(inputs[:, None]))
        slots = rearrange(maps, "b (slots maps) h w -> b slots (maps h w)", slots=self.slots)
        return self.project(slots).to(inputs.dtype)


def _trunk(name: str, height: int, width: int) -> tuple[nn.Sequential, int]:
    """Return a trunk, and how many cells its maps of such frames have."""
    parts: list[nn.Module] = []
    channels, rows, columns = 1, height, width
    for out, kernel, stride in TRUNKS[known_name("trunk", name, TRUNKS)]:
        parts += [nn.Conv2d(channels, out, kernel, stride), nn.ReLU(inplace=True)]
        channels = out
        rows, columns = (rows - kernel) // stride + 1, (columns - kernel) // stride + 1
        if min(rows, columns) < 1:
            raise RMRError(
                f"a {height} x {width} frame is too small for the trunk {name!r}: use larger "
                "frames or another trunk"
            )
    return nn.Sequential(*parts), rows * columns


class RamLogits(NamedTuple):
    """What the RAM decoder says of the next state, as logits."""

    mask: Float[Tensor, "batch slots"]
    """Is the byte overwritten?"""
    bits: Bits
    """The bits that are written, where it is."""


class RamDecoder(nn.Module):
    r"""Linear heads for the mask of changed bytes and for their bits.

    .. math:: \mu = \sigma(W^\mu z' + b^\mu), \qquad \bar{y} = W^g z' + b^g

    Source: RMR, Appendix F, eq. 4 and 5.
    Differs: none here; `predicted_bits` joins mask and bits.
    """

    def __init__(self, dim: int = 64, bits: int = 8):
        super().__init__()
        self.mask = nn.Linear(dim, 1)
        self.bits = nn.Linear(dim, bits)

    def forward(self, z: Latents) -> RamLogits:
        """Decode the processed latents."""
        return RamLogits(self.mask(z)[..., 0], self.bits(z))


class LatentDecoder(nn.Linear):
    """One linear projection a slot onto the latents of the next frame.

    Source: RMR, section 5, natural pipeline. Differs: none.
    """

    def __init__(self, dim: int = 64):
        super().__init__(dim, dim)


ModuleType = TypeVar("ModuleType", bound=nn.Module)
Encoder = TypeVar("Encoder", bound=nn.Module)
P = TypeVar("P", bound=nn.Module)
Decoder = TypeVar("Decoder", bound=nn.Module)


class EncodeProcessDecode(nn.Module, Generic[Encoder, P, Decoder]):
    """``decoder(P(encoder(x), action))``; only encoder and decoder differ between the pipelines.

    The abstract and the natural pipelines of all worlds are of this class, and P moves over.

    Source: RMR, section 3, Figure 2.
    """

    encoder: Encoder
    processor: P
    decoder: Decoder

    def __init__(self, encoder: Encoder, processor: P, decoder: Decoder):
        super().__init__()
        self.encoder, self.processor, self.decoder = encoder, processor, decoder

    def forward(self, x: Tensor, action: Tensor | None = None) -> Any:
        """Predict the outcome of ``action`` (indices; None in a world without) in state ``x``."""
        return self.decoder(self.processor(self.encoder(x), action))


def torch_generator(seed: int) -> torch.Generator:
    """Return a CPU generator seeded with ``seed``."""
    return torch.Generator().manual_seed(seed)


def build(factory: Callable[[], ModuleType], generator: torch.Generator) -> ModuleType:
    """Construct a module and draw all its parameters from ``generator``.

    Linear layers are drawn uniformly in +-1/sqrt(fan_in) (torch's own default); convolutions are
    orthogonal with gain sqrt(2) and zero bias (Anand et al. 2019; decisions page, 11a). A module
    that has a method ``initialise(generator)`` draws its own parameters.

    Args:
        factory: Makes the module; what it draws from torch's global generator is put back.
        generator: Source of every initial weight.

    Returns:
        The module; equal generators give equal bytes.
    """
    with torch.random.fork_rng(devices=[]), single_precision():
        module = factory()
    for part in module.modules():
        _initialise(part, generator)
    return module


@contextmanager
def single_precision() -> Iterator[None]:
    """Let tensors be of 32-bit floats where no type is named, whatever the process has chosen."""
    chosen = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(chosen)


def build_seeded(factory: Callable[[], ModuleType], seed: int, stream: str) -> ModuleType:
    """Construct a module with initial weights from (seed, name of a stream); see `build`."""
    return build(factory, torch_generator(integer_seed(seed, stream)))


def draw_uniformly(parameters: Iterable[Tensor], inputs: int, generator: torch.Generator) -> None:
    """Draw parameters uniformly in +-1/sqrt(inputs), in place."""
    bound = inputs**-0.5
    for parameter in parameters:
        nn.init.uniform_(parameter, -bound, bound, generator)


def _initialise(part: nn.Module, generator: torch.Generator) -> None:
    if initialise := getattr(part, "initialise", None):
        initialise(generator)
    elif isinstance(part, nn.Linear):
        draw_uniformly(part.parameters(), part.in_features, generator)
    elif isinstance(part, nn.Conv2d):
        nn.init.orthogonal_(part.weight, gain=2**0.5, generator=generator)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def find_device(name: str) -> torch.device:
    """Return the device that ``name`` stands for, for instance "cpu", "cuda" or "cuda:1".

    Raises:
        RMRError: There is no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise RMRError(f"device {name!r} is not there: choose one of {', '.join(there)}") from error
    return device


def ram_loss(logits: RamLogits, bits: Bits, next_bits: Bits) -> Loss:
    """Cross-entropy of the mask, plus that of the bits of the bytes that truly changed.

    Source: RMR, Appendix B and F (teacher forcing: the true mask stands for the indicator).
    Differs: the two means are added with equal weight (the paper does not state the weights).

    Args:
        logits: The decoder's output.
        bits: State before the action, 0 or 1.
        next_bits: State after the action, 0 or 1.
    """
    changed = (bits != next_bits).any(-1)
    written = changed.to(bits.dtype)
    mask_loss = F.binary_cross_entropy_with_logits(logits.mask, written)
    of_bytes = F.binary_cross_entropy_with_logits(logits.bits, next_bits, reduction="none").mean(-1)
    return mask_loss + (of_bytes * written).sum() / written.sum().clamp(min=1)


def predicted_bits(logits: RamLogits, bits: Bits) -> Bool[Tensor, "batch slots bits"]:
    """Write the predicted bits where the mask says so, copy the input elsewhere.

    Source: RMR, Appendix F, eq. 5.
    Differs: read literally, eq. 5 zeroes the bytes outside the mask; here they keep their
    value, without which no copy would ever be predicted (decisions page, 8).
    """
    overwrite = (logits.mask > 0)[..., None]
    return torch.where(overwrite, logits.bits > 0, bits > 0.5)


class ContrastiveTerms(NamedTuple):
    """A contrastive loss and the energies that show collapse (means over the batch)."""

    loss: Loss
    positive_energy: Loss
    negative_energy: Loss


def energy(first: Latents, second: Latents, sigma: float = 0.5) -> Float[Tensor, " batch"]:
    """Squared distance of two states: 0.5 / sigma^2, summed over dim, mean over the slots.

    Source: C-SWM (Kipf et al. 2020), eq. 4, scaled as its code does.
    """
    return 0.5 / sigma**2 * (first - second).square().sum(-1).mean(-1)


def hinge_loss(
    predicted: Latents,
    current: Latents,
    following: Latents,
    permutation: Int[Tensor, " batch"],
    *,
    sigma: float = 0.5,
    hinge: float = 1.0,
    negatives: str = "paper",
) -> ContrastiveTerms:
    """The contrastive hinge of C-SWM.

    Source: C-SWM, eq. 5; RMR, section 5 ("exactly the same ... loss").
    Differs: the permutation has no fixed points.

    Args:
        predicted: g(P(f(x), a)).
        current: f(x).
        following: f(y), the latents of the next frame.
        permutation: Negative partner of each element of the batch.
        sigma: Width of the energy.
        hinge: Margin of the negative term.
        negatives: ``"paper"`` (predicted against permuted next state) or ``"code"`` (current
            against permuted current state, as the published code has it).
    """
    positive = energy(predicted, following, sigma).mean()
    if negatives == "paper":
        negative = energy(predicted, following[permutation], sigma)
    else:
        negative = energy(current, current[permutation], sigma)
    loss = positive + torch.relu(hinge - negative).mean()
    return ContrastiveTerms(loss, positive.detach(), negative.mean().detach())


def info_nce_loss(
    predicted: Latents, following: Latents, *, temperature: float = 0.02, sigma: float = 0.5
) -> ContrastiveTerms:
    """Cross-entropy over the cosine similarities of all flattened predictions and next states.

    Gradients flow through both sides. Meant for batches of distinct frames of one episode, where
    telling frames apart needs the moving parts and not the scene.

    Source: van den Oord et al. 2018, eq. 4, on the flattened latent.
    Differs: the similarity is a cosine with a temperature.

    Args:
        predicted: g(P(f(x), a)).
        following: f(y).
        temperature: Divides the similarities.
        sigma: Only for the reported energies.
    """
    left, right = (F.normalize(latents.flatten(1), dim=-1) for latents in (predicted, following))
    similarity = left @ right.T / temperature
    own = torch.arange(len(similarity), device=similarity.device)
    loss = F.cross_entropy(similarity, own)
    with torch.no_grad():
        positive = energy(predicted, following, sigma).mean()
        negative = energy(predicted, following.roll(1, 0), sigma).mean()
    return ContrastiveTerms(loss, positive, negative)
