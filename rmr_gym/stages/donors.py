"""Donors that are not games: a random world, an amplified random P, a P from a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import ACTIONS, AtariModel, make_core
from rmr_gym.domains.random_world import RandomDynamics
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
