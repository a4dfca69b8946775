"""The two attentions of RIMs: what each reads from the input, and what it hears from the others."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.rims_dynamics import blockwise

INITIAL_DEVIATION = 0.01


class InputAttention(nn.Module):
    r"""Every RIM divides its attention between the elements of the input and a null element.

    .. math:: A_k = \mathrm{softmax}\left(h_k W^q_k\, [0; X W^e]^T / \sqrt{d}\right), \quad
              \text{in}_k = A_k\, [0; X W^v]

    Source: RIMs, section 2.3, eq. 4, Table 3.
    Differs: one head, as the paper has in its copying task; the keys and values of all elements
    are made by the same two maps, as in the paper (the authors' code has a pair of maps for each
    position); no dropout here. There are no biases, so key and value of the null element are 0.

    Args:
        rims: Number of RIMs (slots).
        elements: Width of an element of the input.
        units: Width of a RIM's state.
        keys: Width of queries and keys.
        values: Width of values.
    """

    def __init__(self, rims: int, elements: int, units: int, keys: int, values: int):
        super().__init__()
        self.query = nn.Parameter(torch.empty(rims, units, keys))
        self.key = nn.Parameter(torch.empty(elements, keys))
        self.value = nn.Parameter(torch.empty(elements, values))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all maps from a normal of deviation 0.01, as the authors' code does."""
        for parameter in self.parameters():
            parameter.normal_(0, INITIAL_DEVIATION, generator=generator)

    def forward(
        self,
        keys: Float[Tensor, "batch elements keys"],
        hidden: Float[Tensor, "batch slots dim"],
    ) -> tuple[Float[Tensor, "batch slots"], Float[Tensor, "batch slots elements"]]:
        """Return each RIM's attention on null, and on each element; together they are 1."""
        queries = blockwise(hidden, self.query)
        scores = queries @ keys.transpose(1, 2) * self.query.shape[-1] ** -0.5
        shares = torch.cat([torch.zeros_like(scores[..., :1]), scores], dim=-1).softmax(dim=-1)
        return shares[..., 0], shares[..., 1:]


class Heard(NamedTuple):
    """Who takes part in the communication.

    Attributes:
        active: RIMs that listen and learn from it.
        present: RIMs that can be heard.
    """

    active: Bool[Tensor, "batch slots"]
    present: Bool[Tensor, " slots"]


class Communication(nn.Module):
    r"""RIMs read from each other, themselves included, through attention with several heads.

    .. math:: m_k = \mathrm{concat}_{heads}\, \mathrm{softmax}(q_k K^T / \sqrt{d})\, V, \quad
              h_k \leftarrow h_k + \sigma(W^g m_k + b^g)
              \tanh(\mathrm{dropout}(W^o m_k + b^o))

    Queries, keys and values come from maps of each RIM's own, without biases; :math:`W^o` and
    :math:`W^g` are shared.

    Source: RIMs, section 2.4 and Appendix C.1, C.2; the gate is in the authors' code alone.
    Differs: keys and values come from the states as if all RIMs had been active, as in the code,
    not from the kept states of the inactive ones, as the paper's text has it. What is heard
    from an inactive RIM is not differentiated, as in the code.

    Args:
        rims: Number of RIMs (slots).
        units: Width of a RIM's state.
        heads: Number of heads.
        width: Of queries, keys and values of a head.
        dropout: Share of the message that is dropped in training.
    """

    def __init__(self, rims: int, units: int, heads: int, width: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.maps = nn.Parameter(torch.empty(rims, units, 3 * heads * width))
        self.message = nn.Linear(heads * width, units)
        self.gate = nn.Linear(heads * width, units)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the maps of the RIMs from a normal of deviation 0.01, as the authors' code does."""
        self.maps.normal_(0, INITIAL_DEVIATION, generator=generator)

    def forward(
        self, hidden: Float[Tensor, "batch slots dim"], heard: Heard, generator: torch.Generator
    ) -> Float[Tensor, "batch slots dim"]:
        """Return what every RIM's state would be after it has listened.

        Args:
            hidden: States after the RIMs' own dynamics, as if all were active.
            heard: Which of them listen and which can be heard.
            generator: Source of the dropout.
        """
        told = torch.where(heard.active[..., None], hidden, hidden.detach())
        queries, keys, values = rearrange(
            blockwise(told, self.maps), "b s (part h d) -> part b h s d", part=3, h=self.heads
        )
        there = heard.present.expand(hidden.shape[1], -1)
        mixed = F.scaled_dot_product_attention(queries, keys, values, there)
        mixed = rearrange(mixed, "b h s d -> b s (h d)")
        message = self.message(mixed)
        if self.training and self.dropout:
            message = dropout(message, self.dropout, generator)
        return hidden + self.gate(mixed).sigmoid() * message.tanh()


class ProcessorCommunication(nn.Module):
    r"""RIMs hear from each other what a processor P says.

    .. math:: m_k = P(A h)_k - A_k h_k, \quad
              h_k \leftarrow h_k + \sigma(W^g m_k + b^g)
              \tanh(\mathrm{dropout}(W^o m_k + b^o))

    with maps :math:`A_k` of each RIM's own. P may have been pretrained on the states of a world
    and stay frozen: RMR inside RIMs.

    Source: none; after RMR, section 5, and `Communication`, whose attention P replaces.
    Differs: P's skip is taken off. As there, what is heard from an inactive RIM is not
    differentiated, and RIMs that are not present are not heard.

    Args:
        rims: Number of RIMs (slots).
        units: Width of a RIM's state.
        sizes: Of P.
        dropout: Share of the message that is dropped in training.
    """

    def __init__(self, rims: int, units: int, sizes: ProcessorSizes, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.enter = nn.Parameter(torch.empty(rims, units, sizes.dim))
        self.processor = sizes.make()
        self.message = nn.Linear(sizes.dim, units)
        self.gate = nn.Linear(sizes.dim, units)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the maps into P as linear layers are drawn."""
        bound = self.enter.shape[1] ** -0.5
        self.enter.uniform_(-bound, bound, generator=generator)

    def forward(
        self, hidden: Float[Tensor, "batch slots dim"], heard: Heard, generator: torch.Generator
    ) -> Float[Tensor, "batch slots dim"]:
        """Return what every RIM's state would be after it has listened; see `Communication`."""
        told = torch.where(heard.active[..., None], hidden, hidden.detach())
        there = heard.present.nonzero()[:, 0]
        latents = blockwise(told, self.enter)[:, there]
        silence = latents.new_zeros(*hidden.shape[:2], latents.shape[-1])
        mixed = silence.index_copy(1, there, self.processor(latents) - latents)
        message = self.message(mixed)
        if self.training and self.dropout:
            message = dropout(message, self.dropout, generator)
        return hidden + self.gate(mixed).sigmoid() * message.tanh()


def dropout(
    x: Float[Tensor, "*shape"], share: float, generator: torch.Generator
) -> Float[Tensor, "*shape"]:
    """Set a share of the numbers to 0, drawn from the generator, and scale up the rest."""
    kept = torch.empty_like(x).bernoulli_(1 - share, generator=generator)
    return x * kept / (1 - share)
