"""Recurrent Independent Mechanisms: cells that compete for the input and talk sparsely."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.rims_attention import (
    Communication,
    Heard,
    InputAttention,
    ProcessorCommunication,
)
from rmr_gym.models.world.rims_dynamics import DYNAMICS

VALUES_PER_UNIT = 4


@dataclass(frozen=True)
class RIMSizes:
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
        if not 1 <= self.active <= self.rims:
            raise RMRError(
                f"expected 1 to {self.rims} active RIMs out of {self.rims}, got {self.active}"
            )
        if min(self.units, self.keys, self.heads, self.message) < 1 or not 0 <= self.dropout < 1:
            raise RMRError(
                "RIMs need units, keys, heads and message of 1 or more and a dropout in [0, 1), "
                f"got {self}"
            )
        if self.dynamics not in DYNAMICS:
            raise unknown_name("dynamics", self.dynamics, DYNAMICS)


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
        flat = nn.functional.embedding(index, self.drives.flatten(1))
        drives = flat.unflatten(1, self.drives.shape[1:])
        return Reading(self.keys[index], drives)


class RIMState(NamedTuple):
    """The state of a layer of RIMs.

    Attributes:
        hidden: What each RIM shows.
        memory: What it remembers besides; of width 0 for GRUs.
        generator: Source of the dropout, on the device of the model.
    """

    hidden: Float[Tensor, "batch slots dim"]
    memory: Float[Tensor, "batch slots memory"]
    generator: torch.Generator


class Activity(NamedTuple):
    """What a step did.

    Attributes:
        active: Which RIMs were active.
        null: Each RIM's attention on the null input; the active ones have the least.
    """

    active: Bool[Tensor, "batch slots"]
    null: Float[Tensor, "batch slots"]


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
        self.attention = InputAttention(sizes.rims, elements, sizes.units, sizes.keys, values)
        self.dynamics = DYNAMICS[sizes.dynamics](sizes.rims, values, sizes.units)
        self.communication = (
            Communication(sizes.rims, sizes.units, sizes.heads, sizes.message, sizes.dropout)
            if sizes.processor is None
            else ProcessorCommunication(sizes.rims, sizes.units, sizes.processor, sizes.dropout)
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
        gone, count = set(rims), self.sizes.rims
        if not gone <= set(range(count)) or len(gone) == count:
            raise RMRError(
                f"expected RIMs from 0 to {count - 1}, and not all of them, to drop, got "
                f"{sorted(gone)}"
            )
        self.present.fill_(True)
        self.present[sorted(gone)] = False
        self._active = min(self.sizes.active, count - len(gone))

    def init_state(self, batch: int, generator: torch.Generator) -> RIMState:
        """Return the state before the first step, which is 0.

        Args:
            batch: Number of sequences.
            generator: Source of the dropout, on the device of the model.
        """
        weight, sizes = self.dynamics.hidden_weight, self.sizes
        hidden = weight.new_zeros(batch, sizes.rims, sizes.units)
        memory = weight.new_zeros(batch, sizes.rims, sizes.units * self.dynamics.remembers)
        return RIMState(hidden, memory, generator)

    def read(self, elements: Float[Tensor, "*rest elements width"]) -> Reading:
        """Return what RIMs see of inputs that consist of one element or more each."""
        drives = self.dynamics.drives(elements @ self.attention.value)
        return Reading(elements @ self.attention.key, drives)

    def forward(self, reading: Reading, state: RIMState) -> tuple[RIMState, Activity]:
        """Return the next state, and which RIMs were active."""
        null, shares = self.attention(reading.keys, state.hidden)
        active = least(null.detach().masked_fill(~self.present, torch.inf), self._active)
        drive = torch.einsum("bse,besg->bsg", shares, reading.drives)
        hidden, memory = self.dynamics(drive, state.hidden, state.memory)
        hidden = self.communication(hidden, Heard(active, self.present), state.generator)
        chosen = active[..., None]
        kept = RIMState(
            torch.where(chosen, hidden, state.hidden),
            torch.where(chosen, memory, state.memory),
            state.generator,
        )
        return kept, Activity(active, null)


def least(values: Float[Tensor, "batch slots"], count: int) -> Bool[Tensor, "batch slots"]:
    """Mark the ``count`` least values of each row, the first among equals."""
    order = values.argsort(dim=1, stable=True)
    marked = torch.zeros_like(values, dtype=torch.bool)
    return marked.scatter(1, order[:, :count], value=True)
