"""What every world model does: keep a state, take in a frame or none, predict the next frame."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError

State = TypeVar("State")
Frame = Float[Tensor, "batch height width channels"]
Frames = Float[Tensor, "*rest height width channels"]
Actions = Int[Tensor, " batch"]

CUT = 0.5
"""Above this a predicted pixel is lit, below it dark, where a model takes in its own prediction."""
SURE = 1e-6
"""No predicted probability counts as closer to 0 or 1 than this."""


class Prediction(NamedTuple):
    """What a world model says of the frame after those that it has seen.

    Attributes:
        frame: Predicted frame, in [0, 1].
        groups: Share of each group in each pixel of the frame last taken in, 1 in sum over groups
            (slots); None for models that do not group pixels.
    """

    frame: Frame
    groups: Float[Tensor, "batch slots height width"] | None = None


@runtime_checkable
class WorldModel(Protocol[State]):
    """A recurrent model of a world that is seen as frames; every one is an ``nn.Module`` too.

    After ``step(state, x_t, a_t)`` the state predicts :math:`x_{t+1}`: ``decode`` says what it
    predicts, ``loss`` how far that is from what came. Frames are binary or gray, in [0, 1]. What
    depends on ``training``, such as noise on the input, is the model's own.

    Attributes:
        cut: Predicted pixels above it are lit, others dark, where a model takes in its own
            prediction for want of a frame, so that it sees what it was trained on; 0 to take in
            probabilities as they are, as gray frames need. May be changed at any time.
    """

    cut: float

    def init_state(self, batch: int, generator: torch.Generator) -> State:
        """Return the state before the first frame.

        Args:
            batch: Number of sequences.
            generator: Source of all that is drawn now and in later steps (a state may keep it); on
                the device of the model.
        """
        ...

    def step(self, state: State, observation: Frame | None, action: Actions | None) -> State:
        """Return the state after one more frame; states are not changed in place.

        Args:
            state: Before the frame.
            observation: The frame as it is, without noise; None to go on from what was predicted.
            action: Taken at that frame; None in a world without actions.
        """
        ...

    def decode(self, state: State) -> Prediction:
        """Return what the state predicts for the next frame."""
        ...

    def loss(self, state: State, following: Frame) -> Float[Tensor, " batch"]:
        """Return the training loss, summed over pixels, of the prediction of the next frame.

        Args:
            state: After a step.
            following: The frame that came next.
        """
        ...


def taken_in(predicted: Frames, cut: float) -> Frames:
    """Return what a model takes in of its own prediction, see `WorldModel`."""
    return (predicted > cut).to(predicted) if cut else predicted


def need_actions(action: Actions | None) -> Actions:
    """Return the actions that a model of a world with actions is told.

    Raises:
        RMRError: There are none.
    """
    if action is None:
        raise RMRError("expected an action a sequence, as in training, got none")
    return action


def frame_bce(
    frame: Frames, following: Frames, weight: Frames | None = None
) -> Float[Tensor, "*rest"]:
    """Return the binary cross-entropy in nats of predicted frames, summed over their pixels.

    Source: R-NEM, section 4 (BCE); its code cuts probabilities off at `SURE`, which is what a wrong
    pixel of a binary prediction costs: 13.8 nats.

    Args:
        frame: Predicted probabilities.
        following: What came, in [0, 1].
        weight: Weight of each pixel.
    """
    sure = frame.clamp(SURE, 1 - SURE)
    losses = F.binary_cross_entropy(sure, following, weight, reduction="none")
    return losses.sum(dim=(-3, -2, -1))


def unroll(
    model: WorldModel[State],
    frames: Float[Tensor, "batch time height width channels"],
    actions: Int[Tensor, "batch time"] | None,
    generator: torch.Generator,
    seen: int | None = None,
) -> Iterator[State]:
    """Give the state after each frame; from ``seen`` frames on the model sees none of them.

    Args:
        model: The model.
        frames: One sequence a row.
        actions: Taken at each frame, or None.
        generator: Passed to `WorldModel.init_state`.
        seen: Number of frames that are shown, 1 or more; None for all.

    Raises:
        RMRError: No frame is shown, or more than there are.
    """
    length = frames.shape[1]
    seen = length if seen is None else seen
    if not 1 <= seen <= length:
        raise RMRError(f"expected to show 1 to {length} frames of each sequence, got {seen}")
    state = model.init_state(len(frames), generator)
    for instant in range(length):
        observation = frames[:, instant] if instant < seen else None
        action = None if actions is None else actions[:, instant]
        state = model.step(state, observation, action)
        yield state


def draw_uniformly(parameters: Iterable[Tensor], inputs: int, generator: torch.Generator) -> None:
    """Draw parameters uniformly in +-1/sqrt(inputs), in place."""
    bound = inputs**-0.5
    for parameter in parameters:
        nn.init.uniform_(parameter, -bound, bound, generator)


def mark_dropped(present: Bool[Tensor, " slots"], dropped: Sequence[int], parts: str) -> int:
    """Mark in place which parts of a model are present, and return how many are left.

    Raises:
        RMRError: There is no such part, or none would be left.
    """
    numbers, count = set(dropped), len(present)
    if not numbers <= set(range(count)) or len(numbers) == count:
        raise RMRError(
            f"expected {parts} from 0 to {count - 1}, and not all of them, to drop, got "
            f"{sorted(numbers)}"
        )
    present.fill_(True)
    present[sorted(numbers)] = False
    return count - len(numbers)
