"""Named settings of the copying task."""

from dataclasses import dataclass, field, replace

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.models.world.rims import RIMSizes


@dataclass(frozen=True)
class CopyingPreset:
    """Everything that fixes a run of the copying task but model and seed.

    Attributes:
        name: In `COPYING_PRESETS`.
        checkpoints: Steps at which the model is scored; training ends at the last.
        sizes: Of the RIMs.
        lstm_units: Width of the baseline.
        embedding: Width of a token's embedding.
        digits: Number of digits to copy.
        span: Blanks between the digits and the marker in training.
        test_spans: The same in tests.
        batch: Sequences a step.
        learning_rate: Of Adam.
        clip: Largest norm of the gradient.
        sequences: Number of test sequences of each span.
    """

    name: str
    checkpoints: tuple[int, ...]
    sizes: RIMSizes = field(default_factory=RIMSizes)
    lstm_units: int = 600
    embedding: int = 600
    digits: int = 10
    span: int = 50
    test_spans: tuple[int, ...] = (50, 200)
    batch: int = 64
    learning_rate: float = 1e-3
    clip: float = 1.0
    sequences: int = 1024

    def __post_init__(self) -> None:
        rising = list(self.checkpoints) == sorted(set(self.checkpoints))
        if not self.checkpoints or not rising or self.checkpoints[0] < 1:
            raise RMRError(f"checkpoints must be rising steps from 1, got {self.checkpoints}")
        if not self.test_spans or min(self.span, *self.test_spans) < 0:
            raise RMRError(
                f"spans must be 0 or more, and there must be one to test, got {self.span} and "
                f"{self.test_spans}"
            )
        least = min(self.digits, self.batch, self.sequences, self.lstm_units, self.embedding)
        if least < 1 or min(self.learning_rate, self.clip) <= 0:
            raise RMRError(
                "digits, batch, sequences and widths must be 1 or more, rate and clip above 0, got "
                f"{self}"
            )


COPYING_PRESETS: dict[str, CopyingPreset] = {
    "smoke": CopyingPreset(
        name="smoke",
        checkpoints=(5, 10),
        sizes=RIMSizes(rims=4, active=2, units=8, keys=8, heads=2, message=4),
        lstm_units=32,
        embedding=16,
        digits=3,
        span=4,
        test_spans=(4, 12),
        batch=8,
        sequences=32,
    ),
    "laptop": CopyingPreset(
        name="laptop",
        checkpoints=(1000, 2000, 4000, 6000, 8000),
        sizes=RIMSizes(units=40, message=16),
        lstm_units=240,
        embedding=64,
        digits=4,
        span=12,
        test_spans=(12, 48),
        batch=32,
        sequences=512,
    ),
    "paper": CopyingPreset(name="paper", checkpoints=tuple(range(2000, 30001, 2000))),
}
"""Presets by name. "paper" follows RIMs, Appendix C.5: 150 epochs, which are 200 steps of 64
sequences in the authors' code; "laptop" copies fewer digits over shorter spans."""


def find_copying_preset(name: str, active: int | None = None) -> CopyingPreset:
    """Return a preset by name, with another number of active RIMs where one is given.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name; more active RIMs
            than RIMs, or none.
    """
    if name not in COPYING_PRESETS:
        raise unknown_name("preset", name, COPYING_PRESETS)
    preset = COPYING_PRESETS[name]
    if active is None:
        return preset
    return replace(preset, sizes=replace(preset.sizes, active=active))
