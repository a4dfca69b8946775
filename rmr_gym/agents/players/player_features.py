"""What a trained player holds in its hidden layer: the column "agent embedding" of Table 1."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from rmr_gym.agents.players.graded import SHIPPED, networks
from rmr_gym.agents.players.network import ram_features
from rmr_gym.protocol.labels_probe import labelled_features
from rmr_gym.protocol.memory_features import memory_sets, probed_features
from rmr_gym.protocol.stages import GameTask

PLAYER = "player"
PLAYER_LABEL = "player (RAM policy's hidden layer)"
"""The arm's name in tables, and what readers are told."""

SKILL = "high"


def player_features(
    task: GameTask, folder: Path = SHIPPED
) -> tuple[Float32[np.ndarray, "rows width"], Float32[np.ndarray, "others width"]]:
    """Return the player's features of the probe's training and test frames.

    Source: RMR, Table 1, column Agent57 (the embedding of a trained agent).
    Differs: Agent57 sees pixels and its weights are not public. The shipped players see RAM, so
    that their hidden layer is a privileged reference: it says what a player of this kind keeps of
    the state, and not what can be learned from pixels.

    Args:
        task: The game.
        folder: Where the players' weights lie.

    Raises:
        RMRError: There is no trained player of the game.
    """
    network, sets = networks(task.game, folder)[SKILL], memory_sets(task)
    training, test = (
        network.hidden(ram_features(*rams)).astype(np.float32)
        for rams in (sets.training, sets.test)
    )
    return training, test


def player_cell(task: GameTask) -> dict[str, Any]:
    """Probe the player's features for bits and labels; rows for the tables of the measures."""
    features = player_features(task)
    bits, labels = (
        probed_features(task, *features).record,
        labelled_features(task, *features).record,
    )
    return {
        "references": [{"step": 0, **row} for row in bits["rows"]],
        "labels": [{"step": 0, **row} for row in labels["rows"]],
        "seconds": bits["seconds"] + labels["seconds"],
    }
