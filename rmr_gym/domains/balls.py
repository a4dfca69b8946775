"""What ties bouncing balls to the models: the abstract pipeline, its windows, baselines, scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import CORES, PassiveProcessor, make_passive_processor

HISTORY = 3
"""Instants that a prediction starts from (RMR, section 4)."""

FRAME = 0.05
"""Seconds between two instants; displacements are divided by it where a speed is meant."""

TENTH = 10
"""The instant of a rollout that is scored beside the first."""

BATCH = 500
"""Windows that are scored at once."""

PREDICTIONS = ("position", "change", "acceleration")
OUTSIDE = 0.01
"""A ball counts as outside where its centre is so far beyond where the wall stops it; the
simulator's own go 0.006 beyond."""

Predictor = Callable[[Float[Tensor, "batch 3 slots 2"]], Float[Tensor, "batch slots 2"]]
"""From three past positions to the next."""

Roller = Callable[[Float[Tensor, "batch 3 slots 2"], int], Float[Tensor, "batch time slots 2"]]
"""From three past positions to so many next ones."""


@dataclass(frozen=True)
class BallsModel:
    """Sizes of the bouncing-balls pipelines.

    Attributes:
        dim: Width of a ball's latent vector and of its messages (RMR, Appendix A: 128).
        core: Processor core: mpnn, deep_sets, mlp, interaction or none.
        aggregation: Aggregation of messages: max, sum or mean.
        passes: Passes of message passing; the interaction network always makes one.
        predict: What g gives: "position" (the paper), "change" or "acceleration"; `BallsPipeline`
            says how.
        precision: Arithmetic of the message passing: fp32 or bf16 (fp32 sums).
    """

    dim: int = 128
    core: str = "mpnn"
    aggregation: str = "max"
    passes: int = 2
    predict: str = "position"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if min(self.dim, self.passes) < 1:
            raise RMRError(f"dim and passes must be 1 or more, got {self.dim} and {self.passes}")
        if self.core not in CORES:
            raise unknown_name("processor", self.core, CORES)
        if self.predict not in PREDICTIONS:
            raise unknown_name("prediction", self.predict, PREDICTIONS)


def make_balls_processor(model: BallsModel, seed: int, slots: int = 10) -> PassiveProcessor:
    """Make P for latents [batch slots dim], with initial weights from (seed, "processor").

    Only the core "mlp" fixes the number of slots; all others take any.

    Raises:
        RMRError: If there is no such aggregation.
    """
    make = partial(
        make_passive_processor,
        model.core,
        slots=slots,
        dim=model.dim,
        passes=model.passes,
        aggregation=model.aggregation,
        precision=model.precision,
    )
    return build(make, torch_generator(integer_seed(seed, "processor")))


class BallsPipeline(nn.Module):
    r"""From three past positions of every ball to the next, ``g(P(f(x)))``.

    With ``predict="position"``, f sees the three positions and g gives the next one. Otherwise f
    sees the last position and the last two velocities, and g's outcome :math:`u`, times the seconds
    of a frame, is added to where a ball would be without it:

    .. math:: \hat x_{t+1} = x_t + \delta u \;\text{(change)}, \qquad
              \hat x_{t+1} = 2 x_t - x_{t-1} + \delta u \;\text{(acceleration)}

    Source: RMR, section 4 and Appendix A (f and g linear, one vector a ball).
    Differs: "change" and "acceleration"; the maps from positions to velocities and back are linear
    too, so that the function class is that of linear f and g with a linear skip from x to y.

    Args:
        model: Sizes.
        processor: P for latents of width ``model.dim``.
    """

    def __init__(self, model: BallsModel, processor: nn.Module):
        super().__init__()
        self.predict = model.predict
        self.encoder = nn.Linear(2 * HISTORY, model.dim)
        self.processor = processor
        self.decoder = nn.Linear(model.dim, 2)

    def forward(self, past: Float[Tensor, "batch 3 slots 2"]) -> Float[Tensor, "batch slots 2"]:
        """Predict the next positions."""
        oldest, previous, last = past.unbind(1)
        if self.predict == "position":
            return self._outcome(oldest, previous, last)
        step = last - previous
        outcome = FRAME * self._outcome(last, step / FRAME, (previous - oldest) / FRAME)
        return last + outcome if self.predict == "change" else last + step + outcome

    def _outcome(self, *inputs: Float[Tensor, "batch slots 2"]) -> Float[Tensor, "batch slots 2"]:
        return self.decoder(self.processor(self.encoder(torch.cat(inputs, dim=-1))))


