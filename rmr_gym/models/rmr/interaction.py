"""The interaction network as a bottleneck: P that works on a few numbers an object."""

from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

STATE, OUTCOME = 6, 2
"""Numbers an object that go in (three positions) and that come out (the next position)."""


class InteractionNetwork(nn.Module):
    r"""Latents projected onto abstract inputs, one interaction network, and back.

    .. math:: o = W^{in} z, \quad e_i = \sum_{j \neq i} \phi_R([o_i, o_j]), \quad
              u = W^{out} \phi_O([o_i, e_i])

    Source: RMR, Appendix C; Battaglia et al. 2016, with its sizes: effects of 50, relations of four
    hidden layers of 150, objects of one hidden layer of 100.
    Differs: all pairs are related alike, so there is no relation attribute; no external force.

    Args:
        dim: Width of a slot's latent vector.
        state: Numbers an object that pass the bottleneck on the way in.
        outcome: Numbers an object that pass it on the way out.
    """

    def __init__(self, dim: int, state: int = STATE, outcome: int = OUTCOME):
        super().__init__()
        self.project = nn.Linear(dim, state)
        self.relation = _mlp(2 * state, 150, 150, 150, 150, 50)
        self.object = _mlp(state + 50, 100, outcome)
        self.expand = nn.Linear(outcome, dim)

    def forward(self, z: Float[Tensor, "batch slots dim"]) -> Float[Tensor, "batch slots dim"]:
        """Return the latents one time step later, without any skip."""
        state = self.project(z)
        slots = state.shape[1]
        receivers = state.unsqueeze(2).expand(-1, -1, slots, -1)
        senders = state.unsqueeze(1).expand(-1, slots, -1, -1)
        effects = self.relation(torch.cat([receivers, senders], dim=-1))
        others = rearrange(~torch.eye(slots, dtype=torch.bool, device=z.device), "i j -> i j 1")
        heard = (effects * others).sum(dim=2)
        return self.expand(self.object(torch.cat([state, heard], dim=-1)))


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
