"""The small network of a trained policy: what the RAM shows, and how it changed, to 18 scores."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Float32, Float64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import os_errors, write_file

RAM_SLOTS = 128
HIDDEN = (96, 64)
"""Widths of the two hidden layers."""


def ram_features(
    ram: UInt8[np.ndarray, "*batch slots"], before: UInt8[np.ndarray, "*batch slots"]
) -> Float32[np.ndarray, "*batch features"]:
    """Return what a trained policy sees: each byte scaled to [-1, 1], and its change.

    Args:
        ram: RAM now.
        before: RAM one step earlier; the same at the start of an episode.

    Returns:
        Two numbers a slot: all bytes in [-1, 1], then all changes in [-2, 2].
    """
    now = ram.astype(np.float32) / np.float32(127.5)
    then = before.astype(np.float32) / np.float32(127.5)
    return np.concatenate((now - 1, now - then), axis=-1)


@dataclass(frozen=True)
class RamNetwork:
    """Three linear layers with tanh between them, run with numpy.

    The arithmetic is in double precision, so that no processor's way of rounding decides what is
    played; the weights are stored in half precision.

    Attributes:
        layers: Weight [out, in] and bias [out] of each layer.
    """

    layers: tuple[tuple[Float64[np.ndarray, "_ _"], Float64[np.ndarray, " _"]], ...]

    def scores(self, features: Float32[np.ndarray, " features"]) -> Float64[np.ndarray, " actions"]:
        """Return the logit of each action."""
        *hidden, (weight, bias) = self.layers
        values = features.astype(np.float64)
        for inner_weight, inner_bias in hidden:
            values = np.tanh(inner_weight @ values + inner_bias)
        return weight @ values + bias

    def tensors(self) -> dict[str, Float16[np.ndarray, "..."]]:
        """Return the layers by name, in half precision, as they are stored."""
        named: dict[str, np.ndarray] = {}
        for number, (weight, bias) in enumerate(self.layers):
            named[f"{number}.weight"] = weight.astype(np.float16)
            named[f"{number}.bias"] = bias.astype(np.float16)
        return named

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> "RamNetwork":
        """Return the network whose layers `tensors` named.

        Raises:
            RMRError: They are not the layers of such a network.
        """
        widths = (2 * RAM_SLOTS, *HIDDEN, 18)
        shapes = {
            name: shape
            for number, (inside, outside) in enumerate(pairwise(widths))
            for name, shape in {
                f"{number}.weight": (outside, inside),
                f"{number}.bias": (outside,),
            }.items()
        }
        found = {name: tensor.shape for name, tensor in tensors.items()}
        if found != shapes:
            raise RMRError(f"expected the layers of a RAM policy, {shapes}, found {found}")
        wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
        return cls(tuple((wide[f"{n}.weight"], wide[f"{n}.bias"]) for n in range(len(widths) - 1)))


def save_networks(
    path: Path, networks: Mapping[str, RamNetwork], notes: Mapping[str, object]
) -> None:
    """Write networks, each under a name, and notes about them, to one safetensors file.

    Raises:
        RMRError: The file cannot be written.
    """
    tensors = {
        f"{name}.{part}": tensor
        for name, network in networks.items()
        for part, tensor in network.tensors().items()
    }
    with os_errors(path):
        write_file(path, save(tensors, metadata={"notes": json.dumps(notes, sort_keys=True)}))


def load_networks(path: Path) -> tuple[dict[str, RamNetwork], dict[str, object]]:
    """Return the networks by name, and the notes, that `save_networks` wrote.

    Raises:
        RMRError: The file is missing or holds something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            notes = json.loads((file.metadata() or {}).get("notes", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise RMRError(f"expected the weights of trained policies in {path}: {error}") from error
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.partition(".")
        parts.setdefault(name, {})[part] = tensor
    return {name: RamNetwork.from_tensors(part) for name, part in parts.items()}, notes