def abstract_pipeline(model: BallsModel, seed: int, slots: int = 10) -> BallsPipeline:
    """Make the position pipeline; f and g are drawn from (seed, "abstract encoder and decoder")."""
    pipeline = build(
        lambda: BallsPipeline(model, nn.Identity()),
        torch_generator(integer_seed(seed, "abstract encoder and decoder")),
    )
    pipeline.processor = make_balls_processor(model, seed, slots)
    return pipeline


class BallsData(NamedTuple):
    """Positions of all instants of all episodes, and where windows of three instants end."""

    positions: Float[Tensor, "rows slots 2"]
    current: Int[np.ndarray, " windows"]

    @property
    def slots(self) -> int:
        """Number of balls."""
        return self.positions.shape[1]


def load_balls(dataset: TransitionDataset, episodes: Sequence[int], ahead: int = 1) -> BallsData:
    """Load the positions of some episodes.

    Args:
        dataset: Recorded from an environment of bouncing balls.
        episodes: Positions in ``dataset.episodes``.
        ahead: Instants that must follow each window.

    Raises:
        RMRError: The data set has no positions of balls, or no episode is long enough.
    """
    spec = dataset.manifest.columns.get("state")
    if spec is None or len(spec.shape) != 2 or spec.shape[-1] != 2:
        raise RMRError(
            f"expected a data set with the positions of balls in its column 'state', found "
            f"{', '.join(dataset.manifest.columns)} in {dataset.path}: record one with "
            "`rmr-gym record --env rmr/BouncingBalls-v0`"
        )
    state = dataset.load(columns=("state",), episodes=episodes)["state"]
    lengths = [dataset.episodes[index].length + 1 for index in episodes]
    return BallsData(torch.from_numpy(state.astype(np.float32)), window_ends(lengths, ahead))


def balls_data(states: Float[np.ndarray, "episodes time slots 2"], ahead: int = 1) -> BallsData:
    """Take positions of episodes of one length from memory; see `load_balls`."""
    count, time = states.shape[:2]
    flat = torch.from_numpy(np.ascontiguousarray(states, dtype=np.float32)).flatten(0, 1)
    return BallsData(flat, window_ends([time] * count, ahead))


def window_ends(lengths: Sequence[int], ahead: int = 1) -> Int[np.ndarray, " windows"]:
    """Return the rows of the last instants of all windows, for episodes one after another.

    Args:
        lengths: Instants of each episode.
        ahead: Instants that must follow each window.

    Raises:
        RMRError: No episode is long enough.
    """
    starts = np.cumsum([0, *lengths[:-1]])
    ends = [
        np.arange(start + HISTORY - 1, start + length - ahead)
        for start, length in zip(starts, lengths, strict=True)
    ]
    current = np.concatenate(ends) if ends else np.zeros(0, np.int64)
    if not len(current):
        raise RMRError(
            f"expected an episode of at least {HISTORY + ahead} instants, found at most "
            f"{max(lengths, default=0)}: record longer episodes"
        )
    return current.astype(np.int64)


def windows(
    data: BallsData, index: Int[np.ndarray, " batch"], ahead: int = 1
) -> tuple[Float[Tensor, "batch 3 slots 2"], Float[Tensor, "batch time slots 2"]]:
    """Return the past and the next ``ahead`` instants of some windows."""
    rows = data.current[index][:, None] + np.arange(1 - HISTORY, ahead + 1)
    both = data.positions[torch.from_numpy(rows)]
    return both[:, :HISTORY], both[:, HISTORY:]


