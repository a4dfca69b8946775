"""Whose P is carried over: a game's, a random world's, an amplified random one, a folder's."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.ram import bits_to_ram, high_entropy_slots
from rmr_gym.domains.atari import ACTIONS, BITS, SLOTS, AbstractData, AtariModel, make_core
from rmr_gym.models.rmr.processors import load_weights, parameter_hash
from rmr_gym.protocol import stages
from rmr_gym.protocol.config import as_json
from rmr_gym.protocol.pretrain import pretrain
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import Artifact, Scratch, Store, read_artifact

RANDOM_DYNAMICS, AMPLIFIED_RANDOM = "random_dynamics", "amplified_random"
BALLS_KIND = "balls processor"
_WORLD = {"world": RANDOM_DYNAMICS, "version": 1}
_AMPLIFIED = {"processor": AMPLIFIED_RANDOM, "version": 1}

AMPLIFICATION = 8.0
"""How much more of a difference between two states a trained P's core passes on than a random one:
3.3 over .41, means over six games' P and the frames of three games (``results/processor_gain.csv``,
fixed before the first run with it)."""


class Donor(NamedTuple):
    """A pretrained P under a name.

    Attributes:
        name: In the tables.
        pretrained: Gives the artifact: trained when first asked for, then found in the store.
        inputs: JSON of what decides it.
        task: The game that it is, if it is one.
    """

    name: str
    pretrained: Callable[[], Artifact]
    inputs: dict[str, Any]
    task: GameTask | None = None


def game_donor(task: GameTask) -> Donor:
    """Return the donor that is a game: P pretrained on its RAM."""
    fingerprint = TransitionDataset(task.data).fingerprint
    return Donor(task.game, partial(stages.pretrained, task), {"data": fingerprint}, task)


def random_dynamics_donor(task: GameTask) -> Donor:
    """Return a donor of the task's sizes that knows nothing of the console: see `RandomWorld`."""
    return Donor(RANDOM_DYNAMICS, partial(pretrained_on_random_dynamics, task), _WORLD)


def amplified_random_donor(task: GameTask) -> Donor:
    """Return a donor that nothing was learnt by, but whose core speaks as loud as a trained one.

    It is the P that pretraining starts from, with the output layer of its core multiplied by
    `AMPLIFICATION`. A frozen random P is quiet beside the skip around it; this control tells what
    P learnt from how loud it became.
    """
    return Donor(AMPLIFIED_RANDOM, partial(amplified_random, task), _AMPLIFIED)


