"""Spatially structured recurrent modules and their baselines: all models of crops by name."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import Checked
from rmr_gym.models.world import crops, frames
from rmr_gym.models.world.rims import BlockGRU, RIMCell, RIMSizes, RIMState, blockwise, mark_dropped

Hidden = Float[Tensor, "batch slots dim"]
Rows = Float[Tensor, "batch rows row"]
Heads = Float[Tensor, "*batch members heads dim"]
Queries = Float[Tensor, "batch i queries"]
Keys = Float[Tensor, "batch j keys"]
Kernels = Float[Tensor, "batch i j"]
"""Kernel of each pair."""
Present = Bool[Tensor, "*batch j"]
Taken = Float[Tensor, "batch i keys"]


@dataclass(frozen=True)
class AttentionSizes(Checked):
    """Sizes of a kernel-modulated attention.

    Attributes:
        heads: Number of heads.
        keys: Width of queries and keys of a head.
        values: Width of values of a head.
        terms: "both", or for ablations "local" or "nonlocal" alone.

    Raises:
        RMRError: Numbers below 1, unknown terms.
    """

    choices: ClassVar = {"terms": ("terms of attention", ("both", "local", "nonlocal"))}

    heads: int
    keys: int
    values: int
    terms: str = "both"


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

    def forward(self, y: Queries, z: Keys, local: Kernels, present: Present) -> Taken:
        """Return what each member of the query set takes from the key set.

        Args:
            y: The query set; it may be empty, and the key set too.
            z: The key set.
            local: Kernel of each pair.
            present: Which members of the key set there are, for all query sets or for each.
        """
        return self.take(y, self.read(z), local, present)

    def read(self, z: Float[Tensor, "*batch j keys"]) -> KeySet:
        """Return what does not hang on the query set; many key sets are read in one product."""
        values = self._parted(self.value(z))
        keys = values if self.sizes.terms == "local" else self._parted(self.key(z))
        return KeySet(z, keys, values)

    def take(self, y: Queries, known: KeySet, local: Kernels, present: Present) -> Taken:
        """Return what each member of the query set takes from a key set that was read."""
        present = present if present.ndim > 1 else present[None]
        local = local * present[:, None]
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
            equal = present.to(y) / present.sum(dim=-1, keepdim=True).clamp(min=1)
            return equal[:, None, None].expand(len(y), self.sizes.heads, y.shape[1], -1)
        scores = torch.einsum("bihd,bjhd->bhij", self._parted(self.query(y)), keys)
        least = torch.finfo(scores.dtype).min  # no member at all: finite all the same
        return scores.masked_fill(~present[:, None, None], least).softmax(dim=-1)

    def _far(self, weights: Float[Tensor, "batch heads i j"], values: Tensor) -> Taken:
        return self.merge(torch.einsum("bhij,bjhv->bihv", weights, values).flatten(-2))


@dataclass(frozen=True)
class MemorySizes(Checked):
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

    @property
    def row(self) -> int:
        """Width of a row."""
        return self.heads * self.head


@dataclass(frozen=True)
class S2RMSizes(Checked):
    """Sizes of all models of crops; the defaults are those of S2RM, Table 2.

    Source: S2RM, Table 2.
    Differs: what the paper does not give is ours: ``hidden``, ``channels``, ``summary``, and the
    widths of RIMs that Table 2 leaves out. So is the coder "mlp". The values of our RIMs' input
    attention are 4 x 85 wide, not 400.

    Attributes:
        views: Crops of a frame.
        size: Height and width of a crop.
        coder: Of crops: "mlp", or "conv", the paper's kind; see `CropCoding`.
        hidden: Width of "mlp".
        channels: Width of "conv".
        modules: Modules of S2RMs.
        units: Width of a module's state and of an encoded crop.
        place: Width d of the places on the sphere.
        unit: Pixels that count as 1 in a place.
        kernel: Of places.
        input_attention: From modules to encoded crops.
        cell_attention: Among modules.
        summary: Width of the sum of encoded crops that baselines take in, and of the states of the
            LSTM and of the time-travelling oracle.
        rims: Of the RIMs.
        memory: Of the relational memory core.

    Raises:
        RMRError: Counts below 1, an unknown coder, places that cannot be, see `SpherePositions`.
    """

    choices: ClassVar = {"coder": ("coder of crops", ("mlp", "conv"))}

    views: int = 10
    size: int = 11
    coder: str = "mlp"
    hidden: int = 256
    channels: int = 32
    modules: int = 10
    units: int = 128
    place: int = 16
    unit: float = 1.0
    kernel: crops.Kernel = field(default_factory=crops.Kernel)
    input_attention: AttentionSizes = field(default_factory=lambda: AttentionSizes(2, 16, 128))
    cell_attention: AttentionSizes = field(default_factory=lambda: AttentionSizes(4, 16, 128))
    summary: int = 512
    rims: RIMSizes = field(default_factory=lambda: RIMSizes(rims=6, active=5, units=85, keys=32))
    memory: MemorySizes = field(default_factory=MemorySizes)

    def __post_init__(self) -> None:
        super().__post_init__()
        crops.SpherePositions(self.place, self.unit)

    def coding(self, channels: int, place: int = 0) -> crops.CropCoding:
        """Return how crops of some channels are coded, with a place of a width or none."""
        convolve = self.coder == "conv"
        width = self.channels if convolve else self.hidden
        return crops.CropCoding(self.size, channels, width, convolve, place)


class MemoryCore(nn.Module):
    r"""A relational memory core.

    .. math:: A = \mathrm{heads}\; \mathrm{softmax}(M W^q ([M; x] W^k)^T / \sqrt{d}) [M; x] W^v, \\
              M_1 = \mathrm{LN}(M + A), \quad M_2 = \mathrm{LN}(M_1 + \mathrm{MLP}(M_1)), \\
              M' = \sigma(x W^i + \tanh(M) U^i) \tanh(M_2) + \sigma(x W^f + \tanh(M) U^f + 1) M

    x is a row, a linear map of the input.

    Source: Santoro et al. 2018, Relational recurrent neural networks, eq. 2 and section 3.4, as
    S2RM uses it (Table 2). Differs: layer norms have no weights.

    Args:
        inputs: Width of the input.
        sizes: Of the core.
    """

    def __init__(self, inputs: int, sizes: MemorySizes):
        super().__init__()
        self.sizes, row, keys = sizes, sizes.row, sizes.heads * sizes.keys
        self.taken = nn.Linear(inputs, row, bias=False)
        self.query, self.key = nn.Linear(row, keys, bias=False), nn.Linear(row, keys, bias=False)
        self.value = nn.Linear(row, row, bias=False)
        self.mlp = nn.Sequential(nn.Linear(row, row), nn.ReLU(), nn.Linear(row, row), nn.ReLU())
        self.input_gates = nn.Linear(row, 2 * row)
        self.memory_gates = nn.Linear(row, 2 * row, bias=False)

    def start(self, batch: int) -> Rows:
        """Return memories whose rows are those of an identity matrix."""
        identity = torch.eye(self.sizes.slots, self.sizes.row).to(self.query.weight)
        return identity.expand(batch, -1, -1)

    def forward(self, inputs: frames.Vector, memory: Rows) -> Rows:
        """Return the next memories."""
        x = self.taken(inputs)[:, None]
        rows, width = torch.cat([memory, x], dim=1), (self.sizes.row,)
        queries, keys, values = (
            rearrange(part, "b n (h d) -> b h n d", h=self.sizes.heads)
            for part in (self.query(memory), self.key(rows), self.value(rows))
        )
        attended = F.scaled_dot_product_attention(queries, keys, values)
        mixed = F.layer_norm(memory + rearrange(attended, "b h n d -> b n (h d)"), width)
        mixed = F.layer_norm(mixed + self.mlp(mixed), width)
        take, keep = (self.input_gates(x) + self.memory_gates(memory.tanh())).chunk(2, dim=-1)
        return take.sigmoid() * mixed.tanh() + (keep + 1).sigmoid() * memory


class SpatialModules(nn.Module):
    r"""One step of the modules: input attention, attention among them, a GRU each.

    .. math:: u = \mathrm{KMDPA}(h, e;\, Z(p, s)), \quad \bar h = \mathrm{KMDPA}(h, h;\, Z'),
              \quad h'_m = \mathrm{GRU}_m(u_m, \bar h_m), \quad
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
    """

    present: Tensor

    def __init__(self, shape: tuple[int, int], sizes: S2RMSizes):
        super().__init__()
        self.shape, self.kernel, units = shape, sizes.kernel, sizes.units
        self.gru = BlockGRU(sizes.modules, units, units)
        self.places = crops.SpherePositions(sizes.place, sizes.unit)
        self.embedding = nn.Parameter(torch.empty(sizes.modules, sizes.place))
        self.input_attention = KernelAttention(units, units, sizes.input_attention)
        self.cell_attention = KernelAttention(units, units, sizes.cell_attention)
        self.register_buffer("present", torch.ones(sizes.modules).bool(), persistent=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Put the modules at pixels drawn uniformly."""
        pixels = crops.drawn_pixels(self.shape, (len(self.embedding),), generator)
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

    def start(self, batch: int) -> Hidden:
        """Return states of 0."""
        return self.embedding.new_zeros(batch, len(self.embedding), self.gru.hidden_weight.shape[1])

    def forward(
        self, hidden: Hidden, features: crops.Vectors, centres: crops.Centres
    ) -> Iterator[Hidden]:
        """Give the modules' states after the views, or none, of each instant.

        What does not hang on their states is computed for all instants at once.
        """
        at, there = self.at, crops.present(centres)
        near = self.kernel(at, self.places(centres))
        known = self.input_attention.read(features)
        neighbours = self.kernel(at, at) * self.present
        neighbours = neighbours / neighbours.sum(dim=-1, keepdim=True).clamp(min=1)
        neighbours = neighbours.expand(len(features), -1, -1)
        for now in zip(*(part.unbind(1) for part in (near, there, *known)), strict=True):
            taken = self.input_attention.take(hidden, KeySet(*now[2:]), *now[:2])
            aggregated = self.cell_attention(hidden, hidden, neighbours, self.present)
            drive = blockwise(taken, self.gru.input_weight)
            hidden, _ = self.gru(drive, aggregated, hidden[..., :0])
            yield hidden

    def poll(
        self, hidden: Float[Tensor, "*batch slots dim"], centres: crops.Centres
    ) -> crops.Vectors:
        """Return the output attention, eq. 10: what modules near each query show, in sum."""
        return (self.kernel(self.places(centres), self.at) * self.present) @ hidden

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


class S2RM(crops.LocalWorld[Hidden]):
    """Spatially structured recurrent modules on crops.

    Only the kernel of their places tells encoder, modules and decoder where a crop is.
    ``model.spatial.enclaves()`` are the regions that the modules attend to.

    Source: S2RM, section 4. Differs: see `LocalWorld`, `SpatialModules`, `KernelAttention`,
    `SpherePositions`, `CropCoding`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0):
        super().__init__(crops.ViewGeometry(*shape, sizes.views, sizes.size), actions)
        coding = sizes.coding(shape[2])
        self.encoder, self.decoder = coding.encoder(sizes.units), coding.decoder(sizes.units)
        self.spatial = SpatialModules(shape[:2], sizes)

    @property
    def parts(self) -> int:
        """Number of modules."""
        return len(self.spatial.present)

    def drop(self, parts: Sequence[int] = ()) -> None:
        """Take modules out; see `SpatialModules.drop`."""
        self.spatial.drop(parts)

    def start(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return the modules' states before the first frame; nothing is drawn."""
        return self.spatial.start(batch)

    def watch(self, core: Hidden, views: crops.Views) -> tuple[Tensor, Hidden]:
        """Return the modules' states after the views of each instant, and at the end."""
        steps = self.spatial(core, self.encoder(views.crops), views.centres)
        states = torch.stack([*steps], dim=1)
        return states, states[:, -1]

    def answers(self, shown: Tensor, centres: crops.Centres) -> crops.Crops:
        """Return the logits of the crops around some pixels of the next frame."""
        return self.decoder(self.spatial.poll(shown, centres))


class Aggregated(crops.LocalWorld[crops.Core], frames.Recurrence[crops.Core]):
    r"""The scaffold of all baselines: encoded crops are summed, a network takes in their sum.

    .. math:: r_t = \sum_a E(O_t^a, s_t^a), \quad h_{t+1} = F(r_t, h_t), \quad
              \hat O^q_{t+1} = D(h_{t+1}, s^q)

    Source: S2RM, Appendix D, eq. 29 to 31. Differs: see `LocalWorld`, `CropCoding`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
        dim: Width of h.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int, dim: int):
        super().__init__(crops.ViewGeometry(*shape, sizes.views, sizes.size), actions)
        self.places = crops.SpherePositions(sizes.place, sizes.unit)
        coding = sizes.coding(shape[2], sizes.place)
        self.encoder, self.decoder = coding.encoder(sizes.summary), coding.decoder(dim)

    def watch(self, core: crops.Core, views: crops.Views) -> tuple[Tensor, crops.Core]:
        """Return what the network shows after r, the sum of the crops, of each instant."""
        encoded = self.encoder(views.crops, self.places(views.centres))
        there = crops.present(views.centres)[..., None]
        return self.run(core, (encoded * there).sum(dim=-2))

    def answers(self, shown: Tensor, centres: crops.Centres) -> crops.Crops:
        """Return the logits of the crops around some pixels of the next frame."""
        hidden = shown[..., None, :].expand(*centres.shape[:-1], -1)
        return self.decoder(hidden, self.places(centres))


class CropLSTM(frames.LSTMRecurrence, Aggregated[frames.LSTMState]):
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


class CropRIMs(frames.RIMsRecurrence, Aggregated[RIMState]):
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

    Source: S2RM, Appendix D. Differs: see `Aggregated` and `MemoryCore`.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which must be 0.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0):
        super().__init__(shape, sizes, actions, sizes.memory.slots * sizes.memory.row)
        self.core = MemoryCore(sizes.summary, sizes.memory)

    def start(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return the memory before the first frame; nothing is drawn."""
        return self.core.start(batch)

    def run(self, core: Tensor, vectors: frames.Vectors) -> tuple[Tensor, Tensor]:
        """Return the memory after each sum of encoded crops, as one vector, and the last."""
        shown = []
        for vector in vectors.unbind(1):
            core = self.core(vector, core)
            shown.append(self.shown(core))
        return torch.stack(shown, dim=1), core

    def shown(self, core: Tensor) -> frames.Vector:
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
        return self.second.bias.new_zeros(batch, self.second.out_features)

    def run(self, core: Tensor, vectors: frames.Vectors) -> tuple[Tensor, Tensor]:
        """Return what it makes of each sum of encoded crops, whatever came before."""
        made = self.second(self.first(vectors).relu()).tanh()
        return made, made[:, -1]


def ablated(
    shape: tuple[int, int, int], sizes: S2RMSizes, actions: int = 0, *, attention: str, terms: str
) -> S2RM:
    """Make an S2GRU one of whose attentions, a field of its sizes, has a single term."""
    left = replace(getattr(sizes, attention), terms=terms)
    return S2RM(shape, replace(sizes, **{attention: left}), actions)


S2RM_MODELS: dict[str, Callable[[tuple[int, int, int], S2RMSizes, int], crops.LocalWorld]] = {
    "s2gru": S2RM,
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