def drawn_windows(
    data: BallsData, count: int, ahead: int, seed: int
) -> list[tuple[Float[Tensor, "batch 3 slots 2"], Float[Tensor, "batch time slots 2"]]]:
    """Return at most ``count`` windows, drawn once for a seed, in batches."""
    order = generator(seed, "balls windows").permutation(len(data.current))
    picked = np.sort(order[:count])
    return [
        windows(data, picked[start : start + BATCH], ahead)
        for start in range(0, len(picked), BATCH)
    ]


def rollout(
    predict: Predictor, past: Float[Tensor, "batch 3 slots 2"], steps: int
) -> Float[Tensor, "batch time slots 2"]:
    """Predict ``steps`` instants, each from those predicted before."""
    predicted = []
    for _ in range(steps):
        following = predict(past)
        predicted.append(following)
        past = torch.cat([past[:, 1:], following[:, None]], dim=1)
    return torch.stack(predicted, dim=1)


def rollout_loss(
    predict: Predictor,
    past: Float[Tensor, "batch 3 slots 2"],
    future: Float[Tensor, "batch time slots 2"],
) -> Float[Tensor, ""]:
    """Return the mean squared error over all instants of a rollout of the future's length.

    Source: RMR, Appendix A, for one instant. Differs: more than one is an option.
    """
    return (rollout(predict, past, future.shape[1]) - future).square().mean()


def baselines(walls: Float[Tensor, "slots 1"]) -> dict[str, Roller]:
    """Return the rollouts that learn nothing, by name.

    ``copy``: nothing moves; ``linear``: every ball keeps its velocity; ``reflected``: it keeps its
    speed, and walls throw it back.

    Args:
        walls: Largest coordinate of each ball's centre, 1 minus its radius.
    """

    def copy(past: Tensor, steps: int) -> Tensor:
        return past[:, -1:].expand(-1, steps, -1, -1)

    def linear(past: Tensor, steps: int) -> Tensor:
        times = torch.arange(1, steps + 1, device=past.device)[:, None, None]
        return past[:, -1:] + times * (past[:, -1:] - past[:, -2:-1])

    def reflected(past: Tensor, steps: int) -> Tensor:
        there_and_back = torch.remainder(linear(past, steps) + walls, 4 * walls)
        return torch.minimum(there_and_back, 4 * walls - there_and_back) - walls

    return {"copy": copy, "linear": linear, "reflected": reflected}


class BallsScores(NamedTuple):
    """Scores of rollouts.

    Attributes:
        mse_1: Mean squared error of the coordinates at the first instant.
        mse_10: The same at the tenth.
        outside: Share of predicted balls whose centre is more than `OUTSIDE` beyond a wall.
        excursion: Largest way of a centre beyond a wall, in units of half the box.
        energy: Drift of the kinetic energy: that of the last displacement of the rollouts over that
            of the last displacement before them, all balls and rollouts together, minus 1.
    """

    mse_1: float
    mse_10: float
    outside: float
    excursion: float
    energy: float


def score_rollouts(
    past: Float[Tensor, "batch 3 slots 2"],
    predicted: Float[Tensor, "batch time slots 2"],
    future: Float[Tensor, "batch time slots 2"],
    walls: Float[Tensor, "slots 1"],
) -> BallsScores:
    """Score rollouts of at least 10 instants against what happened; masses count as equal."""
    error = (predicted - future).square().mean(dim=(0, 2, 3))
    beyond = predicted.abs() - walls
    before = (past[:, -1] - past[:, -2]).square().sum()
    after = (predicted[:, -1] - predicted[:, -2]).square().sum()
    return BallsScores(
        mse_1=error[0].item(),
        mse_10=error[TENTH - 1].item(),
        outside=(beyond > OUTSIDE).any(dim=-1).double().mean().item(),
        excursion=max(0.0, beyond.max().item()),
        energy=(after / before - 1).item(),
    )
