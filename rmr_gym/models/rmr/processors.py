"""Processors P: an action encoder, a core over the slots and a skip without parameters."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from rmr_gym.core.errors import Checked, RMRError, known_name
from rmr_gym.models.rmr.message_passing import AGGREGATIONS, fully_connected_messages
from rmr_gym.models.rmr.pipeline import Latents

STATE, OUTCOME = 6, 2
"""Numbers an object that go in (three positions) and that come out (the next position)."""


class Processor(nn.Module):
    r"""P with its action encoder and its skip.

    .. math:: \alpha = W^{f_a} a + b^{f_a}, \qquad z' = P(z + \alpha) + z + \alpha

    Source: RMR, Appendix F, eq. 2 and 3.
    Differs: none.

    Args:
        core: Maps latents [batch slots dim] to latents of the same shape; an entry of `CORES`.
        actions: Number of actions of the one-hot encoding.
        dim: Width of a slot's latent vector.
    """

    def __init__(self, core: nn.Module, actions: int = 18, dim: int = 64):
        super().__init__()
        self.action_encoder = nn.Linear(actions, dim)
        self.core = core

    def forward(self, z: Latents, action: Int[Tensor, " batch"]) -> Latents:
        """Return the latents after ``action`` (indices into the action set)."""
        alpha = self.action_encoder.weight.T[action] + self.action_encoder.bias
        z = z + alpha[:, None]
        return self.core(z) + z


class PassiveProcessor(nn.Module):
    r"""P of a world without actions: one core a pass, each with the skip.

    .. math:: z^{(k+1)} = P_k(z^{(k)}) + z^{(k)}

    Source: RMR, Appendix A (2 passes of message passing).
    Differs: whether the passes share weights is not stated; they do not. The skip is Appendix F's.

    Args:
        cores: Modules from latents [batch slots dim] to latents of the same shape, in turn.
        skip: Whether the latents are added to what each core returns; off where the core is meant
            to be a bottleneck, which a skip would lead around.
    """

    def __init__(self, cores: Iterable[nn.Module], *, skip: bool = True):
        super().__init__()
        self.cores, self.skip = nn.ModuleList(cores), skip

    def forward(self, z: Latents, action: Int[Tensor, " batch"] | None = None) -> Latents:
        """Return the latents one time step later, whatever the action."""
        for core in self.cores:
            z = core(z) + z if self.skip else core(z)
        return z


@dataclass(frozen=True)
class ProcessorSizes(Checked):
    """Sizes of a `PassiveProcessor`; the defaults are those of the balls (RMR, Appendix A).

    Attributes:
        dim: Width of a slot's latent vector.
        core: A name in `CORES`.
        aggregation: Of messages: max, sum or mean.
        passes: Passes of message passing.

    Raises:
        RMRError: Counts below 1, an unknown core.
    """

    dim: int = 128
    core: str = "mpnn"
    aggregation: str = "max"
    passes: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        known_name("processor", self.core, CORES)

    def make(self, slots: int = 0, precision: str = "fp32") -> PassiveProcessor:
        """Make P.

        The interaction network makes a single pass and has no skip, being a bottleneck.

        Args:
            slots: Number of slots, if the core is one that must know it (mlp).
            precision: Arithmetic of the message passing: fp32 or bf16.
        """
        bottleneck = self.core == "interaction"
        options = {"aggregation": self.aggregation, "precision": precision}
        core = partial(CORES[self.core], slots=slots, dim=self.dim, **options)
        passes = 1 if bottleneck else self.passes
        return PassiveProcessor((core() for _ in range(passes)), skip=not bottleneck)


class MessagePassing(nn.Module):
    r"""Message passing over the fully connected graph of slots, self edges included.

    .. math:: m_{ij} = \mathrm{MLP}_3([z_i, z_j]), \quad
              u_i = W^u [z_i, \max_j m_{ij}] + b^u

    Source: RMR, Appendix B (three-layer messages, ReLU after each hidden layer).
    Differs: the paper does not state the update; it is linear in the latent and the aggregated
    message, as in the processors of the CLRS benchmark.

    Args:
        dim: Width of a slot's latent vector, of the messages and of their hidden layers.
        aggregation: ``"max"`` (default), ``"sum"`` or ``"mean"``.
        precision: ``"fp32"``, or ``"bf16"`` operands with fp32 sums in the fast back ends.
    """

    def __init__(self, dim: int = 64, aggregation: str = "max", precision: str = "fp32"):
        super().__init__()
        known_name("aggregation", aggregation, AGGREGATIONS)
        self.options = {"aggregation": aggregation, "precision": precision}
        self.receiver = nn.Linear(dim, dim)
        self.sender = nn.Linear(dim, dim, bias=False)
        self.hidden = nn.Linear(dim, dim)
        self.message = nn.Linear(dim, dim)
        self.update = nn.Linear(2 * dim, dim)

    def forward(self, z: Latents) -> Latents:
        """Return the update of every slot."""
        layers = self.hidden.weight, self.hidden.bias, self.message.weight, self.message.bias
        ends = self.receiver(z), self.sender(z)
        messages = fully_connected_messages(*ends, *layers, **self.options)
        return self.update(torch.cat([z, messages], dim=-1))


class DeepSets(MessagePassing):
    """Message passing over the identity adjacency: every slot hears itself alone.

    Source: RMR, Appendix B. Differs: none.
    """

    def forward(self, z: Latents) -> Latents:
        """Return the update of every slot."""
        hidden = torch.relu(self.receiver(z) + self.sender(z))
        messages = self.message(torch.relu(self.hidden(hidden)))
        return self.update(torch.cat([z, messages], dim=-1))


class FlatMLP(nn.Module):
    """Three-layer MLP over all slots at once, the baseline without factored latents.

    Source: RMR, Appendix B. Differs: the width is not stated; 512.
    """

    def __init__(self, slots: int = 128, dim: int = 64, hidden: int = 512):
        super().__init__()
        width = slots * dim
        self.slots = slots
        self.layers = _mlp(width, hidden, hidden, width)

    def forward(self, z: Latents) -> Latents:
        """Return the update of every slot."""
        flat = self.layers(rearrange(z, "batch slots dim -> batch (slots dim)"))
        return rearrange(flat, "batch (slots dim) -> batch slots dim", slots=self.slots)


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

    def forward(self, z: Latents) -> Latents:
        """Return the latents one time step later, without any skip."""
        state = self.project(z)
        slots = state.shape[1]
        receivers = state.unsqueeze(2).expand(-1, -1, slots, -1)
        senders = state.unsqueeze(1).expand(-1, slots, -1, -1)
        effects = self.relation(torch.cat([receivers, senders], dim=-1))
        others = rearrange(~torch.eye(slots, dtype=torch.bool, device=z.device), "i j -> i j 1")
        received = (effects * others).sum(dim=2)
        return self.expand(self.object(torch.cat([state, received], dim=-1)))


class NoCore(nn.Module):
    """No processor at all: only the action encoder and the skip remain (a control)."""

    def forward(self, z: Latents) -> Latents:
        """Return zeros."""
        return torch.zeros_like(z)


CORES: dict[str, Callable[..., nn.Module]] = {
    "mpnn": lambda slots, dim, **options: MessagePassing(dim, **options),
    "deep_sets": lambda slots, dim, **options: DeepSets(dim, **options),
    "mlp": lambda slots, dim, **options: FlatMLP(slots, dim),
    "interaction": lambda slots, dim, **options: InteractionNetwork(dim),
    "none": lambda slots, dim, **options: NoCore(),
}
"""Makers of processor cores by name; ``options`` are those of `MessagePassing`."""


def make_processor(
    core: str, *, slots: int = 128, actions: int = 18, dim: int = 64, **options: str
) -> Processor:
    """Make a processor by the name of its core.

    Raises:
        RMRError: If there is no such core.
    """
    known_name("processor", core, CORES)
    return Processor(CORES[core](slots=slots, dim=dim, **options), actions, dim)


def freeze(module: nn.Module) -> None:
    """Take a module out of training: no gradients, evaluation mode, buffers untouched."""
    module.eval().requires_grad_(requires_grad=False)


def parameter_hash(module: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def shuffle_weights(module: nn.Module, rng: np.random.Generator) -> None:
    """Permute the entries of every parameter: same values, none of what was learned (a control)."""
    for _, parameter in sorted(module.named_parameters()):
        order = torch.from_numpy(rng.permutation(parameter.numel()))
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


def load_weights(module: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Load a state dict and say clearly what does not fit.

    Raises:
        RMRError: If names or shapes differ.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise RMRError(
            f"the weights of {what} do not fit this configuration: {error}; use the settings "
            "(dim, slots, actions, processor) that it was trained with"
        ) from error


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
