"""What a group's representation becomes: the recurrent updates of R-NEM and of its baselines."""

from abc import ABC, abstractmethod

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.processors import ProcessorSizes

ACTION = 10
"""Width of the embedding of an action."""

Updated = tuple[
    Float[Tensor, "batch slots memory"],
    Float[Tensor, "batch slots dim"],
    Float[Tensor, "batch slots slots"],
]
"""The new memory, what the decoder is shown, and who attends to whom."""


class Update(nn.Module, ABC):
    """One step of the recurrence; the memory of a group is what is handed to the next step.

    Attributes:
        dim: Width of what the decoder is shown.
        memory: Width of the memory.
    """

    def __init__(self, dim: int, memory: int):
        super().__init__()
        self.dim, self.memory = dim, memory

    @abstractmethod
    def forward(
        self,
        memory: Float[Tensor, "batch slots memory"],
        seen: Float[Tensor, "batch slots seen"],
        action: Float[Tensor, "batch action"],
    ) -> Updated:
        """Return the new memory, what the decoder is shown, and who attends to whom.

        Args:
            memory: Of each group.
            seen: Encoded input of each group.
            action: Embedding of the action, of width 0 in a world without actions.
        """


class RecurrentUpdate(Update):
    r"""Groups that know nothing of each other, and with one group a plain recurrent network.

    .. math:: r_k = W \tilde x_k + R\, \theta_k, \quad \theta_k \leftarrow \sigma(r_k), \quad
              o_k = \sigma(\mathrm{LN}(r_k))

    Source: R-NEM, eq. 4 with Upsilon^RNN-EM; layer norm on the output alone (Appendix A.1).
    Differs: none.

    Args:
        seen: Width of the encoded input.
        dim: Width of theta.
        action: Width of the embedding of an action, joined to the input.
    """

    def __init__(self, seen: int, dim: int, action: int = 0):
        super().__init__(dim, dim)
        self.recurrence = nn.Linear(dim + seen + action, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        memory: Float[Tensor, "batch slots memory"],
        seen: Float[Tensor, "batch slots seen"],
        action: Float[Tensor, "batch action"],
    ) -> Updated:
        """See `Update`."""
        raw = self.recurrence(torch.cat([memory, seen, to_groups(action, memory)], dim=-1))
        return raw.sigmoid(), self.norm(raw).sigmoid(), nobody(memory)


class LSTMUpdate(Update):
    r"""An LSTM with layer norm on its gates and on its cell.

    Source: R-NEM, Appendix A.1 (LSTM instead of the recurrent layer); its code uses TensorFlow's
    LayerNormBasicLSTMCell, whose arithmetic this is: gates without bias, one norm a gate, 1 added
    to the forget gate, the normalised cell kept.
    Differs: none.

    Args:
        seen: Width of the encoded input.
        dim: Width of the cell and of the output.
        action: Width of the embedding of an action, joined to the input.
    """

    def __init__(self, seen: int, dim: int, action: int = 0):
        super().__init__(dim, 2 * dim)
        self.gates = nn.Linear(dim + seen + action, 4 * dim, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(5))

    def forward(
        self,
        memory: Float[Tensor, "batch slots memory"],
        seen: Float[Tensor, "batch slots seen"],
        action: Float[Tensor, "batch action"],
    ) -> Updated:
        """See `Update`."""
        cell, output = memory.chunk(2, dim=-1)
        gates = self.gates(torch.cat([output, seen, to_groups(action, memory)], dim=-1))
        enter, value, keep, show = (
            norm(gate) for norm, gate in zip(self.norms, gates.chunk(4, dim=-1), strict=False)
        )
        cell = cell * (keep + 1).sigmoid() + enter.sigmoid() * value.tanh()
        cell = self.norms[4](cell)
        output = cell.tanh() * show.sigmoid()
        return torch.cat([cell, output], dim=-1), output, nobody(memory)


class InteractingUpdate(Update):
    r"""Groups that act on each other.

    .. math::
        \hat\theta_k = \mathrm{MLP}^{enc}(\theta_k), \quad
        r_k = W \tilde x_k + R\, [\hat\theta_k; E_k(\hat\theta)]

    and from r_k as `RecurrentUpdate`; what E is, the kinds of it say.

    Source: R-NEM, eq. 4 and 5, Appendix A.1; with actions A.2.
    Differs: none from the code. In the paper's text the action is joined to the hidden state; in
    the code, and here, to the input of the recurrent layer too.

    Args:
        seen: Width of the encoded input.
        dim: Width of theta.
        action: Width of the embedding of an action.
        width: Of the encoded theta and of the effect.
    """

    def __init__(self, seen: int, dim: int, action: int, width: int):
        super().__init__(dim, dim)
        self.encode = _layer(dim + action, width, nn.ReLU())
        self.recurrence = nn.Linear(2 * width + seen + action, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        memory: Float[Tensor, "batch slots memory"],
        seen: Float[Tensor, "batch slots seen"],
        action: Float[Tensor, "batch action"],
    ) -> Updated:
        """See `Update`; ``attention[b, k, i]`` is what k takes of i, 0 for k = i.

        Raises:
            RMRError: There are fewer than two groups.
        """
        if memory.shape[1] < 2:
            raise RMRError(
                f"expected 2 groups or more that act on each other, got {memory.shape[1]}: for one "
                "group choose the model rnn"
            )
        told = to_groups(action, memory)
        encoded = self.encode(torch.cat([memory, told], dim=-1))
        heard, attention = self.interact(encoded)
        raw = self.recurrence(torch.cat([encoded, heard, seen, told], dim=-1))
        return raw.sigmoid(), self.norm(raw).sigmoid(), attention

    @abstractmethod
    def interact(
        self, encoded: Float[Tensor, "batch slots width"]
    ) -> tuple[Float[Tensor, "batch slots width"], Float[Tensor, "batch slots slots"]]:
        """Return the total effect on each group, and the attention."""


