"""Recurrent Independent Mechanisms: cells that compete for the input and talk sparsely."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import Checked, RMRError
from rmr_gym.models.rmr.pipeline import draw_uniformly
from rmr_gym.models.rmr.processors import ProcessorSizes

INITIAL_DEVIATION = 0.01
VALUES_PER_UNIT = 4

Hidden = Float[Tensor, "batch slots dim"]
Active = Bool[Tensor, "batch slots"]
Present = Bool[Tensor, " slots"]
Memory = Float[Tensor, "batch slots memory"]
Drive = Float[Tensor, "batch slots drive"]
Mapped = Float[Tensor, "batch slots maps"]
Heard = Float[Tensor, "batch slots heard"]


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


class BlockDynamics(nn.Module):
    """What LSTM and GRU in blocks have in common: weights, and the part that the input plays.

    The initial weights are uniform in +-1/sqrt(units), as torch's own. All cells go through one
    batched product. From drive, states and memories ``forward`` returns every cell's next state and
    memory, as if all were active.

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

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights and biases."""
        draw_uniformly(self.parameters(), self.hidden_weight.shape[1], generator)

    def drives(self, values: Float[Tensor, "*rest values"]) -> Float[Tensor, "*rest slots drive"]:
        """Return what each cell's gates get from a value, without biases."""
        return torch.einsum("...v,svg->...sg", values, self.input_weight)


class BlockLSTM(BlockDynamics):
    r"""An LSTM for each RIM.

    .. math:: [i, f, g, o] = W x + b + U h + b', \quad
              c' = \sigma(f) c + \sigma(i) \tanh(g), \quad h' = \sigma(o) \tanh(c')

    Source: RIMs, section 2.1 (Hochreiter and Schmidhuber 1997). Differs: none.
    """

    gates, remembers = 4, True

    def forward(self, drive: Drive, hidden: Hidden, memory: Memory) -> tuple[Hidden, Memory]:
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

    def forward(self, drive: Drive, hidden: Hidden, memory: Memory) -> tuple[Hidden, Memory]:
        """Return every cell's next state, as if all were active, and the empty memory."""
        taken = (drive + self.input_bias).chunk(3, dim=-1)
        kept = blockwise(hidden, self.hidden_weight, self.hidden_bias).chunk(3, dim=-1)
        reset, update = ((a + b).sigmoid() for a, b in zip(taken[:2], kept[:2], strict=True))
        new = (taken[2] + reset * kept[2]).tanh()
        return torch.lerp(new, hidden, update), memory


DYNAMICS: dict[str, type[BlockDynamics]] = {"lstm": BlockLSTM, "gru": BlockGRU}
"""Dynamics of RIMs by name."""


@dataclass(frozen=True)
class RIMSizes(Checked):
    """Sizes of a layer of RIMs; the defaults are those of the paper's copying task.

    Attributes:
        rims: Number of RIMs.
        active: So many of them are active at each step.
        units: Width of a RIM's state.
        dynamics: "lstm" or "gru".
        keys: Width of queries and keys of the input attention.
        heads: Heads of the communication.
        message: Width of queries, keys and values of such a head.
        dropout: Share of what is communicated that is dropped in training.
        processor: RIMs communicate through a P of these sizes; None: through attention.

    Raises:
        RMRError: Fewer than one or more active RIMs than RIMs, other widths below 1, a share
            outside [0, 1), unknown dynamics.
    """

    ranges: ClassVar = {"dropout": "[0, 1)"}
    choices: ClassVar = {"dynamics": ("dynamics", DYNAMICS)}

    rims: int = 6
    active: int = 4
    units: int = 100
    dynamics: str = "lstm"
    keys: int = 64
    heads: int = 4
    message: int = 32
    dropout: float = 0.1
    processor: ProcessorSizes | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.active > self.rims:
            raise RMRError(
                f"expected 1 to {self.rims} active RIMs out of {self.rims}, got {self.active}"
            )


