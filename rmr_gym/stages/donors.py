"""Donors that are not games: a random world, an amplified random P, a P from a folder."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.data.ram import bits_to_ram, high_entropy_bytes
from rmr_gym.domains.atari import ACTIONS, BITS, SLOTS, AbstractData, AtariModel, make_core
from rmr_gym.models.rmr.processors import load_weights, parameter_hash
from rmr_gym.runs.store import Artifact, Task, read_artifact, stage
from rmr_gym.stages.games import PRETRAIN_SEED
from rmr_gym.stages.presets import Preset
from rmr_gym.stages.pretrain import pretrain

RANDOM_DYNAMICS, AMPLIFIED_RANDOM = "random_dynamics", "amplified_random"


def random_dynamics_donor(preset: Preset, device: str = "cpu") -> Task:
    """Return the task of a P pretrained on random dynamics, as much and as long as on a game."""
    recording = preset.recording
    world = RandomDynamics(
        recording.train_episodes,
        recording.validation_episodes,
        recording.max_steps,
        recording.entropy_threshold,
    )
    return pretrain(world, preset.model, preset.pretraining, device=device)


AMPLIFICATION = 8.0
"""How much more of a difference between two states a trained P's core passes on than a random one:
3.3 over .41, means over six games' P and the frames of three games (``results/processor_gain.csv``,
fixed before the first run with it)."""


@stage(version=2)
def amplified_random(model: AtariModel, seed: int = PRETRAIN_SEED) -> Artifact:
    """Make a P that has learnt nothing, but whose core has the gain of a trained one.

    It is the P that pretraining starts from, with the output layer of its core multiplied by
    `AMPLIFICATION`. This control separates what P learnt from how large its output became.

    Raises:
        RMRError: The model's core has no layers.
    """
    processor = make_core(model, model.core, seed)
    layers = [module for module in processor.core.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise RMRError("expected a core with layers to amplify, found the core 'none'")
    with torch.no_grad():
        for parameter in layers[-1].parameters():
            parameter.mul_(AMPLIFICATION)
    return processor_artifact(processor)


def processor_artifact(processor: nn.Module) -> Artifact:
    """Return an artifact that holds a P alone, to be used as a donor."""
    tensors = {f"processor.{name}": tensor for name, tensor in processor.state_dict().items()}
    return Artifact({"processor_hash": parameter_hash(processor)}, tensors)


@dataclass(frozen=True)
class ProcessorFolder:
    """A folder with a pretrained P, which counts by its weights and not by its path.

    Attributes:
        label: What the donor is called.
        path: Folder of `rmr-gym pretrain`, of a game or of balls.
    """

    label: str
    path: Path

    def key(self) -> str:
        """Return the hash of the weights."""
        return str(read_artifact(self.path).record.get("processor_hash"))

    def tensors(self, model: AtariModel) -> dict[str, Tensor]:
        """Return the weights of P.

        Those of balls, which know no actions and may make several passes, give the core of their
        first pass; the action encoder is a fresh one.

        Raises:
            RMRError: The folder is missing, holds something else, or does not fit the model.
        """
        artifact = read_artifact(self.path)
        tensors = artifact.part("processor")
        if any(name.startswith("cores.") for name in tensors):
            tensors = _with_fresh_actions(tensors, model)
        check_donor(self.label, tensors, model)
        return tensors


def folder_donor(name: str, folder: Path, model: AtariModel) -> Task:
    """Return the task of the P that an artifact folder holds.

    Raises:
        RMRError: The folder is missing, holds something else, or does not fit the model.
    """
    given = ProcessorFolder(name, folder)
    given.tensors(model)
    return given_processor(given, model)


@stage(version=1)
def given_processor(folder: ProcessorFolder, model: AtariModel) -> Artifact:
    """Read a P from a folder, to be used as a donor; see `ProcessorFolder`."""
    processor = make_core(model, model.core, PRETRAIN_SEED)
    load_weights(processor, folder.tensors(model), f"the donor {folder.label!r}")
    encoder = read_artifact(folder.path).part("encoder")
    artifact = processor_artifact(processor)
    artifact.tensors.update({f"encoder.{name}": tensor for name, tensor in encoder.items()})
    return artifact


def check_donor(name: str, tensors: dict[str, Tensor], model: AtariModel) -> str:
    """Return the hash of a donor's P.

    Raises:
        RMRError: It has other latents, other actions or another core than the recipient's model.
    """
    if "action_encoder.weight" not in tensors:
        raise RMRError(
            f"the donor {name!r} holds no processor with an action encoder: expected a folder "
            "written by `rmr-gym pretrain`"
        )
    dim, actions = tensors["action_encoder.weight"].shape
    if (dim, actions) != (model.dim, ACTIONS):
        raise RMRError(
            f"the donor {name!r} has latents of width {dim} and {actions} actions, expected "
            f"{model.dim} and {ACTIONS}: pretrain it with the sizes of the recipients"
        )
    processor = make_core(model, model.core, PRETRAIN_SEED)
    load_weights(processor, tensors, f"the donor {name!r}")
    return parameter_hash(processor)


def _with_fresh_actions(tensors: dict[str, Any], model: AtariModel) -> dict[str, Tensor]:
    start = "cores.0."
    fresh = make_core(model, model.core, PRETRAIN_SEED).state_dict()
    actions = {name: value for name, value in fresh.items() if name.startswith("action_encoder.")}
    core = {
        f"core.{name.removeprefix(start)}": value
        for name, value in tensors.items()
        if name.startswith(start)
    }
    return actions | core


class RandomWorld(NamedTuple):
    r"""Random dynamics on bytes.

    A byte changes when one bit of one other byte, its gate, is set. Then its bits trade places in
    an order of its own, and some flip, which ones depending on the action:

    .. math:: x'_i = \sigma_i(x_i) \oplus m_{i,a} \text{ if bit } b_i \text{ of } x_{p_i}
              \text{ is set, else } x_i

    Orders, masks and gates are drawn once. Episodes start from uniform bytes; actions are uniform.

    Source: RMR, Appendix E (abstract inputs from a generic random distribution); the paper
    transfers no such P. Differs: everything, it is a control.
    """

    parent: Int[np.ndarray, " bytes"]
    gate: Int[np.ndarray, " bytes"]
    order: Int[np.ndarray, "bytes bits"]
    masks: UInt8[np.ndarray, "actions bytes bits"]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "RandomWorld":
        """Draw a world; no byte is its own gate."""
        parent = (np.arange(SLOTS) + rng.integers(1, SLOTS, SLOTS)) % SLOTS
        order = rng.permuted(np.tile(np.arange(BITS), (SLOTS, 1)), axis=1)
        masks = rng.integers(0, 2, (ACTIONS, SLOTS, BITS), dtype=np.uint8)
        return cls(parent, rng.integers(0, BITS, SLOTS), order, masks)

    def step(
        self, bits: UInt8[np.ndarray, "rows bytes bits"], action: Int[np.ndarray, " rows"]
    ) -> UInt8[np.ndarray, "rows bytes bits"]:
        """Return the bits after ``action``."""
        moved = np.take_along_axis(bits, self.order[None], axis=-1) ^ self.masks[action]
        is_open = bits[:, self.parent, self.gate].astype(bool)
        return np.where(is_open[..., None], moved, bits)

    def record(self, rng: np.random.Generator, episodes: int, steps: int) -> AbstractData:
        """Play episodes of uniform actions."""
        action = rng.integers(0, ACTIONS, (episodes, steps))
        bits = np.empty((episodes, steps + 1, SLOTS, BITS), np.uint8)
        bits[:, 0] = rng.integers(0, 2, (episodes, SLOTS, BITS))
        for time in range(steps):
            bits[:, time + 1] = self.step(bits[:, time], action[:, time])
        rows = bits.reshape(-1, SLOTS, BITS)
        current = np.delete(np.arange(len(rows)), np.s_[steps :: steps + 1])
        return AbstractData(rows, action.ravel(), current, bits_to_ram(rows))


@dataclass(frozen=True)
class RandomDynamics:
    """Episodes of the one random world that P can be pretrained on.

    Attributes:
        train_episodes: Episodes to learn from.
        validation_episodes: Episodes of the same world to score on.
        steps: Of each episode.
        entropy_threshold: Bytes above so many nats are scored.
    """

    train_episodes: int
    validation_episodes: int
    steps: int
    entropy_threshold: float = 0.6
    label: str = RANDOM_DYNAMICS

    def key(self) -> dict[str, Any]:
        """Return what decides results."""
        episodes = [self.train_episodes, self.validation_episodes, self.steps]
        return {"world": RANDOM_DYNAMICS, "version": 1, "episodes": episodes} | {
            "threshold": self.entropy_threshold
        }

    def abstract(self, part: str) -> AbstractData:
        """Return the "training" or the "validation" transitions."""
        sizes = {"training": self.train_episodes, "validation": self.validation_episodes}
        return _played(part, sizes[part], self.steps)

    @property
    def scored_bytes(self) -> np.ndarray:
        """The bytes that are scored."""
        return high_entropy_bytes(self.abstract("training").ram, self.entropy_threshold)


@lru_cache(maxsize=2)
def _played(part: str, episodes: int, steps: int) -> AbstractData:
    world = RandomWorld.draw(generator(0, RANDOM_DYNAMICS))
    return world.record(generator(0, RANDOM_DYNAMICS, part), episodes, steps)
