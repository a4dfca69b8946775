"""Named settings of the natural pipeline of bouncing balls."""

from dataclasses import dataclass, field

from rmr_gym.core.errors import unknown_name
from rmr_gym.domains.balls import BallsModel, PixelModel
from rmr_gym.protocol.balls import Phase


@dataclass(frozen=True)
class PixelPreset:
    """Everything that fixes a natural comparison but data, P and seeds.

    Attributes:
        name: In `PIXEL_PRESETS`.
        warm_start: Phases in which encoder and decoder learn to show a frame again, without P;
            the arms of a seed share it.
        handed_on: Number of phases, the last of the warm start, that show clips of three frames, so
            that slots learn to stay with their object; the others show single frames.
        phases: Phases in which an arm learns to predict the next frame.
        held: Number of phases, from the first, in which the slot encoder stays as it is: until the
            rest has found its way around P, its errors would unlearn the slots.
        model: Sizes.
        windows: At most so many validation windows are scored.
        validation_share: Share of the episodes that only scores are computed on.
    """

    name: str
    warm_start: tuple[Phase, ...]
    phases: tuple[Phase, ...]
    model: PixelModel = field(default_factory=PixelModel)
    handed_on: int = 0
    held: int = 1
    windows: int = 1000
    validation_share: float = 0.1


PIXEL_PRESETS: dict[str, PixelPreset] = {
    "smoke": PixelPreset(
        name="smoke",
        warm_start=(Phase(4, batch=4),),
        phases=(Phase(3, batch=4), Phase(2, learning_rate=2e-4, batch=4)),
        model=PixelModel(BallsModel(dim=32), slot_dim=16, channels=8, decoder_channels=8),
        windows=20,
    ),
    "laptop": PixelPreset(
        name="laptop",
        warm_start=(
            *(Phase(100, 2e-4, 32), Phase(600, 2e-3, 32)),
            *(Phase(300, 1e-3, 12), Phase(100, 2e-4, 12)),
        ),
        handed_on=2,
        phases=(
            *(Phase(100, 1e-4, 32), Phase(300, 5e-4, 32)),
            *(Phase(500, 5e-4, 32), Phase(200, 1e-4, 32)),
        ),
        held=2,
        model=PixelModel(BallsModel(precision="bf16"), precision="bf16"),
    ),
    "paper": PixelPreset(
        name="paper",
        warm_start=(),
        phases=(Phase(100_000, learning_rate=1e-4, batch=512),),
        held=0,
        model=PixelModel(channels=64, decoder_channels=64, cell=2, decoder="broadcast"),
    ),
}
"""Presets by name. "paper" follows RMR, Appendix A, whose 1,000 epochs are of unknown length."""


def find_pixel_preset(name: str) -> PixelPreset:
    """Return a preset by name.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    if name not in PIXEL_PRESETS:
        raise unknown_name("preset", name, PIXEL_PRESETS)
    return PIXEL_PRESETS[name]
