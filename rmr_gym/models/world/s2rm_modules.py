"""Recurrent modules that live at places of a sphere and interact with what is near them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError
from rmr_gym.models.world.rims_dynamics import BlockGRU, blockwise
from rmr_gym.models.world.s2rm_attention import (
    AttentionSizes,
    Kernel,
    KernelAttention,
    SpherePositions,
)

Memory = Float[Tensor, "batch slots *memory"]
Hidden = Float[Tensor, "batch slots dim"]


@runtime_checkable
class ModuleDynamics(Protocol):
    """What a module does by itself; all modules in one product, each with weights of its own."""

    def start(self, batch: int) -> Memory:
        """Return what the modules remember before the first step."""
        ...

    def shown(self, memory: Memory) -> Hidden:
        """Return what the modules show of what they remember."""
        ...

    def __call__(self, taken: Hidden, aggregated: Hidden, memory: Memory) -> Memory:
        """Return what they remember after a step.

        Args:
            taken: u, what each took from the input.
            aggregated: h-bar, what it has of itself and of those near it.
            memory: What it remembers.
        """
        ...


class GRUModules(nn.Module):
    """A GRU for each module, whose state before the step is the aggregated one.

    Source: S2RM, eq. 4, S2GRU. Differs: none.

    Args:
        modules: Number M (slots).
        units: Width of their states and of what they take in.
    """

    def __init__(self, modules: int, units: int):
        super().__init__()
        self.gru = BlockGRU(modules, units, units)

    def start(self, batch: int) -> Memory:
        """Return states of 0."""
        modules, units, _ = self.gru.hidden_weight.shape
        return self.gru.hidden_weight.new_zeros(batch, modules, units)

    def shown(self, memory: Memory) -> Hidden:
        """Return the states."""
        return memory

    def forward(self, taken: Hidden, aggregated: Hidden, memory: Memory) -> Memory:
        """Return the next states; see `ModuleDynamics`."""
        drive = blockwise(taken, self.gru.input_weight)
        hidden, _ = self.gru(drive, aggregated, memory[..., :0])
        return hidden


class SpatialModules(nn.Module):
    r"""One step of the modules: input attention, attention among them, their own dynamics.

    .. math:: u = \mathrm{KMDPA}(h, e;\, Z(p, s)), \quad \bar h = \mathrm{KMDPA}(h, h;\, Z'),
              \quad h'_m = F_m(u_m, \bar h_m), \quad
              Z'_{mn} = Z(p_m, p_n) / \max(1, \textstyle\sum_n Z(p_m, p_n))

    The sums over members of a set are batched products; pairs hold single weights only, so that
    what grows with the square of the number of modules is small.

    Source: S2RM, section 4.
    Differs: the embeddings p begin at pixels drawn uniformly; the paper does not say where, and
    points drawn uniformly on the sphere would hardly see anything of the frame. The paper has Z in
    the place of Z'. A module is at distance 0 of itself, so that the rows of Z sum to more than 1
    wherever modules can hear each other; each step may then make states that agree larger, without
    bound over a long sequence.

    Args:
        dynamics: What a module does by itself.
        units: Width of what it shows, and of an encoded view.
        shape: Height and width of a frame.
        modules: Number M of modules.
        place: Width of their embeddings.
        kernel: Of places.
        attentions: Sizes of the input attention and of that among modules.
        unit: Pixels that count as 1 in a place.

    Raises:
        RMRError: No module.
    """

    present: Tensor

    def __init__(
        self,
        dynamics: ModuleDynamics,
        units: int,
        shape: tuple[int, int],
        modules: int,
        place: int,
        kernel: Kernel,
        attentions: tuple[AttentionSizes, AttentionSizes],
        unit: float = 1.0,
    ):
        super().__init__()
        if modules < 1:
            raise RMRError(f"expected 1 module or more, got {modules}")
        self.shape, self.kernel = shape, kernel
        self.dynamics = dynamics
        self.places = SpherePositions(place, unit)
        self.embedding = nn.Parameter(torch.empty(modules, place))
        self.input_attention = KernelAttention(units, units, attentions[0])
        self.cell_attention = KernelAttention(units, units, attentions[1])
        self.register_buffer("present", torch.ones(modules, dtype=torch.bool), persistent=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Put the modules at pixels drawn uniformly."""
        height, width = self.shape
        chosen = torch.randint(height * width, (len(self.embedding),), generator=generator)
        self.embedding.copy_(self.places(torch.stack([chosen // width, chosen % width], dim=-1)))

    @property
    def at(self) -> Float[Tensor, "slots place"]:
        """The modules' embeddings p, of length 1."""
        return F.normalize(self.embedding, dim=-1)

    def drop(self, modules: Sequence[int] = ()) -> None:
        """Take modules out: they are neither heard nor polled; ``drop()`` brings all back.

        Raises:
            RMRError: There is no such module, or none would be left.
        """
        gone, count = set(modules), len(self.present)
        if not gone <= set(range(count)) or len(gone) == count:
            raise RMRError(
                f"expected modules from 0 to {count - 1}, and not all of them, to drop, got "
                f"{sorted(gone)}"
            )
        self.present.fill_(True)
        self.present[sorted(gone)] = False

    def forward(
        self,
        memory: Memory,
        features: Float[Tensor, "batch views dim"],
        centres: Int[Tensor, "batch views 2"],
    ) -> Memory:
        """Return what the modules remember after some views, or none."""
        hidden, at = self.dynamics.shown(memory), self.at
        everything = self.present.new_ones(features.shape[1])
        near = self.kernel(at, self.places(centres))
        taken = self.input_attention(hidden, features, near, everything)
        neighbours = self.kernel(at, at) * self.present
        neighbours = neighbours / neighbours.sum(dim=-1, keepdim=True).clamp(min=1)
        heard = neighbours.expand(len(hidden), -1, -1)
        aggregated = self.cell_attention(hidden, hidden, heard, self.present)
        return self.dynamics(taken, aggregated, memory)

    def poll(
        self, memory: Memory, centres: Int[Tensor, "batch views 2"]
    ) -> Float[Tensor, "batch views dim"]:
        """Return the output attention, eq. 10: what modules near each query show, in sum."""
        near = self.kernel(self.places(centres), self.at) * self.present
        return near @ self.dynamics.shown(memory)

    @torch.no_grad()
    def enclaves(self) -> Float[Tensor, "slots height width"]:
        """Return Z(P(x), p) of each module at all pixels x: what it attends to.

        Source: S2RM, eq. 11, Figures 5 and 9. Differs: none.
        """
        rows, columns = (torch.arange(side, device=self.embedding.device) for side in self.shape)
        pixels = torch.cartesian_prod(rows, columns)
        return self.kernel(self.at, self.places(pixels)).unflatten(1, self.shape)

    @torch.no_grad()
    def interactions(self) -> Float[Tensor, "slots slots"]:
        """Return Z(p, p') of each pair of modules: which can hear which."""
        return self.kernel(self.at, self.at)
