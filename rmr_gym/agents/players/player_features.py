"""What a trained player holds in its hidden layer: the column "agent embedding" of Table 1."""

from typing import Any, NamedTuple

import numpy as np
import torch

from rmr_gym.agents.players.graded import networks, ram_features
from rmr_gym.domains.atari import ProbeData
from rmr_gym.stages.probe import Values

PLAYER = "player"
"""The arm's name in tables."""

SKILL = "high"


class PlayerReference(NamedTuple):
    """Features of the probe's frames that a game's trained player has.

    Source: RMR, Table 1, column Agent57 (the embedding of a trained agent).
    Differs: Agent57 sees pixels and its weights are not public. The shipped players see RAM, so
    that their hidden layer is a privileged reference: it says what a player of this kind keeps of
    the state, and not what can be learned from pixels.
    """

    game: str
    slots: int = 0

    def key(self) -> dict[str, Any]:
        """Return what decides them: the game and the player's weights."""
        layers = networks(self.game)[SKILL].layers
        return {"player": self.game, "sums": [float(weight.sum()) for weight, _ in layers]}

    def features(self, train: ProbeData, test: ProbeData) -> tuple[Values, Values]:
        """Return the player's features of both sets.

        Raises:
            RMRError: There is no trained player of the game.
        """
        network = networks(self.game)[SKILL]
        parts = []
        for data in (train, test):
            hidden = network.hidden(ram_features(data.ram, data.before)).astype(np.float32)
            parts.append(torch.from_numpy(hidden))
        return parts[0], parts[1]