def mark_dropped(present: Bool[Tensor, " slots"], dropped: Sequence[int], parts: str) -> int:
    """Mark in place which parts of a model are present, and return how many are left.

    Raises:
        RMRError: There is no such part, or none would be left.
    """
    numbers, count = set(dropped), len(present)
    if not numbers <= set(range(count)) or len(numbers) == count:
        raise RMRError(
            f"expected {parts} from 0 to {count - 1}, and not all of them, to drop, got "
            f"{sorted(numbers)}"
        )
    present.fill_(True)
    present[sorted(numbers)] = False
    return count - len(numbers)


class InputAttention(nn.Module):
    r"""Every RIM divides its attention between the elements of the input and a null element.

    .. math:: A_k = \mathrm{softmax}\left(h_k W^q_k\, [0; X W^e]^T / \sqrt{d}\right), \quad
              \text{in}_k = A_k\, [0; X W^v]

    Source: RIMs, section 2.3, eq. 4, Table 3.
    Differs: one head, as the paper has in its copying task; the keys and values of all elements
    are made by the same two maps, as in the paper (the authors' code has a pair of maps for each
    position); no dropout here. There are no biases, so key and value of the null element are 0.

    Args:
        elements: Width of an element of the input.
        values: Width of values.
        sizes: Of the layer of RIMs.
    """

    def __init__(self, elements: int, values: int, sizes: RIMSizes):
        super().__init__()
        self.query = nn.Parameter(torch.empty(sizes.rims, sizes.units, sizes.keys))
        self.key = nn.Parameter(torch.empty(elements, sizes.keys))
        self.value = nn.Parameter(torch.empty(elements, values))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all maps from a normal of deviation 0.01, as the authors' code does."""
        for parameter in self.parameters():
            parameter.normal_(0, INITIAL_DEVIATION, generator=generator)

    def forward(
        self, keys: Float[Tensor, "batch elements keys"], hidden: Hidden
    ) -> tuple[Float[Tensor, "batch slots"], Float[Tensor, "batch slots elements"]]:
        """Return each RIM's attention on null, and on each element; together they are 1."""
        queries = blockwise(hidden, self.query)
        scores = queries @ keys.transpose(1, 2) * self.query.shape[-1] ** -0.5
        shares = torch.cat([torch.zeros_like(scores[..., :1]), scores], dim=-1).softmax(dim=-1)
        return shares[..., 0], shares[..., 1:]


class Communication(nn.Module, ABC):
    r"""What RIMs hear from each other is let in through a gate.

    .. math:: h_k \leftarrow h_k + \sigma(W^g m_k + b^g)
              \tanh(\mathrm{dropout}(W^o m_k + b^o))

    with maps of each RIM's own into what m is made of; :math:`W^o` and :math:`W^g` are shared.

    Source: RIMs, section 2.4 and Appendix C.1, C.2; the gate is in the authors' code alone.
    Differs: RIMs hear of each other's states as if all RIMs had been active, as in the code,
    not the kept states of the inactive ones, as the paper's text has it. What is heard
    from an inactive RIM is not differentiated, as in the code.

    Args:
        sizes: Of the layer of RIMs.
        maps: Width of what each RIM's state is mapped to.
        heard: Width of m.
        processor: Makes m; None where attention does.
    """

    def __init__(self, sizes: RIMSizes, maps: int, heard: int, processor: nn.Module | None = None):
        super().__init__()
        self.dropout = sizes.dropout
        self.maps = nn.Parameter(torch.empty(sizes.rims, sizes.units, maps))
        self.processor = processor
        self.message = nn.Linear(heard, sizes.units)
        self.gate = nn.Linear(heard, sizes.units)

    def forward(
        self, hidden: Hidden, active: Active, present: Present, generator: torch.Generator
    ) -> Hidden:
        """Return what every RIM's state would be after it has listened.

        Args:
            hidden: States after the RIMs' own dynamics, as if all were active.
            active: RIMs that listen and learn from it.
            present: RIMs that can be heard.
            generator: Source of the dropout.
        """
        speaking = torch.where(active[..., None], hidden, hidden.detach())
        mixed = self.mix(blockwise(speaking, self.maps), present)
        message = self.message(mixed)
        if self.training and self.dropout:
            message = dropout(message, self.dropout, generator)
        return hidden + self.gate(mixed).sigmoid() * message.tanh()

    @abstractmethod
    def mix(self, mapped: Mapped, present: Present) -> Heard:
        """Return m, what each RIM hears."""


