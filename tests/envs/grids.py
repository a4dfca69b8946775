"""What the tests of battles and of trains share: episodes, what is in a cell, bytes of files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rmr_gym.core.errors import RMRError


def played(env_id: str, seed: int = 0, **options: Any) -> Iterator[tuple[Any, bool, bool]]:
    """Yield what an episode shows, and whether that is its end: terminated, truncated."""
    env = gym.make(env_id, **options)
    observation, over = env.reset(seed=seed)[0], False
    yield observation, False, False
    while not over:
        observation, _, terminated, truncated, _ = env.step(0)
        over = terminated or truncated
        yield observation, terminated, truncated


def lit(channel: np.ndarray) -> set[tuple[int, int]]:
    """Return the cells where something is."""
    return {*zip(*map(list, np.nonzero(channel)), strict=True)}


def require_determined(env_id: str) -> None:
    """Fail where a seed does not decide an episode, or another decides the same."""
    one, same, other = ([seen for seen, *_ in played(env_id, seed)] for seed in (1, 1, 2))
    assert len(one) == len(same)
    for a, b in zip(one, same, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(one[0]["pixels"], other[0]["pixels"])


def require_equal_files(one: Path, other: Path) -> None:
    """Fail where a file of a folder has other bytes in the other."""
    files = [path for path in one.rglob("*") if path.is_file()]
    assert len(files) > 1
    for path in files:
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()


def require_refusals_of_steps(env: gym.Env[Any, Any]) -> None:
    """Fail where a step before a reset, or an action that there is not, is taken."""
    for message, action in (("call reset", 0), ("an action from 0 to 0", 1)):
        with pytest.raises(RMRError, match=message):
            env.step(action)
        env.reset(seed=0)
    assert env.get_wrapper_attr("get_action_meanings")() == ["no-op"]
