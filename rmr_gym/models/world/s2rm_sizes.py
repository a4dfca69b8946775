"""Sizes of S2RM and of the baselines on the same scaffold."""

from dataclasses import dataclass, field

from rmr_gym.core.errors import RMRError, check_counts
from rmr_gym.models.world.rims import RIMSizes
from rmr_gym.models.world.s2rm_attention import AttentionSizes, Kernel


@dataclass(frozen=True)
class MemorySizes:
    """Sizes of a relational memory core; the defaults are those of S2RM's baseline.

    Attributes:
        slots: Rows of the memory.
        heads: Attention heads.
        head: Width of a head's values; a row is heads x head wide.
        keys: Width of a head's queries and keys.

    Raises:
        RMRError: Counts below 1.
    """

    slots: int = 1
    heads: int = 4
    head: int = 128
    keys: int = 128

    def __post_init__(self) -> None:
        check_counts(self)

    @property
    def row(self) -> int:
        """Width of a row."""
        return self.heads * self.head


@dataclass(frozen=True)
class S2RMSizes:
    """Sizes of all models of crops; the defaults are those of S2RM, Table 2.

    Source: S2RM, Table 2; the memory cores inside S2RMC are those of Table 3 (Starcraft2).
    Differs: what the paper does not give is ours: ``channels``, ``summary``, and the widths of RIMs
    that Table 2 leaves out. The values of our RIMs' input attention are 4 x 85 wide, not 400.

    Attributes:
        views: Crops of a frame.
        size: Height and width of a crop.
        channels: Of the first layers of the encoder and the last of the decoder.
        modules: Modules of S2RMs.
        units: Width of a module's state and of an encoded crop.
        place: Width d of the places on the sphere.
        unit: Pixels that count as 1 in a place.
        kernel: Of places.
        input_attention: From modules to encoded crops.
        cell_attention: Among modules.
        module_memory: Of a module of S2RMC.
        summary: Width of the sum of encoded crops that baselines take in.
        lstm_units: Of the LSTM.
        rims: Of the RIMs.
        memory: Of the relational memory core.
        oracle: Hidden width of the time-travelling oracle.

    Raises:
        RMRError: Counts below 1, or a unit that is not above 0.
    """

    views: int = 10
    size: int = 11
    channels: int = 32
    modules: int = 10
    units: int = 128
    place: int = 16
    unit: float = 1.0
    kernel: Kernel = field(default_factory=Kernel)
    input_attention: AttentionSizes = field(default_factory=lambda: AttentionSizes(2, 16, 128))
    cell_attention: AttentionSizes = field(default_factory=lambda: AttentionSizes(4, 16, 128))
    module_memory: MemorySizes = field(default_factory=lambda: MemorySizes(4, 4, 64, 64))
    summary: int = 512
    lstm_units: int = 512
    rims: RIMSizes = field(default_factory=lambda: RIMSizes(rims=6, active=5, units=85, keys=32))
    memory: MemorySizes = field(default_factory=MemorySizes)
    oracle: int = 512

    def __post_init__(self) -> None:
        check_counts(self)
        if not self.unit > 0:
            raise RMRError(f"expected a unit of places above 0 pixels, got {self.unit}")
