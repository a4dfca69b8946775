"""Models of sequences of tokens: a layer of RIMs, or an LSTM, between embedding and decoder."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.models.world.rims import RIMCell, RIMSizes


class TokenOutput(NamedTuple):
    """What a model says at every instant.

    Attributes:
        logits: Of the token that is asked for there.
        active: Which RIMs were active there; of width 0 for an LSTM.
    """

    logits: Float[Tensor, "batch time tokens"]
    active: Bool[Tensor, "batch time slots"]


class TokenRIMs(nn.Module):
    """Embedding, RIMs, and a linear decoder of all their states, active or not.

    Source: RIMs, Appendix C.3 (shared decoder of concatenated states) and C.5. Differs: the initial
    embeddings are standard normal.

    Args:
        tokens: Number of tokens.
        embedding: Width of a token's embedding.
        sizes: Of the RIMs.
    """

    def __init__(self, tokens: int, embedding: int, sizes: RIMSizes):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(tokens, 1, embedding))
        self.cell = RIMCell(embedding, sizes)
        self.decoder = nn.Linear(sizes.rims * sizes.units, tokens)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the embeddings."""
        self.embedding.normal_(generator=generator)

    def forward(self, tokens: Int[Tensor, "batch time"], generator: torch.Generator) -> TokenOutput:
        """Read sequences of tokens.

        Args:
            tokens: From 0.
            generator: Source of the dropout, on the device of the model.
        """
        vocabulary = self.cell.read(self.embedding)
        state = self.cell.init_state(len(tokens), generator)
        hidden, active = [], []
        for now in tokens.unbind(1):
            state, activity = self.cell(vocabulary.at(now), state)
            hidden.append(state.hidden.flatten(1))
            active.append(activity.active)
        return TokenOutput(self.decoder(torch.stack(hidden, 1)), torch.stack(active, 1))


class TokenLSTM(nn.Module):
    """Embedding, one LSTM, linear decoder: the baseline.

    Source: RIMs, Appendix C.5. Differs: none.

    Args:
        tokens: Number of tokens.
        embedding: Width of a token's embedding.
        units: Width of the LSTM.
    """

    def __init__(self, tokens: int, embedding: int, units: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(tokens, embedding))
        self.lstm = nn.LSTM(embedding, units, batch_first=True)
        self.decoder = nn.Linear(units, tokens)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the embeddings, and the LSTM's weights uniformly in +-1/sqrt(units)."""
        self.embedding.normal_(generator=generator)
        bound = self.lstm.hidden_size**-0.5
        for parameter in self.lstm.parameters():
            parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, tokens: Int[Tensor, "batch time"], generator: torch.Generator) -> TokenOutput:
        """Read sequences of tokens; nothing is drawn."""
        del generator
        hidden, _ = self.lstm(F.embedding(tokens, self.embedding))
        nobody = torch.zeros(*tokens.shape, 0, dtype=torch.bool, device=tokens.device)
        return TokenOutput(self.decoder(hidden), nobody)