class AttentiveCommunication(Communication):
    r"""RIMs read from each other, themselves included, through attention with several heads.

    .. math:: m_k = \mathrm{concat}_{heads}\, \mathrm{softmax}(q_k K^T / \sqrt{d})\, V

    Queries, keys and values come from maps of each RIM's own, without biases.

    Source: RIMs, section 2.4 and Appendix C.1. Differs: see `Communication`.

    Args:
        sizes: Of the layer of RIMs.
    """

    def __init__(self, sizes: RIMSizes):
        width = sizes.heads * sizes.message
        super().__init__(sizes, 3 * width, width)
        self.heads = sizes.heads

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the maps of the RIMs from a normal of deviation 0.01, as the authors' code does."""
        self.maps.normal_(0, INITIAL_DEVIATION, generator=generator)

    def mix(self, mapped: Mapped, present: Present) -> Heard:
        """Return what each RIM reads from those that are present."""
        queries, keys, values = rearrange(
            mapped, "b s (part h d) -> part b h s d", part=3, h=self.heads
        )
        there = present.expand(len(present), -1)
        mixed = F.scaled_dot_product_attention(queries, keys, values, there)
        return rearrange(mixed, "b h s d -> b s (h d)")


class ProcessorCommunication(Communication):
    r"""RIMs hear from each other what a processor P says.

    .. math:: m_k = P(A h)_k - A_k h_k

    with maps :math:`A_k` of each RIM's own. P may have been pretrained on the states of a world
    and stay frozen: RMR inside RIMs.

    Source: none; after RMR, section 5, and `AttentiveCommunication`, whose attention P replaces.
    Differs: P's skip is taken off. As there, what is heard from an inactive RIM is not
    differentiated, and RIMs that are not present are not heard.

    Args:
        sizes: Of the layer of RIMs.
        processor: Sizes of P.
    """

    def __init__(self, sizes: RIMSizes, processor: ProcessorSizes):
        super().__init__(sizes, processor.dim, processor.dim, processor.make())

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the maps into P as linear layers are drawn."""
        draw_uniformly([self.maps], self.maps.shape[1], generator)

    def mix(self, mapped: Mapped, present: Present) -> Heard:
        """Return what P changes in those that are present."""
        assert self.processor is not None
        there = present.nonzero()[:, 0]
        latents = mapped[:, there]
        silence = torch.zeros_like(mapped)
        return silence.index_copy(1, there, self.processor(latents) - latents)


def dropout(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a share of the numbers to 0, drawn from the generator, and scale up the rest."""
    kept = torch.empty_like(x).bernoulli_(1 - share, generator=generator)
    return x * kept / (1 - share)


class Reading(NamedTuple):
    """The input as RIMs see it, one entry an element; made by `RIMCell.read`.

    Attributes:
        keys: What queries are compared with.
        drives: What each RIM's gates get from an element that has all of its attention.
    """

    keys: Float[Tensor, "... elements keys"]
    drives: Float[Tensor, "... elements slots drive"]

    def at(self, index: Int[Tensor, " batch"]) -> "Reading":
        """Return the chosen rows of a reading of many inputs."""
        flat = F.embedding(index, self.drives.flatten(1))
        return Reading(self.keys[index], flat.unflatten(1, self.drives.shape[1:]))


class RIMState(NamedTuple):
    """The state of a layer of RIMs.

    Attributes:
        hidden: What each RIM shows.
        memory: What it remembers besides; of width 0 for GRUs.
        active: Which RIMs were active in the last step; none before the first.
        generator: Source of the dropout, on the device of the model.
    """

    hidden: Hidden
    memory: Memory
    active: Active
    generator: torch.Generator


