"""A game under a preset: makes the tasks of the chain pretrain -> natural -> probe."""

from dataclasses import dataclass, replace
from typing import Any

from rmr_gym.domains.atari import SLOTS
from rmr_gym.runs.store import Task
from rmr_gym.stages.belief import Believing, evidence
from rmr_gym.stages.games import PRETRAIN_SEED, PROBE_SEED, GameData
from rmr_gym.stages.measures import headroom, horizons, label_probe, ranking
from rmr_gym.stages.natural import natural, pretrain, supervised, untrained
from rmr_gym.stages.presets import ARMS, Preset, find_arm
from rmr_gym.stages.probe import PixelReference, Reference, probe

SUPERVISED, UNTRAINED, PIXELS = "supervised", "untrained", "pca"
REFERENCES = (UNTRAINED, SUPERVISED, PIXELS)
"""Columns that stand beside the arms and share their probe: no training; RAM; pixels."""

ENCODERS = (*ARMS, SUPERVISED, UNTRAINED)
"""What leaves an encoder: the arms, and the references that have one."""


@dataclass(frozen=True)
class GameTasks:
    """A game under a preset.

    Attributes:
        data: Its data set and split.
        preset: Configurations of the stages.
        device: Where to compute, for instance "cpu" or "cuda".
    """

    data: GameData
    preset: Preset
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of the game."""
        return self.data.label

    def with_preset(self, **changes: Any) -> "GameTasks":
        """Return the game with other configurations of some stages.

        Args:
            **changes: Fields of a configuration by its name, for instance ``model={"dim": 8}``.
        """
        parts = {
            name: replace(getattr(self.preset, name), **fields) for name, fields in changes.items()
        }
        return replace(self, preset=replace(self.preset, **parts))

    def pretrained(self, seed: int = PRETRAIN_SEED) -> Task:
        """Return the task of P pretrained on the game's RAM."""
        preset = self.preset
        return pretrain(self.data, preset.model, preset.pretraining, seed, self.device)

    def trained(self, arm: str, seed: int, donor: Task | None = None) -> Task:
        """Return the task of an arm's pixel pipelines, or of a reference's encoder.

        Args:
            arm: A name in `ENCODERS`.
            seed: Shared by paired arms.
            donor: Whose P is used; None: the game's own.

        Raises:
            RMRError: Unknown arm.
        """
        preset = self.preset
        if arm == SUPERVISED:
            configs = (preset.model, preset.natural, preset.probing)
            return supervised(self.data, *configs, seed, self.device)
        if arm == UNTRAINED:
            return untrained(self.data, preset.model, preset.natural, seed)
        given = (donor or self.pretrained()) if find_arm(arm).pretrained else None
        return natural(self.data, preset.model, preset.natural, arm, seed, given, self.device)

    def probed(self, features: Task | Reference) -> Task:
        """Return the task of the bit probe of encoders, or of features from elsewhere."""
        return probe(self.data, self.preset.model, self.preset.probing, features, self.device)

    def labelled(self, features: Task | Reference) -> Task:
        """Return the task of the label probe of encoders, or of features from elsewhere."""
        return label_probe(self.data, self.preset.model, self.preset.probing, features, self.device)

    def ranked(self, pipelines: Task) -> Task:
        """Return the task of the ranking of an arm's predictions."""
        preset = self.preset
        return ranking(self.data, preset.model, preset.natural, pipelines, self.device)

    def measured(self, features: Task | Reference) -> Task:
        """Return the task of the measures with headroom of encoders, or of other features."""
        data, model, probing = self.data, self.preset.model, self.preset.probing
        read = evidence(data, model, Believing().hidden, probing.train_rows, PROBE_SEED)
        return headroom(data, model, probing, read, features, self.device)

    def rolled(self, seed: int = PRETRAIN_SEED) -> Task:
        """Return the task of the abstract pipeline's scores by number of predicted steps."""
        return horizons(self.data, self.preset.model, self.pretrained(seed), self.device)

    @property
    def pixels(self) -> Reference:
        """The principal components of the pixels, as many as the encoder's latents are wide."""
        return PixelReference(SLOTS * self.preset.model.dim)

    def scored(self, arm: str, seed: int) -> Task:
        """Return the task of the bit probe of an arm or of any reference."""
        return self.probed(self.pixels if arm == PIXELS else self.trained(arm, seed))
