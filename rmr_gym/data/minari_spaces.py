"""Gymnasium's spaces and specs for what a manifest describes, as Minari stores them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rmr_gym.data.schema import ColumnSpec, Manifest

_ALONE = "observation"
"""Column of an observation that is one array, not a Dict."""


def as_observation(columns: Mapping[str, Any]) -> Any:
    """Undo `rmr_gym.data.schema.flatten` for whole columns."""
    return columns[_ALONE] if list(columns) == [_ALONE] else _nested(columns)


def observation_space(manifest: Manifest) -> spaces.Space[Any]:
    """Return the widest space of the observations; bounds are not recorded."""
    boxes = {column.name: _box(column) for column in manifest.observations}
    return boxes[_ALONE] if list(boxes) == [_ALONE] else _dict_space(_nested(boxes))


def _dict_space(parts: Mapping[str, Any]) -> spaces.Space[Any]:
    return spaces.Dict(
        {key: _dict_space(part) if isinstance(part, dict) else part for key, part in parts.items()}
    )


def action_space(manifest: Manifest) -> spaces.Space[Any]:
    """Return the space of the actions, discrete or the widest of its type."""
    if manifest.actions is not None:
        return spaces.Discrete(manifest.actions)
    return _box(manifest.columns["action"])


def _box(column: ColumnSpec) -> spaces.Box:
    dtype: Any = np.dtype(column.dtype)
    if dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, column.shape, dtype)
    if dtype.kind == "b":
        return spaces.Box(0, 1, column.shape, dtype)
    limits = np.iinfo(dtype)
    return spaces.Box(limits.min, limits.max, column.shape, dtype)


def env_spec(manifest: Manifest) -> Any:
    """Return what makes the environment, where its id is known and no wrapper was around it."""
    if manifest.env_id is None or manifest.settings.get("wrappers"):
        return None
    try:
        spec = gym.spec(manifest.env_id)
    except gym.error.Error:
        return None
    return replace(spec, kwargs=manifest.env_kwargs)


def _nested(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `rmr_gym.data.schema.flatten`: names with dots become a Dict within a Dict."""
    nested: dict[str, Any] = {}
    for name, value in columns.items():
        *path, last = name.split(".")
        inner = nested
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return nested