def amplified_random(task: GameTask) -> Artifact:
    """Make the P of `amplified_random_donor`.

    Raises:
        RMRError: The model's core has no layers.
    """
    processor = make_core(task.preset.model, task.preset.model.core, stages.PRETRAIN_SEED)
    layers = [module for module in processor.core.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise RMRError("expected a core with layers to amplify, found the core 'none'")
    with torch.no_grad():
        for parameter in layers[-1].parameters():
            parameter.mul_(AMPLIFICATION)
    parts = {f"processor.{name}": tensor for name, tensor in processor.state_dict().items()}
    return Artifact({"processor_hash": parameter_hash(processor)}, parts)


def folder_donor(name: str, folder: Path, model: AtariModel) -> Donor:
    """Return the donor that an artifact folder holds.

    One of `rmr-gym pretrain` is taken as it is. One of `rmr-gym balls pretrain`, which knows no
    actions and may make several passes, gives the core of its first pass; the action encoder is a
    fresh one.

    Raises:
        RMRError: The folder is missing, holds something else, or does not fit the model.
    """
    processor_hash = read_donor(name, folder, model).record["processor_hash"]
    return Donor(name, partial(read_donor, name, folder, model), {"processor": processor_hash})


def read_donor(name: str, folder: Path, model: AtariModel) -> Artifact:
    """Read a donor's P from an artifact folder; see `folder_donor`."""
    artifact = read_artifact(folder)
    tensors = artifact.part("processor")
    if artifact.record.get("kind") == BALLS_KIND:
        tensors = _with_fresh_actions(tensors, model)
    processor_hash = check_donor(name, tensors, model)
    parts = {f"processor.{part}": tensor for part, tensor in tensors.items()}
    return Artifact({"processor_hash": processor_hash}, parts)


def check_donor(name: str, tensors: dict[str, Tensor], model: AtariModel) -> str:
    """Return the hash of a donor's P.

    Raises:
        RMRError: It has other latents, other actions or another core than the recipient's model.
    """
    if "action_encoder.weight" not in tensors:
        raise RMRError(
            f"the donor {name!r} holds no processor with an action encoder: expected a folder "
            "written by `rmr-gym pretrain` or `rmr-gym balls pretrain`"
        )
    dim, actions = tensors["action_encoder.weight"].shape
    if (dim, actions) != (model.dim, ACTIONS):
        raise RMRError(
            f"the donor {name!r} has latents of width {dim} and {actions} actions, expected "
            f"{model.dim} and {ACTIONS}: pretrain it with the sizes of the recipients"
        )
    processor = make_core(model, model.core, stages.PRETRAIN_SEED)
    load_weights(processor, tensors, f"the donor {name!r}")
    return parameter_hash(processor)


def _with_fresh_actions(tensors: dict[str, Tensor], model: AtariModel) -> dict[str, Tensor]:
    start = "cores.0."
    fresh = make_core(model, model.core, stages.PRETRAIN_SEED).state_dict()
    actions = {name: value for name, value in fresh.items() if name.startswith("action_encoder.")}
    core = {
        f"core.{name.removeprefix(start)}": value
        for name, value in tensors.items()
        if name.startswith(start)
    }
    return actions | core


class RandomWorld(NamedTuple):
    r"""Random dynamics on bytes of the console's sizes, without any of its knowledge.

    A cell changes when one bit of one other cell, its gate, is set. Then its bits trade places in
    an order of its own, and some flip, which ones depending on the action:

    .. math:: x'_i = \sigma_i(x_i) \oplus m_{i,a} \text{ if bit } b_i \text{ of } x_{p_i}
              \text{ is set, else } x_i

    Orders, masks and gates are drawn once. Episodes start from uniform bytes; actions are uniform.

    Source: RMR, Appendix E (abstract inputs from a generic random distribution); the paper
    transfers no such P. Differs: everything, it is a control.
    """

    parent: Int[np.ndarray, " slots"]
    gate: Int[np.ndarray, " slots"]
    order: Int[np.ndarray, "slots bits"]
    masks: UInt8[np.ndarray, "actions slots bits"]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "RandomWorld":
        """Draw a world; no cell is its own gate."""
        parent = (np.arange(SLOTS) + rng.integers(1, SLOTS, SLOTS)) % SLOTS
        order = rng.permuted(np.tile(np.arange(BITS), (SLOTS, 1)), axis=1)
        masks = rng.integers(0, 2, (ACTIONS, SLOTS, BITS), dtype=np.uint8)
        return cls(parent, rng.integers(0, BITS, SLOTS), order, masks)

    def step(
        self, bits: UInt8[np.ndarray, "rows slots bits"], action: Int[np.ndarray, " rows"]
    ) -> UInt8[np.ndarray, "rows slots bits"]:
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


def random_dynamics(episodes: int, steps: int, part: str) -> AbstractData:
    """Record the one random world that serves as a donor.

    Args:
        episodes: How many.
        steps: Of each.
        part: "training" or "validation": different episodes of the same world.
    """
    world = RandomWorld.draw(generator(0, RANDOM_DYNAMICS))
    return world.record(generator(0, RANDOM_DYNAMICS, part), episodes, steps)


def pretrained_on_random_dynamics(task: GameTask) -> Artifact:
    """Return P pretrained on random dynamics, as much and as long as on a game."""
    preset, recording = task.preset, task.preset.recording

    def run(scratch: Scratch) -> Artifact:
        sizes = {"training": recording.train_episodes, "validation": recording.validation_episodes}
        training, validation = (
            random_dynamics(episodes, recording.max_steps, part) for part, episodes in sizes.items()
        )
        return pretrain(
            preset.pretraining,
            preset.model,
            training,
            validation,
            high_entropy_slots(training.ram, preset.probing.entropy_threshold),
            seed=stages.PRETRAIN_SEED,
            device=task.device,
            scratch=scratch,
        )

    key = {
        "data": _WORLD,
        "episodes": [recording.train_episodes, recording.validation_episodes, recording.max_steps],
        "model": as_json(preset.model),
        "device": task.device,
        "config": as_json(preset.pretraining),
        "seed": stages.PRETRAIN_SEED,
        "threshold": preset.probing.entropy_threshold,
    }
    return Store(task.store).get_or_run("pretrain", key, run)
