"""Spatially structured recurrent modules and their baselines: all models of crops by name."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import check_counts, known_name
from rmr_gym.models.rmr.pipeline import draw_uniformly
from rmr_gym.models.world.crops import (
    Centres,
    Core,
    CropDecoder,
    CropEncoder,
    Crops,
    Kernel,
    LocalWorld,
    SpherePositions,
    Vectors,
    ViewGeometry,
    Views,
    drawn_pixels,
)
from rmr_gym.models.world.frames import (
    LSTMRecurrence,
    LSTMState,
    Recurrence,
    RIMsRecurrence,
    Vector,
)
from rmr_gym.models.world.rims import BlockGRU, RIMCell, RIMSizes, RIMState, blockwise, mark_dropped

TERMS = ("both", "local", "nonlocal")

Hidden = Float[Tensor, "batch slots dim"]
Rows = Float[Tensor, "batch slots rows row"]
Memory = Float[Tensor, "batch slots *memory"]
Heads = Float[Tensor, "*batch members heads dim"]


@dataclass(frozen=True)
class AttentionSizes:
    """Sizes of a kernel-modulated attention.

    Attributes:
        heads: Number of heads.
        keys: Width of queries and keys of a head.
        values: Width of values of a head.
        terms: "both", or for ablations "local" or "nonlocal" alone.

    Raises:
        RMRError: Numbers below 1, unknown terms.
    """

    heads: int
    keys: int
    values: int
    terms: str = "both"

    def __post_init__(self) -> None:
        known_name("terms of attention", self.terms, TERMS)
        check_counts(self)


class KeySet(NamedTuple):
    """A key set as an attention sees it; made by `KernelAttention.read`.

    Attributes:
        z: Its members.
        keys: Of each member and head; where content does not count, the values.
        values: Of each member and head.
    """

    z: Float[Tensor, "*batch j keys"]
    keys: Heads
    values: Float[Tensor, "*batch members heads values"]


class KernelAttention(nn.Module):
    r"""Attention of a query set to a key set whose weights are multiplied by a kernel (KMDPA).

    .. math:: \bar W_{ijk} = \mathrm{softmax}_j(\Theta^Q_k(y^i) \cdot \Theta^K_k(z^j)), \quad
              \bar y^i = \mathrm{merge}_k \sum_j Z_{ij} \bar W_{ijk} \Theta^V_k(z^j), \quad
              \tilde y^i = \sum_j Z_{ij} z^j, \\
              \hat y^i = G^i \tilde y^i + (1 - G^i) \bar y^i, \quad
              G^i = \sigma(\mathrm{MLP}(\bar y^i, \tilde y^i))

    over heads k. With terms "local", :math:`\bar W` is the same for all j; with "nonlocal", Z = 1
    and :math:`\hat y = \bar y`.

    Source: S2RM, eq. 6 to 9, Appendix C.1 and C.2.
    Differs: queries come from y and keys from z as in eq. 7 (Appendix C.1 has them the other way
    round); the weights of the values hold the kernel as in eq. 18 and 23 (eq. 8 leaves it out);
    eq. 8's :math:`\tilde y` sums z as in Appendix C. The heads' values, heads x values wide, are
    merged by a linear map so that the gate can weigh them against z. The gate's MLP has as many
    hidden units as z is wide, with ReLU. The paper does not say what is left of an attention when a
    term is disabled.

    Args:
        queries: Width of y.
        keys: Width of z and of the result.
        sizes: Of the attention.
    """

    def __init__(self, queries: int, keys: int, sizes: AttentionSizes):
        super().__init__()
        self.sizes = sizes
        self.value = nn.Linear(keys, sizes.heads * sizes.values, bias=False)
        self.merge = nn.Linear(sizes.heads * sizes.values, keys, bias=False)
        if sizes.terms != "local":
            self.query = nn.Linear(queries, sizes.heads * sizes.keys, bias=False)
            self.key = nn.Linear(keys, sizes.heads * sizes.keys, bias=False)
        if sizes.terms != "nonlocal":
            self.gate = nn.Sequential(
                nn.Linear(2 * keys, keys), nn.ReLU(), nn.Linear(keys, 1), nn.Sigmoid()
            )

    def forward(
        self,
        y: Float[Tensor, "batch i queries"],
        z: Float[Tensor, "batch j keys"],
        local: Float[Tensor, "batch i j"],
        present: Bool[Tensor, " j"],
    ) -> Float[Tensor, "batch i keys"]:
        """Return what each member of the query set takes from the key set.

        Args:
            y: The query set; it may be empty, and the key set too.
            z: The key set.
            local: Kernel of each pair.
            present: Which members of the key set there are.
        """
        return self.take(y, self.read(z), local, present)

    def read(self, z: Float[Tensor, "*batch j keys"]) -> KeySet:
        """Return what does not hang on the query set; many key sets are read in one product."""
        values = self._parted(self.value(z))
        keys = values if self.sizes.terms == "local" else self._parted(self.key(z))
        return KeySet(z, keys, values)

    def take(
        self,
        y: Float[Tensor, "batch i queries"],
        known: KeySet,
        local: Float[Tensor, "batch i j"],
        present: Bool[Tensor, " j"],
    ) -> Float[Tensor, "batch i keys"]:
        """Return what each member of the query set takes from a key set that was read."""
        local = local * present
        shares = self._shares(y, known.keys, present)
        if self.sizes.terms == "nonlocal":
            return self._far(shares, known.values)
        near, far = local @ known.z, self._far(shares * local[:, None], known.values)
        gate = self.gate(torch.cat([far, near], dim=-1))
        return torch.lerp(far, near, gate)

    def _parted(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.sizes.heads, -1))

    def _shares(self, y: Tensor, keys: Heads, present: Tensor) -> Float[Tensor, "batch heads i j"]:
        if self.sizes.terms == "local":
            return (present.to(y) / present.sum()).expand(len(y), self.sizes.heads, y.shape[1], -1)
        scores = torch.einsum("bihd,bjhd->bhij", self._parted(self.query(y)), keys)
        return scores.masked_fill(~present, -torch.inf).softmax(dim=-1)

    def _far(
        self, weights: Float[Tensor, "batch heads i j"], values: Tensor
    ) -> Float[Tensor, "batch i keys"]:
        return self.merge(torch.einsum("bhij,bjhv->bihv", weights, values).flatten(-2))


@dataclass(frozen=True)
class MemorySizes:
    """Sizes of a relational memory core; the defaults are those of S2RM's baseline.

    Attributes:
        slots: Rows of the memory.
        heads: Attention heads.
        head: Width of a head's values; a row is heads x head wide.
        keys: Width of a head's queries and keys.

    Raises:
        RMRError: Counts below 1.
    """

    slots: int = 1
    heads: int = 4
    head: int = 128
    keys: int = 128

    def __post_init__(self) -> None:
        check_counts(self)

    @property
    def row(self) -> int:
        """Width of a row."""
        return self.heads * self.head


@dataclass(frozen=True)
class S2RMSizes:
    """Sizes of all models of crops; the defaults are those of S2RM, Table 2.

    Source: S2RM, Table 2; the memory cores inside S2RMC are those of Table 3 (Starcraft2).
    Differs: what the paper does not give is ours: ``channels``, ``summary``, and the widths of RIMs
    that Table 2 leaves out. The values of our RIMs' input attention are 4 x 85 wide, not 400.

    Attributes:
        views: Crops of a frame.
        size: Height and width of a crop.
        channels: Of the first layers of the encoder and the last of the decoder.
        modules: Modules of S2RMs.
        units: Width of a module's state and of an encoded crop.
        place: Width d of the places on the sphere.
        unit: Pixels that count as 1 in a place.
        kernel: Of places.
        input_attention: From modules to encoded crops.
        cell_attention: Among modules.
        module_memory: Of a module of S2RMC.
        summary: Width of the sum of encoded crops that baselines take in, and of the states of the
            LSTM and of the time-travelling oracle.
        rims: Of the RIMs.
        memory: Of the relational memory core.

    Raises:
        RMRError: Counts below 1, places that cannot be, see `SpherePositions`.
    """

    views: int = 10
    size: int = 11
    channels: int = 32
    modules: int = 10
    units: int = 128
    place: int = 16
    unit: float = 1.0
    kernel: Kernel = field(default_factory=Kernel)
    input_attention: AttentionSizes = field(default_factory=lambda: AttentionSizes(2, 16, 128))
    cell_attention: AttentionSizes = field(default_factory=lambda: AttentionSizes(4, 16, 128))
    module_memory: MemorySizes = field(default_factory=lambda: MemorySizes(4, 4, 64, 64))
    summary: int = 512
    rims: RIMSizes = field(default_factory=lambda: RIMSizes(rims=6, active=5, units=85, keys=32))
    memory: MemorySizes = field(default_factory=MemorySizes)

    def __post_init__(self) -> None:
        check_counts(self)
        SpherePositions(self.place, self.unit)


def rowwise(
    rows: Rows, weight: Float[Tensor, "slots row out"]
) -> Float[Tensor, "batch slots rows out"]:
    """Map the rows of every module with a matrix of its own."""
    return torch.einsum("bmni,mio->bmno", rows, weight)


class MemoryCores(nn.Module):
    r"""Relational memory cores in blocks, one a module (slot), in one batched product.

    .. math:: A = \mathrm{heads}\; \mathrm{softmax}(M W^q ([M; x] W^k)^T / \sqrt{d}) [M; x] W^v, \\
              M_1 = \mathrm{LN}(M + A), \quad M_2 = \mathrm{LN}(M_1 + \mathrm{MLP}(M_1)), \\
              M' = \sigma(x W^i + \tanh(M) U^i) \tanh(M_2) + \sigma(x W^f + \tanh(M) U^f + 1) M

    x is a set of rows, each a linear map of one input.

    Source: Santoro et al. 2018, Relational recurrent neural networks, eq. 2 and section 3.4, as
    S2RM uses it (Table 2, Appendix E.3).
    Differs: layer norms have no weights; the gates take the sum of the rows of x.

    Args:
        modules: Number of cores.
        inputs: Width of each input.
        count: Number of inputs.
        sizes: Of a core.
    """

    def __init__(self, modules: int, inputs: int, count: int, sizes: MemorySizes):
        super().__init__()
        self.sizes, row = sizes, sizes.row
        keys = sizes.heads * sizes.keys
        self.taken = nn.Parameter(torch.empty(modules, count, inputs, row))
        self.query = nn.Parameter(torch.empty(modules, row, keys))
        self.key = nn.Parameter(torch.empty(modules, row, keys))
        self.value = nn.Parameter(torch.empty(modules, row, row))
        self.first = nn.Parameter(torch.empty(modules, row, row))
        self.second = nn.Parameter(torch.empty(modules, row, row))
        self.input_gates = nn.Parameter(torch.empty(modules, row, 2 * row))
        self.memory_gates = nn.Parameter(torch.empty(modules, row, 2 * row))
        self.biases = nn.Parameter(torch.empty(modules, 1, 4 * row))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights uniformly in +-1/sqrt(inputs of the map); biases are 0."""
        for parameter in self.parameters():
            draw_uniformly([parameter], parameter.shape[-2], generator)
        nn.init.zeros_(self.biases)

    def start(self, batch: int) -> Rows:
        """Return memories whose rows are those of an identity matrix."""
        sizes = self.sizes
        identity = torch.eye(sizes.slots, sizes.row).to(self.query)
        return identity.expand(batch, len(self.query), -1, -1)

    def forward(self, inputs: Float[Tensor, "batch slots inputs width"], memory: Rows) -> Rows:
        """Return the next memories.

        Args:
            inputs: One row an input.
            memory: Before.
        """
        x = torch.einsum("bmei,meif->bmef", inputs, self.taken)
        rows = torch.cat([memory, x], dim=2)
        attended = self._attend(memory, rows)
        row = self.sizes.row
        first, second, gates = self.biases.split([row, row, 2 * row], dim=-1)
        mixed = F.layer_norm(memory + attended, (row,))
        inner = (rowwise(mixed, self.first) + first).relu()
        mixed = F.layer_norm(mixed + (rowwise(inner, self.second) + second).relu(), (row,))
        from_input = rowwise(x.sum(dim=2, keepdim=True), self.input_gates)
        gate = from_input + rowwise(memory.tanh(), self.memory_gates) + gates
        take, keep = gate.chunk(2, dim=-1)
        return take.sigmoid() * mixed.tanh() + (keep + 1).sigmoid() * memory

    def _attend(self, memory: Rows, rows: Float[Tensor, "batch slots all row"]) -> Rows:
        queries, keys, values = (
            rearrange(rowwise(part, weight), "b m n (h d) -> b m h n d", h=self.sizes.heads)
            for part, weight in ((memory, self.query), (rows, self.key), (rows, self.value))
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return rearrange(mixed, "b m h n d -> b m n (h d)")


class GRUModules(nn.Module):
    """A GRU for each module, whose state before the step is the aggregated one.

    Source: S2RM, eq. 4, S2GRU. Differs: none.

    Args:
        sizes: Of the model; M modules (slots) show and take in vectors of ``units``.
    """

    def __init__(self, sizes: S2RMSizes):
        super().__init__()
        self.gru = BlockGRU(sizes.modules, sizes.units, sizes.units)

    def start(self, batch: int) -> Hidden:
        """Return states of 0."""
        modules, units, _ = self.gru.hidden_weight.shape
        return self.gru.hidden_weight.new_zeros(batch, modules, units)

    def shown(self, memory: Hidden) -> Hidden:
        """Return the states."""
        return memory

    def forward(self, taken: Hidden, aggregated: Hidden, memory: Hidden) -> Hidden:
        """Return the next states.

        Args:
            taken: u, what each took from the input.
            aggregated: h-bar, what it has of itself and of those near it.
            memory: The states, which the aggregated ones replace.
        """
        drive = blockwise(taken, self.gru.input_weight)
        hidden, _ = self.gru(drive, aggregated, memory[..., :0])
        return hidden


class MemoryModules(nn.Module):
    """A relational memory core for each module; what it shows is a linear map of its memory.

    Source: S2RM, Appendix E.3: [M; x] becomes [M; x, h-bar]. Differs: see `MemoryCores`.

    Args:
        sizes: Of the model; M modules (slots) show and take in vectors of ``units``.
    """

    def __init__(self, sizes: S2RMSizes):
        super().__init__()
        core = sizes.module_memory
        self.cores = MemoryCores(sizes.modules, sizes.units, 2, core)
        self.message = nn.Parameter(torch.empty(sizes.modules, core.slots * core.row, sizes.units))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the maps from memories to messages."""
        draw_uniformly([self.message], self.message.shape[1], generator)

    def start(self, batch: int) -> Rows:
        """Return the memories before the first step."""
        return self.cores.start(batch)

    def shown(self, memory: Rows) -> Hidden:
        """Return the messages."""
        return torch.einsum("bmi,mio->bmo", memory.flatten(2), self.message)

    def forward(self, taken: Hidden, aggregated: Hidden, memory: Rows) -> Rows:
        """Return the next memories; see `GRUModules`."""
        return self.cores(torch.stack([taken, aggregated], dim=2), memory)


ModuleDynamics = GRUModules | MemoryModules
"""What a module does by itself; all modules in one product, each with weights of its own."""


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
        shape: Height and width of a frame.
        sizes: Of the model.
        dynamics: What a module does by itself.
    """

    present: Tensor

    def __init__(self, shape: tuple[int, int], sizes: S2RMSizes, dynamics: ModuleDynamics):
        super().__init__()
        self.shape, self.kernel, units = shape, sizes.kernel, sizes.units
        self.dynamics = dynamics
        self.places = SpherePositions(sizes.place, sizes.unit)
        self.embedding = nn.Parameter(torch.empty(sizes.modules, sizes.place))
        self.input_attention = KernelAttention(units, units, sizes.input_attention)
        self.cell_attention = KernelAttention(units, units, sizes.cell_attention)
        self.register_buffer(
            "present", torch.ones(sizes.modules, dtype=torch.bool), persistent=False
        )

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Put the modules at pixels drawn uniformly."""
        pixels = drawn_pixels(self.shape, (len(self.embedding),), generator)
        self.embedding.copy_(self.places(pixels))

    @property
    def at(self) -> Float[Tensor, "slots place"]:
        """The modules' embeddings p, of length 1."""
        return F.normalize(self.embedding, dim=-1)

    def drop(self, modules: Sequence[int] = ()) -> None:
        """Take modules out: they are neither heard nor polled; ``drop()`` brings all back.

        Raises:
            RMRError: There is no such module, or none would be left.
        """
        mark_dropped(self.present, modules, "modules")

    def forward(self, memory: Memory, features: Vectors, centres: Centres) -> Memory:
        """Return what the modules remember after some views, or none."""
        (memory,) = self.steps(memory, features[:, None], centres[:, None])
        return memory

    def steps(
        self,
        memory: Memory,
        features: Float[Tensor, "batch time views dim"],
        centres: Int[Tensor, "batch time views 2"],
    ) -> Iterator[Memory]:
        """Give what the modules remember after the views of each instant.

        What does not hang on their states is computed for all instants at once.
        """
        at, everything = self.at, self.present.new_ones(features.shape[2])
        near = self.kernel(at, self.places(centres))
        known = self.input_attention.read(features)
        neighbours = self.kernel(at, at) * self.present
        neighbours = neighbours / neighbours.sum(dim=-1, keepdim=True).clamp(min=1)
        neighbours = neighbours.expand(len(features), -1, -1)
        for now in zip(near.unbind(1), *(part.unbind(1) for part in known), strict=True):
            hidden, given = self.dynamics.shown(memory), KeySet(*now[1:])
            taken = self.input_attention.take(hidden, given, now[0], everything)
            aggregated = self.cell_attention(hidden, hidden, neighbours, self.present)
            memory = self.dynamics(taken, aggregated, memory)
            yield memory

    def poll(self, shown: Float[Tensor, "*batch slots dim"], centres: Centres) -> Vectors:
        """Return the output attention, eq. 10: what modules near each query show, in sum."""
        return (self.kernel(self.places(centres), self.at) * self.present) @ shown

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
        make_dynamics: Makes what a module does by itself.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        sizes: S2RMSizes,
        actions: int = 0,
        make_dynamics: Callable[[S2RMSizes], ModuleDynamics] = GRUModules,
    ):
        super().__init__(ViewGeometry(*shape, sizes.views, sizes.size), actions)
        self.encoder = CropEncoder(sizes.size, shape[2], sizes.channels, sizes.units)
        self.spatial = SpatialModules(shape[:2], sizes, make_dynamics(sizes))
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

    def logits(self, core: Tensor, centres: Centres) -> Crops:
        """Return the logits of the crops around some pixels of the next frame."""
        return self.decoder(self.spatial.poll(self.spatial.dynamics.shown(core), centres))

    def predicted(self, core: Tensor, views: Views, centres: Centres) -> Crops:
        """Return the logits of the crops around pixels of the frame after each of some views."""
        steps = self.spatial.steps(core, self.encoder(views.crops), views.centres)
        shown = torch.stack([self.spatial.dynamics.shown(memory) for memory in steps], dim=1)
        return self.decoder(self.spatial.poll(shown, centres))


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
        return self.take(core, self.summary(views))

    def logits(self, core: Core, centres: Centres) -> Crops:
        """Return the logits of the crops around some pixels of the next frame."""
        return self.answers(self.shown(core), centres)

    def predicted(self, core: Core, views: Views, centres: Centres) -> Crops:
        """Return the logits of the crops around pixels of the frame after each of some views."""
        return self.answers(self.run(core, self.summary(views)), centres)

    def summary(self, views: Views) -> Float[Tensor, "*batch dim"]:
        """Return r, the sum of the encoded crops."""
        return self.encoder(views.crops, self.places(views.centres)).sum(dim=-2)

    def answers(self, shown: Float[Tensor, "*batch dim"], centres: Centres) -> Crops:
        """Return the logits of crops that are decoded from what a network shows."""
        hidden = shown[..., None, :].expand(*centres.shape[:-1], -1)
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
        super().__init__(shape, sizes, actions, sizes.summary)
        self.lstm = nn.LSTM(sizes.summary, sizes.summary, batch_first=True)


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

    It has no memory and no dynamics; it shows what encoder, sum and decoder can do. `losses` and
    `asked` let it see the future. ``decode`` and simulations have none to see, and get what it
    makes of the frame that it saw last.

    Source: S2RM, Appendix D: h_{t+1} = F(r_{t+1}) with a two-layer MLP F.
    Differs: see `Aggregated`; ReLU between the layers, tanh after them, as a recurrent state has.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
    """

    ahead = 1

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0):
        super().__init__(shape, sizes, actions, sizes.summary)
        self.first = nn.Linear(sizes.summary, sizes.summary)
        self.second = nn.Linear(sizes.summary, sizes.summary)

    def start(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return a state of 0; nothing is drawn."""
        del generator
        return self.second.bias.new_zeros(batch, self.second.out_features)

    def take(self, core: Tensor, vector: Tensor) -> Tensor:
        """Return what it makes of a sum of encoded crops, whatever came before."""
        del core
        return self.second(self.first(vector).relu()).tanh()

    def shown(self, core: Tensor) -> Vector:
        """Return the state."""
        return core

    def run(self, core: Tensor, vectors: Tensor) -> Tensor:
        """Return what it makes of each sum of encoded crops."""
        return self.take(core, vectors)


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
