"""The world models by name, their sizes, and how they are trained and scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from torch import nn

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.models.world.base import CUT
from rmr_gym.models.world.frames import RIMS_MODELS, RIMS_SIZES, Memoryless, MemorylessSizes
from rmr_gym.models.world.nem import NEM_MODELS, NEM_SIZES
from rmr_gym.models.world.s2rm import S2RM_MODELS, S2RM_SIZES
from rmr_gym.stages.arms import ARMS, Arm


@dataclass(frozen=True)
class WorldPreset:
    """Everything that fixes a run but data, model and seeds.

    Attributes:
        name: In `WORLD_PRESETS`, and a key of every entry's sizes.
        steps: Gradient steps at most.
        batch: Sequences a step.
        length: Frames that a model sees in training; it predicts the one after each.
        check_every: Gradient steps between two looks at the validation loss.
        patience: Looks without improvement after which training ends.
        learning_rate: Of Adam.
        validation_share: Share of the episodes that are not trained on.
        sequences: At most so many sequences are scored.
        last: Predictions at the end of a sequence that the scores are taken on.
        seen: Frames that are shown before a simulation.
        ahead: Frames that are simulated.
        cut: Of predictions that a model takes in, see `rmr_gym.models.world.base.WorldModel`; gray
            frames are never cut.
    """

    name: str
    steps: int
    batch: int
    length: int
    check_every: int
    patience: int = 10
    learning_rate: float = 1e-3
    validation_share: float = 0.1
    sequences: int = 1000
    last: int = 10
    seen: int = 10
    ahead: int = 10
    cut: float = CUT

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch, self.length, self.check_every, self.patience)
        scored = (self.sequences, self.last, self.seen, self.ahead)
        if min(*counts, *scored) < 1 or self.last >= self.length:
            raise RMRError(
                "expected counts of 1 or more and fewer last predictions than frames of a "
                f"sequence, got {self}"
            )
        if not (0 < self.learning_rate < inf and 0 < self.validation_share < 1):
            raise RMRError(
                "expected a learning rate above 0 and a validation share between 0 and 1, got "
                f"{self.learning_rate} and {self.validation_share}"
            )
        if not 0 <= self.cut < 1:
            raise RMRError(f"expected a cut from 0 to less than 1, got {self.cut}")

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Steps after which the validation loss is looked at."""
        return (*range(self.check_every, self.steps, self.check_every), self.steps)

    @property
    def horizon(self) -> int:
        """Frames of the longest sequence that is scored."""
        return max(self.length + 1, self.seen + self.ahead)


WORLD_PRESETS: dict[str, WorldPreset] = {
    "smoke": WorldPreset(
        "smoke", 6, 4, 5, 3, sequences=8, last=2, seen=3, ahead=2, validation_share=0.4
    ),
    "laptop": WorldPreset("laptop", 4000, 16, 15, 250, sequences=200, last=10),
    "paper": WorldPreset("paper", 390_500, 64, 30, 781, seen=20),
}
"""Presets by name. "paper" is R-NEM's: 50,000 sequences in batches of 64 are 781 steps an epoch, at
most 500 epochs, early stopping after 10 without improvement. Differs: 20 frames are shown before 10
are simulated, where R-NEM's Figure 4 shows 5 and the RIMs' authors 15."""

CROPS_PRESETS: dict[str, WorldPreset] = {
    "smoke": WORLD_PRESETS["smoke"],
    "laptop": replace(WORLD_PRESETS["laptop"], length=20, seen=20, ahead=25),
    "paper": WorldPreset(
        "paper", 125_000, 32, 99, 625, learning_rate=3e-4, last=79, seen=20, ahead=25
    ),
}
"""Presets of the models that see crops. "paper" is S2RM's: 20,000 sequences of 100 frames in
batches of 32 are 625 steps an epoch, at most 200 epochs. Its rate is not lowered on plateaus."""


@dataclass(frozen=True)
class WorldEntry:
    """One world model.

    Attributes:
        make: Makes it from (height, width and channels of a frame, sizes, number of actions or 0).
        sizes: A frozen dataclass a preset, by the preset's name.
        grouped: Whether it has a number of groups that can be chosen, ``sizes.groups`` in training
            and ``model.groups`` at any time.
        presets: How it is trained and scored, by the preset's name.
        arm: Where the P inside comes from and whether it learns; None for models without.
    """

    make: Callable[[tuple[int, int, int], Any, int], nn.Module]
    sizes: Mapping[str, Any]
    grouped: bool = False
    presets: Mapping[str, WorldPreset] = field(default_factory=lambda: WORLD_PRESETS)
    arm: Arm | None = None


_INSIDE = {"rmr": "rmr", "fresh_p": "cswm", "random_p": "random_p", "shuffled_p": "shuffled_p"}

WORLD_MODELS: dict[str, WorldEntry] = {
    **{
        name: WorldEntry(make, NEM_SIZES, grouped=name not in ("rnn", "lstm"))
        for name, make in NEM_MODELS.items()
    },
    **{name: WorldEntry(make, RIMS_SIZES) for name, make in RIMS_MODELS.items()},
    "memoryless": WorldEntry(
        Memoryless,
        dict.fromkeys(WORLD_PRESETS, MemorylessSizes()),
        presets={
            name: replace(preset, learning_rate=1e-2) for name, preset in WORLD_PRESETS.items()
        },
    ),
}
WORLD_MODELS |= {
    f"{family}_{name}": replace(WORLD_MODELS[family], arm=ARMS[arm])
    for family in ("rnem", "rims")
    for name, arm in _INSIDE.items()
}
WORLD_MODELS |= {
    name: WorldEntry(make, S2RM_SIZES, presets=CROPS_PRESETS) for name, make in S2RM_MODELS.items()
}
"""World models by name. In ``rnem_*`` and ``rims_*`` groups or RIMs act on each other through a P:
pretrained and frozen (rmr), fresh and trained (fresh_p), fresh and frozen (random_p), pretrained,
shuffled and frozen (shuffled_p); all else in them starts from the same weights."""


def find_world_preset(name: str, model: str | None = None) -> WorldPreset:
    """Return a preset by name.

    Args:
        name: Of the preset.
        model: Whose preset; None for the presets that most models share.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    presets = WORLD_PRESETS if model is None else find_world_model(model).presets
    if name not in presets:
        raise unknown_name("preset", name, presets)
    return presets[name]


def find_world_model(name: str) -> WorldEntry:
    """Return a model's entry by name.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    if name not in WORLD_MODELS:
        raise unknown_name("world model", name, WORLD_MODELS)
    return WORLD_MODELS[name]