class RIMCell(nn.Module):
    r"""One step of a layer of RIMs.

    Each RIM k divides its attention between the input and a null element; the ``active`` RIMs with
    the least attention on null form S. Then

    .. math:: \tilde h_k = D_k(h_k, A_k X W^v) \;\; (k \in S), \quad
              h'_k = \tilde h_k + \mathrm{communication}_k(\tilde h) \;\; (k \in S), \quad
              h'_k = h_k \;\; (k \notin S)

    with D an LSTM or a GRU of each RIM's own weights, computed for all RIMs in one product.

    Source: RIMs, section 2 and Appendix C.
    Differs: see `InputAttention` and `Communication`, which follow the authors' code where it and
    the text disagree. The choice of S is not differentiated; an inactive RIM's state, and its
    gradient, pass through unchanged. Among RIMs of equal attention on null the first are taken.
    The maps from values to gates are applied before the attention and not after it, which is the
    same, so that a sequence or a vocabulary can be read in one product.

    Args:
        elements: Width of an element of the input.
        sizes: Of the layer.
    """

    present: Tensor

    def __init__(self, elements: int, sizes: RIMSizes):
        super().__init__()
        self.sizes = sizes
        values = VALUES_PER_UNIT * sizes.units
        self.attention = InputAttention(elements, values, sizes)
        self.dynamics = DYNAMICS[sizes.dynamics](sizes.rims, values, sizes.units)
        self.communication = (
            AttentiveCommunication(sizes)
            if sizes.processor is None
            else ProcessorCommunication(sizes, sizes.processor)
        )
        self.register_buffer("present", torch.ones(sizes.rims, dtype=torch.bool), persistent=False)
        self._active = sizes.active

    def drop(self, rims: Sequence[int] = ()) -> None:
        """Take RIMs out: they are never active and never heard, their states stay 0.

        Of those that are left as many as before are active, or all. The weights stay; ``drop()``
        brings all RIMs back. States that were made before keep what was in them.

        Raises:
            RMRError: There is no such RIM, or none would be left.
        """
        left = mark_dropped(self.present, rims, "RIMs")
        self._active = min(self.sizes.active, left)

    def init_state(self, batch: int, generator: torch.Generator) -> RIMState:
        """Return the state before the first step, which is 0.

        Args:
            batch: Number of sequences.
            generator: Source of the dropout, on the device of the model.
        """
        rims, units = self.sizes.rims, self.sizes.units
        hidden = self.dynamics.hidden_weight.new_zeros(batch, rims, units)
        memory = hidden if self.dynamics.remembers else hidden[..., :0]
        return RIMState(hidden, memory, self.present.new_zeros(batch, rims), generator)

    def read(self, elements: Float[Tensor, "*rest elements width"]) -> Reading:
        """Return what RIMs see of inputs that consist of one element or more each."""
        drives = self.dynamics.drives(elements @ self.attention.value)
        return Reading(elements @ self.attention.key, drives)

    def forward(self, reading: Reading, state: RIMState) -> RIMState:
        """Return the next state."""
        null, shares = self.attention(reading.keys, state.hidden)
        active = least(null.detach().masked_fill(~self.present, torch.inf), self._active)
        drive = torch.einsum("bse,besg->bsg", shares, reading.drives)
        hidden, memory = self.dynamics(drive, state.hidden, state.memory)
        hidden = self.communication(hidden, active, self.present, state.generator)
        chosen = active[..., None]
        hidden = torch.where(chosen, hidden, state.hidden)
        return RIMState(hidden, torch.where(chosen, memory, state.memory), active, state.generator)


def least(values: Float[Tensor, "batch slots"], count: int) -> Active:
    """Mark the ``count`` least values of each row, the first among equals."""
    order = values.argsort(dim=1, stable=True)
    marked = torch.zeros_like(values, dtype=torch.bool)
    return marked.scatter(1, order[:, :count], value=True)


class SequenceOutput(NamedTuple):
    """What a model says at every instant.

    Attributes:
        outputs: Logits of the class, or the number, that is asked for there.
        active: Which RIMs were active there; of width 0 for an LSTM.
        state: After the last instant, from which the sequence can go on; None where there is none.
    """

    outputs: Float[Tensor, "batch time outputs"]
    active: Bool[Tensor, "batch time slots"]
    state: Any = None


Sequences = Int[Tensor, "batch time"] | Float[Tensor, "batch time features"]


