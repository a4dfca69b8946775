"""What must be known to rebuild a pretrained encoder: one of a game's screens, or one of balls."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.models.objects import CellFeatures, FrameStackEncoder, SlotEncoder
from rmr_gym.models.rmr.encoders import TRUNKS, SlotCNN
from rmr_gym.models.rmr.processors import (
    CORES,
    PassiveProcessor,
    Processor,
    ProcessorSizes,
    make_processor,
)

_OF_P = (
    ("processor", "core", CORES),
    ("aggregation", "aggregation", ("max", "sum", "mean")),
    ("precision", "precision", ("fp32", "bf16")),
)
"""What names a choice: its kind, its field, the choices."""


@dataclass(frozen=True)
class EncoderConfig:
    """What must be known to rebuild an encoder, and P if the artifact holds one.

    Attributes:
        game: Name of the game whose screens the encoder was trained on, for instance "Pong".
        height: Rows of the gray frame that it sees, shrunk from the screen's 210 by area.
        width: Columns of that frame, shrunk from the screen's 160 by area.
        slots: Number of slots.
        maps: Feature maps a slot.
        dim: Width of a slot's latent vector.
        trunk: A name in `rmr_gym.models.rmr.encoders.TRUNKS`.
        core: Core of P, a name in `rmr_gym.models.rmr.processors.CORES`; None without P.
        aggregation: Aggregation of P's messages: max, sum or mean.
        precision: Arithmetic of P's messages: fp32 or bf16.
        actions: Number of actions that P knows.
        affine: Whether an affine map a slot follows, as after an aligned start.

    Raises:
        RMRError: A value is of another type, unknown or out of range.
    """

    kind: ClassVar[str] = "rmr_gym encoder"
    instants: ClassVar[int] = 1

    game: str
    height: int = 84
    width: int = 84
    slots: int = 128
    maps: int = 1
    dim: int = 64
    trunk: str = "nature"
    core: str | None = None
    aggregation: str = "max"
    precision: str = "fp32"
    actions: int = 18
    affine: bool = False

    def __post_init__(self) -> None:
        largest = {"height": 210, "width": 160, "slots": 1024, "maps": 64, "actions": 1024}
        _check_sizes(self, {**largest, "dim": 4096})
        if type(self.affine) is not bool:
            raise RMRError(f"expected affine as true or false, found {self.affine!r}")
        _check_names(self, [("trunk", "trunk", TRUNKS), *_OF_P])

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of the bytes that the encoder takes: one gray frame."""
        return (self.height, self.width)

    def encoder(self) -> SlotCNN:
        """Make an encoder of these sizes, with weights from torch's own generator."""
        return SlotCNN(
            self.height,
            self.width,
            slots=self.slots,
            maps=self.maps,
            dim=self.dim,
            trunk=self.trunk,
            affine=self.affine,
        )

    def processor(self) -> Processor | None:
        """Make P of these sizes, with weights from torch's own generator; None without P."""
        if self.core is None:
            return None
        return make_processor(
            self.core,
            slots=self.slots,
            actions=self.actions,
            dim=self.dim,
            aggregation=self.aggregation,
            precision=self.precision,
        )


@dataclass(frozen=True)
class BallsEncoderConfig:
    """What must be known to rebuild an encoder of bouncing balls, and its P if there is one.

    Attributes:
        game: Name of the world whose frames the encoder was trained on, for instance
            "BouncingBalls".
        resolution: Height and width of the frames that it sees, in pixels.
        instants: Number of successive frames that it sees at once.
        slots: Number of slots: the balls', and spare ones.
        dim: Width of a slot's latent vector.
        slot_dim: Width of a slot of Slot Attention.
        channels: Of the encoder's convolutions.
        cell: Height and width in pixels of a cell that slots compete for.
        first_rounds: Rounds of attention on the first of the frames.
        later_rounds: Rounds of attention on every other.
        core: Core of P, a name in `rmr_gym.models.rmr.processors.CORES`; None without P.
        aggregation: Aggregation of P's messages: max, sum or mean.
        passes: Passes of P.
        precision: Arithmetic of P's messages: fp32 or bf16; the encoder always computes in fp32.

    Raises:
        RMRError: A value is of another type, unknown or out of range.
    """

    kind: ClassVar[str] = "rmr_gym balls encoder"

    game: str
    resolution: int = 32
    instants: int = 3
    slots: int = 4
    dim: int = 128
    slot_dim: int = 64
    channels: int = 32
    cell: int = 4
    first_rounds: int = 3
    later_rounds: int = 1
    core: str | None = None
    aggregation: str = "max"
    passes: int = 2
    precision: str = "fp32"

    def __post_init__(self) -> None:
        largest = {"resolution": 256, "instants": 16, "slots": 64, "dim": 4096, "slot_dim": 1024}
        largest |= {"channels": 512, "cell": 64, "first_rounds": 64, "later_rounds": 64}
        _check_sizes(self, {**largest, "passes": 16})
        _check_names(self, _OF_P)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of the bytes that the encoder takes: the frames' colours, oldest frame first."""
        return (3 * self.instants, self.resolution, self.resolution)

    def encoder(self) -> FrameStackEncoder:
        """Make an encoder of these sizes, with weights from torch's own generator."""
        cells = CellFeatures(self.resolution, self.channels, self.slot_dim, self.cell)
        rounds = (self.first_rounds, self.later_rounds)
        slots = SlotEncoder(cells, self.slot_dim, self.slots, rounds)
        return FrameStackEncoder(slots, nn.Linear(self.instants * slots.width, self.dim))

    def processor(self) -> PassiveProcessor | None:
        """Make P of these sizes, with weights from torch's own generator; None without P."""
        if self.core is None:
            return None
        sizes = ProcessorSizes(self.dim, self.core, self.aggregation, self.passes)
        return sizes.make(self.slots, self.precision)


AnyEncoderConfig = EncoderConfig | BallsEncoderConfig

CONFIGS: dict[str, type[AnyEncoderConfig]] = {
    config.kind: config for config in (EncoderConfig, BallsEncoderConfig)
}
"""Configurations by the kind of artifact that they describe."""


def _check_sizes(config: AnyEncoderConfig, largest: Mapping[str, int]) -> None:
    for name, limit in largest.items():
        value = getattr(config, name)
        if type(value) is not int or not 1 <= value <= limit:
            raise RMRError(f"expected {name} from 1 to {limit}, found {value!r}")


def _check_names(
    config: AnyEncoderConfig, rows: Iterable[tuple[str, str, Collection[str]]]
) -> None:
    """Check the game's name, and each field (kind, field, choices) that names a choice."""
    if not isinstance(config.game, str) or not re.fullmatch(r"\w{1,64}", config.game):
        raise RMRError(f"expected the name of a game, for instance 'Pong', found {config.game!r}")
    for kind, field, choices in rows:
        name = getattr(config, field)
        if name not in choices and (name, field) != (None, "core"):
            raise unknown_name(kind, str(name), choices)