class RelationalUpdate(InteractingUpdate):
    r"""Groups that act on each other in pairs.

    .. math::
        \xi_{k,i} = \mathrm{MLP}^{emb}([\hat\theta_k; \hat\theta_i]) \\
        e_{k,i} &= \mathrm{MLP}^{eff}(\xi_{k,i}), \quad \alpha_{k,i} = \mathrm{MLP}^{att}(\xi_{k,i})
        \\ E_k &= \textstyle\sum_{i \neq k} \alpha_{k,i}\, e_{k,i}

    All pairs go through the layers at once; the first layer of
    MLP^emb is applied to k and i apart, before they are paired.

    Source: R-NEM, eq. 5, Appendix A.1.
    Differs: see `InteractingUpdate`.

    Args:
        seen: Width of the encoded input.
        dim: Width of theta.
        action: Width of the embedding of an action.
        width: Of the three MLPs (250 in the paper).
        attention: Hidden width of MLP^att (100 in the paper); 0 for alpha = 1.
    """

    def __init__(
        self, seen: int, dim: int, action: int = 0, width: int = 250, attention: int = 100
    ):
        super().__init__(seen, dim, action, width)
        self.focus, self.context = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.embedding = nn.Sequential(nn.LayerNorm(width), nn.ReLU())
        self.effect = _layer(width, width, nn.ReLU())
        self.attend = (
            nn.Sequential(
                _layer(width, attention, nn.Tanh()), nn.Linear(attention, 1), nn.Sigmoid()
            )
            if attention
            else None
        )

    def interact(
        self, encoded: Float[Tensor, "batch slots width"]
    ) -> tuple[Float[Tensor, "batch slots width"], Float[Tensor, "batch slots slots"]]:
        """Return the total effect on each group, and the attention."""
        pairs = self.embedding(self.focus(encoded)[:, :, None] + self.context(encoded)[:, None])
        others = 1 - torch.eye(encoded.shape[1], dtype=encoded.dtype, device=encoded.device)
        attention = others.expand(len(encoded), -1, -1)
        if self.attend is not None:
            attention = attention * rearrange(self.attend(pairs), "batch k i 1 -> batch k i")
        return torch.einsum("bki,bkid->bkd", attention, self.effect(pairs)), attention


class ProcessorUpdate(InteractingUpdate):
    r"""Groups that act on each other as a processor P says.

    .. math:: E_k = B\,\bigl(P(A \hat\theta)_k - A \hat\theta_k\bigr)

    A maps to the latents that P was trained on, B maps what P changes in them back. P may have
    been pretrained on the states of a world and stay frozen: RMR inside R-NEM.

    Source: none; after RMR, section 5, and R-NEM, eq. 4, whose interaction function P replaces.
    Differs: P's skip is taken off, so that without interaction the effect is that of P alone.

    Args:
        seen: Width of the encoded input.
        dim: Width of theta.
        action: Width of the embedding of an action.
        width: Of the encoded theta and of the effect.
        sizes: Of P.
    """

    def __init__(self, seen: int, dim: int, action: int, width: int, sizes: ProcessorSizes):
        super().__init__(seen, dim, action, width)
        self.enter = nn.Linear(width, sizes.dim)
        self.leave = nn.Linear(sizes.dim, width, bias=False)
        self.processor = sizes.make()

    def interact(
        self, encoded: Float[Tensor, "batch slots width"]
    ) -> tuple[Float[Tensor, "batch slots width"], Float[Tensor, "batch slots slots"]]:
        """Return what P changes in each group; it attends to nobody in particular."""
        latents = self.enter(encoded)
        return self.leave(self.processor(latents) - latents), nobody(encoded)


def to_groups(
    action: Float[Tensor, "batch action"], memory: Float[Tensor, "batch slots memory"]
) -> Float[Tensor, "batch slots action"]:
    """Tell every group the action."""
    return action[:, None].expand(-1, memory.shape[1], -1)


def nobody(memory: Float[Tensor, "batch slots memory"]) -> Float[Tensor, "batch slots slots"]:
    """Return the attention of groups that do not attend to each other."""
    batch, slots, _ = memory.shape
    return memory.new_zeros(batch, slots, slots)


def _layer(before: int, after: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), activation)
