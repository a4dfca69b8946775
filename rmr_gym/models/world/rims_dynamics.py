"""Recurrent cells in blocks: an LSTM or a GRU for each RIM, all of them in one batched product."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


def blockwise(
    x: Float[Tensor, "batch slots dim_in"],
    weight: Float[Tensor, "slots dim_in dim_out"],
    bias: Float[Tensor, "slots dim_out"] | None = None,
) -> Float[Tensor, "batch slots dim_out"]:
    """Map every slot with a matrix, and a bias, of its own."""
    by_slot = x.transpose(0, 1)
    if bias is None:
        return torch.bmm(by_slot, weight).transpose(0, 1)
    return torch.baddbmm(bias[:, None], by_slot, weight).transpose(0, 1)


class BlockDynamics(nn.Module, ABC):
    """What LSTM and GRU in blocks have in common: weights, and the part that the input plays.

    The initial weights are uniform in +-1/sqrt(units), as torch's own.

    Args:
        rims: Number of cells (slots), each with weights of its own.
        values: Width of what each cell takes in.
        units: Width of each cell's state (dim).
    """

    gates = 0
    remembers = False
    """Whether a cell has a memory beside what it shows."""

    def __init__(self, rims: int, values: int, units: int):
        super().__init__()
        width = self.gates * units
        self.input_weight = nn.Parameter(torch.empty(rims, values, width))
        self.hidden_weight = nn.Parameter(torch.empty(rims, units, width))
        self.input_bias = nn.Parameter(torch.empty(rims, width))
        self.hidden_bias = nn.Parameter(torch.empty(rims, width))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights and biases."""
        bound = self.hidden_weight.shape[1] ** -0.5
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound, generator=generator)

    def drives(self, values: Float[Tensor, "*rest values"]) -> Float[Tensor, "*rest slots drive"]:
        """Return what each cell's gates get from a value, without biases."""
        return torch.einsum("...v,svg->...sg", values, self.input_weight)

    @abstractmethod
    def forward(
        self,
        drive: Float[Tensor, "batch slots drive"],
        hidden: Float[Tensor, "batch slots dim"],
        memory: Float[Tensor, "batch slots memory"],
    ) -> tuple[Float[Tensor, "batch slots dim"], Float[Tensor, "batch slots memory"]]:
        """Return every cell's next state and memory, as if all were active."""


class BlockLSTM(BlockDynamics):
    r"""An LSTM for each RIM.

    .. math:: [i, f, g, o] = W x + b + U h + b', \quad
              c' = \sigma(f) c + \sigma(i) \tanh(g), \quad h' = \sigma(o) \tanh(c')

    Source: RIMs, section 2.1 (Hochreiter and Schmidhuber 1997). Differs: none.
    """

    gates, remembers = 4, True

    def forward(
        self,
        drive: Float[Tensor, "batch slots drive"],
        hidden: Float[Tensor, "batch slots dim"],
        memory: Float[Tensor, "batch slots memory"],
    ) -> tuple[Float[Tensor, "batch slots dim"], Float[Tensor, "batch slots memory"]]:
        """Return every cell's next state and memory, as if all were active."""
        bias = self.input_bias + self.hidden_bias
        i, f, g, o = (blockwise(hidden, self.hidden_weight, bias) + drive).chunk(4, dim=-1)
        memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
        return o.sigmoid() * memory.tanh(), memory


class BlockGRU(BlockDynamics):
    r"""A GRU for each RIM; it has no memory beside its state.

    .. math:: r, z = \sigma(W x + b + U h + b'), \quad
              n = \tanh(W x + b + r (U h + b')), \quad h' = (1 - z) n + z h

    Source: RIMs, section 2.1 (Chung et al. 2015). Differs: none; the reset gate acts after the
    product, as in torch.
    """

    gates = 3

    def forward(
        self,
        drive: Float[Tensor, "batch slots drive"],
        hidden: Float[Tensor, "batch slots dim"],
        memory: Float[Tensor, "batch slots memory"],
    ) -> tuple[Float[Tensor, "batch slots dim"], Float[Tensor, "batch slots memory"]]:
        """Return every cell's next state, as if all were active, and the empty memory."""
        taken = (drive + self.input_bias).chunk(3, dim=-1)
        kept = blockwise(hidden, self.hidden_weight, self.hidden_bias).chunk(3, dim=-1)
        reset, update = ((a + b).sigmoid() for a, b in zip(taken[:2], kept[:2], strict=True))
        new = (taken[2] + reset * kept[2]).tanh()
        return torch.lerp(new, hidden, update), memory


DYNAMICS: dict[str, type[BlockDynamics]] = {"lstm": BlockLSTM, "gru": BlockGRU}
"""Dynamics of RIMs by name."""
