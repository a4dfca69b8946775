"""The small network of a trained player: what the RAM shows, and how it changed, to 18 scores."""

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
from rmr_gym.core.files import write_atomically
from rmr_gym.envs.atari.games import ACTION_NAMES

RAM_BYTES = 128
HIDDEN = (96, 64)
"""Widths of the two hidden layers."""


def ram_features(
    ram: UInt8[np.ndarray, "*batch ram"], before: UInt8[np.ndarray, "*batch ram"]
) -> Float32[np.ndarray, "*batch features"]:
    """Return what a trained player sees: each byte scaled to [-1, 1], and its change.

    Args:
        ram: RAM now.
        before: RAM one step earlier; the same at the start of an episode.

    Returns:
        Two numbers a byte: all bytes in [-1, 1], then all changes in [-2, 2].
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

    def hidden(
        self, features: Float32[np.ndarray, "*batch features"]
    ) -> Float64[np.ndarray, "*batch width"]:
        """Return the activations of the last hidden layer, from which the actions are scored."""
        values = features.astype(np.float64)
        for weight, bias in self.layers[:-1]:
            values = np.tanh(values @ weight.T + bias)
        return values

    def scores(
        self, features: Float32[np.ndarray, "*batch features"]
    ) -> Float64[np.ndarray, "*batch actions"]:
        """Return the logit of each action."""
        weight, bias = self.layers[-1]
        return self.hidden(features) @ weight.T + bias

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
        widths = (2 * RAM_BYTES, *HIDDEN, len(ACTION_NAMES))
        shapes: dict[str, tuple[int, ...]] = {}
        for number, (inside, outside) in enumerate(pairwise(widths)):
            shapes |= {f"{number}.weight": (outside, inside), f"{number}.bias": (outside,)}
        came = {name: tensor.shape for name, tensor in tensors.items()}
        if came != shapes:
            raise RMRError(f"expected the layers of a RAM policy, {shapes}, found {came}")
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
    write_atomically(path, save(tensors, metadata={"notes": json.dumps(notes, sort_keys=True)}))


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
        raise RMRError(f"expected the weights of trained players in {path}: {error}") from error
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.partition(".")
        parts.setdefault(name, {})[part] = tensor
    return {name: RamNetwork.from_tensors(part) for name, part in parts.items()}, notes
