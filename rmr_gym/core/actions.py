"""ALE's 18 actions by name, and which of them an environment's own numbers stand for."""

from collections.abc import Sequence

import numpy as np

from rmr_gym.core.errors import RMRError

_MOVES = ("UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT")

ACTION_NAMES: tuple[str, ...] = ("NOOP", "FIRE", *_MOVES, *(f"{move}FIRE" for move in _MOVES))
"""What each of the 18 actions presses; the position is the action's index, and P's."""


def ale_actions(names: Sequence[str] | None, advice: str) -> np.ndarray:
    """Return, for each action of an environment, its index among ALE's 18, as int64 [actions].

    Its type says no more because ``import rmr_gym`` comes here, and jaxtyping costs 30 ms.

    Args:
        names: What each of them presses; None where nobody knows.
        advice: What to do where they cannot be told.

    Raises:
        RMRError: The names are not known, or are not ALE's.
    """
    if names is None or not set(names) <= set(ACTION_NAMES):
        raise RMRError(
            "expected discrete actions with ALE's names (get_action_meanings), found "
            f"{'none' if names is None else list(names)}: {advice}"
        )
    return np.array([ACTION_NAMES.index(name) for name in names], np.int64)
