"""What every environment checks of what it is given: whole numbers, actions, seeds."""

import os
from collections.abc import Sequence
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Int

from rmr_gym.core.errors import RMRError, whole, whole_number

Arrays = dict[str, np.ndarray]
"""What an environment, or a vector of them, shows."""

Info = dict[str, Any]
"""What is told beside it; or the options of a reset."""

Seed = int | np.integer | None
"""What an environment is reset with; None: it goes on with its generator."""

Seeds = Seed | Sequence[Seed] | np.ndarray
"""The same for a vector: of the first environment, or one an environment."""


def probability(name: str, value: Any) -> float:
    """Return a probability.

    Raises:
        RMRError: It is no number from 0 to 1.
    """
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise RMRError(f"expected a probability in [0, 1] as {name}, found {value!r}")
    return float(value)


def one_action(action: Any, choices: int) -> int:
    """Return the index of an action.

    Raises:
        RMRError: It is none of the ``choices``.
    """
    index = whole(action)
    if not 0 <= index < choices:
        raise RMRError(
            f"expected an action from 0 to {choices - 1}, found {action!r}: see "
            "get_action_meanings()"
        )
    return index


def all_actions(actions: Any, envs: int, choices: int) -> Int[np.ndarray, " batch"]:
    """Return the indices of the actions of a vector of environments.

    Raises:
        RMRError: Their number or type is wrong, or one of them is none of the ``choices``.
    """
    chosen = np.asarray(actions)
    whole = chosen.shape == (envs,) and np.issubdtype(chosen.dtype, np.integer)
    if not whole or chosen.min() < 0 or chosen.max() >= choices:
        raise RMRError(
            f"expected {envs} actions from 0 to {choices - 1}, found {actions!r}: see "
            "get_action_meanings()"
        )
    return chosen


def plain_seed(seed: Any) -> Any:
    """Return a seed, or each of a list of seeds, as Python's own number; None stays None.

    Raises:
        RMRError: One is no whole number of 0 or more.
    """
    if seed is None:
        return None
    return [*map(plain_seed, seed)] if np.ndim(seed) else whole_number("seed", seed)


def all_seeds(seed: Any, envs: int) -> list[int | None]:
    """Return a seed an environment: of one seed s, environment i has s + i; None stays None.

    Raises:
        RMRError: There is another number of seeds, or one is below 0.
    """
    seeds = plain_seed(seed)
    if not isinstance(seeds, list):
        seeds = [None if seeds is None else seeds + i for i in range(envs)]
    if len(seeds) != envs:
        raise RMRError(f"expected one seed or {envs}, one an environment, found {len(seeds)}")
    return seeds


def check_open(envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
    """Make sure that a vector of environments was not closed.

    Raises:
        RMRError: It was.
    """
    if envs.closed:
        raise RMRError("expected environments that are open, found closed ones: make new ones")


def warn_of_no_render_mode() -> None:
    """Say how an environment is made that can be rendered."""
    gym.logger.warn(
        "render() was called without a render mode: make the environment with "
        'render_mode="rgb_array"'
    )


def parallel(name: str, value: Any, at_least: int) -> int:
    """Return a number of processes or threads: for None, one a processor that this one may use.

    Raises:
        RMRError: It is no whole number, or too small.
    """
    if value is not None:
        return whole_number(name, value, at_least)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
