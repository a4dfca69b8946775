"""Relational memory cores: one as a baseline, one in each module of S2RMC."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.models.world.s2rm_sizes import MemorySizes

Rows = Float[Tensor, "batch slots rows row"]


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

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights uniformly in +-1/sqrt(inputs of the map); biases are 0."""
        for parameter in self.parameters():
            bound = parameter.shape[-2] ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)
        self.biases.zero_()

    def start(self, batch: int) -> Rows:
        """Return memories whose rows are those of an identity matrix."""
        sizes = self.sizes
        identity = torch.eye(sizes.slots, sizes.row, device=self.query.device)
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
        inner = (_each(mixed, self.first) + first).relu()
        mixed = F.layer_norm(mixed + (_each(inner, self.second) + second).relu(), (row,))
        told = _each(x.sum(dim=2, keepdim=True), self.input_gates)
        gate = told + _each(memory.tanh(), self.memory_gates) + gates
        take, keep = gate.chunk(2, dim=-1)
        return take.sigmoid() * mixed.tanh() + (keep + 1).sigmoid() * memory

    def _attend(self, memory: Rows, rows: Float[Tensor, "batch slots all row"]) -> Rows:
        queries, keys, values = (
            rearrange(_each(part, weight), "b m n (h d) -> b m h n d", h=self.sizes.heads)
            for part, weight in ((memory, self.query), (rows, self.key), (rows, self.value))
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return rearrange(mixed, "b m h n d -> b m n (h d)")


class MemoryModules(nn.Module):
    """A relational memory core for each module; what it shows is a linear map of its memory.

    Source: S2RM, Appendix E.3: [M; x] becomes [M; x, h-bar]. Differs: see `MemoryCores`.

    Args:
        modules: Number M (slots).
        units: Width of what they show and take in.
        sizes: Of a core.
    """

    def __init__(self, modules: int, units: int, sizes: MemorySizes):
        super().__init__()
        self.cores = MemoryCores(modules, units, 2, sizes)
        self.message = nn.Parameter(torch.empty(modules, sizes.slots * sizes.row, units))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the maps from memories to messages."""
        bound = self.message.shape[1] ** -0.5
        self.message.uniform_(-bound, bound, generator=generator)

    def start(self, batch: int) -> Rows:
        """Return the memories before the first step."""
        return self.cores.start(batch)

    def shown(self, memory: Rows) -> Float[Tensor, "batch slots dim"]:
        """Return the messages."""
        return torch.einsum("bmi,mio->bmo", memory.flatten(2), self.message)

    def forward(
        self,
        taken: Float[Tensor, "batch slots dim"],
        aggregated: Float[Tensor, "batch slots dim"],
        memory: Rows,
    ) -> Rows:
        """Return the next memories; see `ModuleDynamics`."""
        return self.cores(torch.stack([taken, aggregated], dim=2), memory)


def _each(
    rows: Rows, weight: Float[Tensor, "slots row out"]
) -> Float[Tensor, "batch slots rows out"]:
    """Map the rows of every module with a matrix of its own."""
    return torch.einsum("bmni,mio->bmno", rows, weight)