class SequenceRIMs(nn.Module):
    """Embedding, RIMs, and a linear decoder of all their states, active or not.

    Source: RIMs, Appendix C.3 (shared decoder of concatenated states) and C.5. Differs: the initial
    embeddings are standard normal.

    Args:
        inputs: Number of tokens, or of features.
        outputs: Width of what is said at every instant.
        embedding: Width of the embedding of an instant.
        sizes: Of the RIMs.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, sizes: RIMSizes):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(inputs, 1, embedding))
        self.cell = RIMCell(embedding, sizes)
        self.decoder = nn.Linear(sizes.rims * sizes.units, outputs)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the embeddings."""
        self.embedding.normal_(generator=generator)

    def forward(
        self, inputs: Sequences, generator: torch.Generator, state: RIMState | None = None
    ) -> SequenceOutput:
        """Read sequences.

        Args:
            inputs: Tokens from 0, or features.
            generator: Source of the dropout, on the device of the model.
            state: That an earlier part of the sequences led to; None: they begin.
        """
        now = state or self.cell.init_state(len(inputs), generator)
        hidden, active = [], []
        for reading in self._readings(inputs):
            now = self.cell(reading, now)
            hidden.append(now.hidden.flatten(1))
            active.append(now.active)
        return SequenceOutput(self.decoder(torch.stack(hidden, 1)), torch.stack(active, 1), now)

    def _readings(self, inputs: Sequences) -> Iterable[Reading]:
        """Return what RIMs see at each instant."""
        if inputs.is_floating_point():
            elements = inputs.transpose(0, 1) @ self.embedding[:, 0]
            return map(Reading, *self.cell.read(elements[:, :, None]))
        return map(self.cell.read(self.embedding).at, inputs.unbind(1))


@dataclass(frozen=True)
class LSTMSizes(Checked):
    """Sizes of the baseline.

    Attributes:
        units: Width of its state.
    """

    units: int = 600


class SequenceLSTM(nn.Module):
    """Embedding, one LSTM, linear decoder: the baseline.

    Source: RIMs, Appendix C.5. Differs: none.

    Args:
        inputs: Number of tokens, or of features.
        outputs: Width of what is said at every instant.
        embedding: Width of the embedding of an instant.
        sizes: Of the LSTM.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, sizes: LSTMSizes):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(inputs, embedding))
        self.lstm = nn.LSTM(embedding, sizes.units, batch_first=True)
        self.decoder = nn.Linear(sizes.units, outputs)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the embeddings, and the LSTM's weights uniformly in +-1/sqrt(units)."""
        self.embedding.normal_(generator=generator)
        draw_uniformly(self.lstm.parameters(), self.lstm.hidden_size, generator)

    def forward(
        self, inputs: Sequences, generator: torch.Generator, state: Any = None
    ) -> SequenceOutput:
        """Read sequences of tokens or features, from a state on or from 0; nothing is drawn."""
        floating = inputs.is_floating_point()
        read = inputs @ self.embedding if floating else F.embedding(inputs, self.embedding)
        hidden, state = self.lstm(read, state)
        nobody = torch.zeros(*hidden.shape[:2], 0, dtype=torch.bool, device=inputs.device)
        return SequenceOutput(self.decoder(hidden), nobody, state)


class SequenceMemoryless(SequenceLSTM):
    """The same LSTM, whose state is 0 at every instant: what can be done without memory.

    Source: none; the reference beside RIMs, Appendix C.7. Differs: -.
    """

    def forward(
        self, inputs: Sequences, generator: torch.Generator, state: Any = None
    ) -> SequenceOutput:
        """Read every instant as if the sequence began there."""
        alone = super().forward(inputs.flatten(0, 1)[:, None], generator)
        return SequenceOutput(*(part.unflatten(0, inputs.shape[:2])[:, :, 0] for part in alone[:2]))


SEQUENCE_MODELS = {"rims": SequenceRIMs, "lstm": SequenceLSTM, "memoryless": SequenceMemoryless}
"""Makers of models of sequences by name, from the number of tokens or features, that of outputs,
the width of an embedding and their own sizes, those of the preset's field of the same name."""
