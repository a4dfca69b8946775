"""N-EM, RNN-EM, R-NEM and their baselines by name, and their sizes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rmr_gym.core.errors import check_counts
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.nem import GradientMixture, RecurrentMixture, SpatialMixture
from rmr_gym.models.world.nem_dynamics import (
    ACTION,
    LSTMUpdate,
    ProcessorUpdate,
    RecurrentUpdate,
    RelationalUpdate,
    Update,
)
from rmr_gym.models.world.nem_frames import FrameDecoder, FrameEncoder, halving

WITH_ACTIONS = 0.02
"""Probability that an input pixel is flipped in a world with actions (R-NEM, Appendix A.2)."""


@dataclass(frozen=True)
class NEMSizes:
    """Sizes of a model of this family; the defaults are those of R-NEM, Appendix A.1.

    Attributes:
        groups: K in training; 1 for the models rnn and lstm, whatever stands here.
        channels: Of the encoder's convolutions; the decoder has them the other way round.
        hidden: Width of the layers before and after the recurrence.
        dim: Width of theta.
        width: Of the interaction's MLPs.
        attention: Hidden width of the attention's MLP.
        noise: Probability that an input pixel is flipped, in a world without actions.
        processor: Of P, in the model rnem_p.

    Raises:
        RMRError: Counts below 1.
    """

    groups: int = 5
    channels: tuple[int, ...] = (16, 32, 64)
    hidden: int = 512
    dim: int = 250
    width: int = 250
    attention: int = 100
    noise: float = 0.2
    processor: ProcessorSizes = field(default_factory=ProcessorSizes)

    def __post_init__(self) -> None:
        check_counts(self)

    def with_processor(self, processor: ProcessorSizes) -> "NEMSizes":
        """Return the same sizes with those of another P."""
        return replace(self, processor=processor)

    def fitted(self, shape: tuple[int, int, int], actions: int) -> "NEMSizes":
        """Return the sizes for frames of a shape, in a world of so many actions (0: none).

        There are as many convolutions as can halve a frame, see
        `rmr_gym.models.world.nem_frames.halving`; with actions the noise is `WITH_ACTIONS`.
        """
        noise = WITH_ACTIONS if actions else self.noise
        return replace(self, channels=halving(self.channels, shape), noise=noise)


Maker = Callable[[NEMSizes, tuple[int, int, int], int], SpatialMixture]
UpdateMaker = Callable[[NEMSizes, int], Update]


def _recurrent(make_update: UpdateMaker, *, single: bool = False) -> Maker:
    def make(sizes: NEMSizes, shape: tuple[int, int, int], actions: int) -> RecurrentMixture:
        action = ACTION if actions else 0
        return RecurrentMixture(
            1 if single else sizes.groups,
            shape,
            FrameEncoder(shape, sizes.channels, sizes.hidden),
            make_update(sizes, action),
            FrameDecoder(sizes.dim, shape, sizes.channels, sizes.hidden),
            sizes.noise,
            actions,
        )

    return make


def _relational(sizes: NEMSizes, action: int, attention: int) -> RelationalUpdate:
    return RelationalUpdate(sizes.hidden, sizes.dim, action, sizes.width, attention)


def _plain(sizes: NEMSizes, action: int) -> RecurrentUpdate:
    return RecurrentUpdate(sizes.hidden, sizes.dim, action)


def _gradient(sizes: NEMSizes, shape: tuple[int, int, int], actions: int) -> GradientMixture:
    del actions
    decoder = FrameDecoder(sizes.dim, shape, sizes.channels, sizes.hidden)
    return GradientMixture(sizes.groups, shape, sizes.dim, decoder, sizes.noise)


NEM_MODELS: dict[str, Maker] = {
    "rnem": _recurrent(lambda sizes, action: _relational(sizes, action, sizes.attention)),
    "rnem_no_attention": _recurrent(lambda sizes, action: _relational(sizes, action, 0)),
    "rnem_p": _recurrent(
        lambda sizes, action: ProcessorUpdate(
            sizes.hidden, sizes.dim, action, sizes.width, sizes.processor
        )
    ),
    "rnnem": _recurrent(_plain),
    "nem": _gradient,
    "rnn": _recurrent(_plain, single=True),
    "lstm": _recurrent(
        lambda sizes, action: LSTMUpdate(sizes.hidden, sizes.dim, action), single=True
    ),
}
"""Makers by name, of (sizes, shape of a frame, number of actions)."""
