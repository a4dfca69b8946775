"""What planning needs of a recorded world: P that knows actions, and for games a head for worth.

P of games is pretrained as that of the abstract pipeline, on those RAM bytes that ever change: what
never changes is not predicted, and a step is cheaper by the square of the rest. The action before
is a byte of its own: where an emulated paddle is turned, RAM shows it a step later. P of pushed
balls is that of positions, with the push of the agent's ball beside them.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import batch_indices, bits_to_ram, ram_to_bits, shifted_inside
from rmr_gym.domains import atari, balls
from rmr_gym.domains.atari import AtariModel
from rmr_gym.models.rmr.pipeline import predicted_bits, torch_generator
from rmr_gym.models.rmr.processors import load_weights, shuffle_weights
from rmr_gym.runs.store import NOWHERE, Artifact, Room, stage
from rmr_gym.runs.training import Phase, Step, train
from rmr_gym.stages.balls import RecordedBalls
from rmr_gym.stages.games import PRETRAIN_SEED, GameData
from rmr_gym.stages.natural import rollout_loss

Ram = UInt8[Tensor, "rows bytes"]
"""All RAM, and the action before it as one more byte."""
Model = Callable[[Ram, Int[Tensor, "rows horizon"]], UInt8[Tensor, "instants rows bytes"]]
"""From the same start in each row, and plans, to what is there at each instant."""

ARMS = ("rmr", "shuffled_p", "random_p", "copy")
"""What a plan is imagined with: P, or what stands in its place."""

SCRATCH, EXTRAPOLATED = "scratch_p", "extrapolated"
PUSHED_ARMS = (*ARMS, SCRATCH, EXTRAPOLATED)
"""What pushes are planned with; scratch_p learned from places that pixels show."""
PUSHED_MODEL = balls.BallsModel(dim=64, predict="acceleration")
Foreseen = Callable[[balls.Past, balls.Actions], balls.Rollout]
"""From three past positions in each row, and actions, to those that follow."""

EMULATOR = "emulator"
"""True futures in place of imagined ones."""
AHEAD, STARTS = 8, 6000
"""Steps that a head is fitted to, and recorded starts of them."""
UNITS, PENALTY = 500, 0.1
"""Random units of the head, and its ridge penalty as a share of the squares of each."""
SETTLED = 3
"""Steps closer to an episode's end than so many discounted lifetimes are left out."""


def with_actions(data: atari.AbstractData) -> UInt8[np.ndarray, "rows bytes"]:
    """Return RAM with the action before each row as one more byte; 0 before a first row."""
    before = np.zeros((len(data.ram), 1), np.uint8)
    before[data.current + 1, 0] = data.action
    return np.concatenate([data.ram, before], 1)


@stage(version=1)
def dynamics(
    data: GameData, model: AtariModel, phases: tuple[Phase, ...], seed: int, room: Room = NOWHERE
) -> Artifact:
    """Pretrain P, its encoder and decoder on the RAM bytes that change and the action before.

    Args:
        data: Training episodes to learn from, validation episodes to score on.
        model: Sizes of P.
        phases: How it is trained; ``unroll`` steps are predicted, each from those before.
        seed: Fixes initial weights and batches.
        room: Room for unfinished state.

    Returns:
        Tensors of the pipeline, and ``bytes``, those that change; the record holds ``curve``.
    """
    training = data.abstract("training")
    kept = np.append(np.flatnonzero(training.ram.std(0) > 0), training.ram.shape[1])
    training = training._replace(bits=ram_to_bits(with_actions(training)[:, kept]))
    pipeline = atari.abstract_pipeline(model, seed, len(kept))

    def step_at(step: int, phase: Phase) -> Step:
        index = batch_indices(training, phase.batch, seed, "dynamics", step)
        index = shifted_inside(training.current, index, phase.unroll)
        steps = [index + ahead for ahead in range(phase.unroll)]
        bits = training.bits[training.current[index]]
        return Step(rollout_loss(pipeline, training, bits, steps))

    learned = _learned(pipeline, step_at, phases, room)
    learned.tensors["bytes"] = torch.from_numpy(kept)
    return learned


def _learned(pipeline: Any, step_at: Any, phases: tuple[Phase, ...], room: Room) -> Artifact:
    made = train(pipeline, step_at, phases=phases, room=room)
    return Artifact({"curve": made.curve}, dict(pipeline.state_dict()))


class Imagined:
    """P as a model for planning: RAM at each instant of many plans at once.

    Candidates in the same state that do the same are computed once.

    Args:
        pipeline: Predicts the bits of some bytes.
        kept: Which; the last one holds the action before.
    """

    def __init__(self, pipeline: atari.AbstractPipeline, kept: Int[Tensor, " kept"]):
        self._pipeline, self.kept = pipeline.eval(), kept

    @torch.inference_mode()
    def __call__(self, start: Ram, plans: Int[Tensor, "rows horizon"]) -> Tensor:
        """Return all RAM at the start and after each step of each plan."""
        states = [start]
        for action in plans.to(torch.uint8).T:
            rows = torch.cat([states[-1][:, self.kept], action[:, None]], 1)
            distinct, back = rows.unique(dim=0, return_inverse=True)
            bits = torch.from_numpy(ram_to_bits(distinct[:, :-1].numpy())).float()
            predicted = predicted_bits(self._pipeline(bits, distinct[:, -1].long()), bits)
            following = torch.from_numpy(bits_to_ram(predicted.numpy().astype(np.uint8)))
            states.append(states[-1].index_copy(1, self.kept, following[back]))
            states[-1][:, -1] = action
        return torch.stack(states)


def copied(start: Ram, plans: Int[Tensor, "rows horizon"]) -> Tensor:
    """Say that nothing changes, whatever is done."""
    return start.expand(plans.shape[1] + 1, -1, -1)


def imagination(arm: str, model: AtariModel, learned: Artifact | None, seed: int) -> Model:
    """Return what plans are imagined with.

    Args:
        arm: A name in `ARMS`.
        model: Sizes of P.
        learned: What `dynamics` left.
        seed: Fixes a random P and the permutation of a shuffled one.

    Raises:
        RMRError: There is no such arm, or what was learned is no P with actions.
    """
    if known_name("arm of planning", arm, ARMS) == "copy":
        return copied
    tensors = dict(learned.tensors if learned else {})
    kept = tensors.pop("bytes", torch.zeros(0))
    if "processor.action_encoder.weight" not in tensors or not len(kept):
        raise RMRError("planning needs a model of what actions do: give it what `dynamics` left")
    pipeline = atari.abstract_pipeline(model, seed, len(kept))
    return Imagined(_with_p(pipeline, tensors, arm, seed), kept)


def _with_p(pipeline: Any, tensors: dict[str, Tensor], arm: str, seed: int) -> Any:
    """Load what was learned into a fresh pipeline, but for P in the arms that stand against it."""
    fresh = deepcopy(pipeline.processor)
    load_weights(pipeline, tensors, "the model that is planned in")
    if arm == "random_p":
        pipeline.processor = fresh
    if arm == "shuffled_p":
        shuffle_weights(pipeline.processor, generator(seed, "shuffled P"))
    return pipeline.eval()


@stage(version=1, later=("episodes",))
def pushed_dynamics(
    data: RecordedBalls,
    phases: tuple[Phase, ...],
    arm: str,
    seed: int,
    episodes: int | None = None,
    room: Room = NOWHERE,
) -> Artifact:
    """Pretrain P, its encoder and decoder on positions of balls and the pushes of the agent's.

    Args:
        data: Pushed balls; training episodes are learned from.
        phases: How it is trained; at most `AHEAD` instants are unrolled.
        arm: "rmr": on recorded positions; "scratch_p": on those that pixels show.
        seed: Fixes initial weights and batches.
        episodes: Learn from the first so many; None: from all.
        room: Room for unfinished state.

    Returns:
        Tensors of the pipeline; the record holds ``curve``.
    """
    positions, actions = pushed_positions(data, "training", seen=arm == SCRATCH, count=episodes)
    pipeline = balls.abstract_pipeline(PUSHED_MODEL, seed, positions.slots, pushed=True)

    def step_at(step: int, phase: Phase) -> Step:
        index = batch_indices(positions, phase.batch, seed, "pushed balls", step)
        given = actions[positions.current[index][:, None] + np.arange(phase.unroll)]
        window = balls.windows(positions, index, phase.unroll)
        return Step(balls.rollout_loss(balls.under_pushes(pipeline, given), window))

    return _learned(pipeline, step_at, phases, room)


def pushed_positions(
    data: RecordedBalls, part: str, *, seen: bool = False, count: int | None = None
) -> tuple[balls.BallsData, Int[Tensor, " rows"]]:
    """Return positions, recorded ones or those that pixels show, and the action at each instant."""
    opened, column = data.open(), "pixels" if seen else "state"
    chosen = getattr(opened, part)[:count]
    loaded = opened.dataset.load(columns=(column, "action"), episodes=chosen)
    positions = balls.balls_data(loaded, column, AHEAD)
    if seen:
        places: list[Any] = [None]
        episodes = positions.seen.unflatten(0, (len(chosen), -1))
        for frames in episodes.unbind(1):
            places.append(balls.seen_places(frames, places[-1]))
        positions = positions._replace(seen=torch.stack(places[1:], 1).flatten(0, 1))
    actions = torch.zeros(len(positions.seen), dtype=torch.long)
    actions[loaded.current] = torch.from_numpy(loaded["action"]).long()
    return positions, actions


def foreseen(arm: str, learned: Artifact, seed: int) -> Foreseen:
    """Return what pushes are imagined with.

    Args:
        arm: A name in `PUSHED_ARMS`.
        learned: What `pushed_dynamics` left.
        seed: Fixes a random P and the permutation of a shuffled one.

    Raises:
        RMRError: There is no such arm, or what was learned does not know pushes.
    """
    if known_name("arm of planning", arm, PUSHED_ARMS) == "copy":
        return lambda past, actions: past[:, -1:].expand(-1, actions.shape[1], -1, -1)
    if arm == EXTRAPOLATED:
        return balls.extrapolated
    fresh = balls.abstract_pipeline(PUSHED_MODEL, seed, len(balls.PALETTE), pushed=True)
    pipeline = _with_p(fresh, learned.tensors, arm, seed)

    @torch.no_grad()
    def imagine(past: balls.Past, actions: balls.Actions) -> balls.Rollout:
        return balls.rollout(balls.under_pushes(pipeline, actions), past, actions.shape[1])

    return imagine


class Head:
    r"""Reward and value, linear in random units of the labelled bytes and of their changes.

    .. math:: [r_t, v_{t+1}] = W [1, x, \mathrm{ReLU}(A x + a)], \quad x = [s_{t+1}, s_{t+1} - s_t]

    What matters is where one thing is as seen from another, which no sum of bits says; drawn units
    and ridge regression say it without training. The bytes are those that an annotated table names,
    so that no plan is made for a counter that P gets wrong.

    Args:
        tensors: What `head` left.
        game: That is played.

    Raises:
        RMRError: The head is of another game.
    """

    def __init__(self, tensors: dict[str, Tensor], game: str):
        self.tensors, self.discount, own = tensors, tensors["discount"], head_bytes(game)
        if tensors["bytes"].tolist() != own:
            raise RMRError(f"expected a head of {game}, found one of other bytes: fit it to {game}")

    def __call__(self, before: Ram, after: Ram) -> Float[Tensor, "rows 2"]:
        """Return the reward of a step, and the discounted return of what follows it."""
        return _units(self.tensors, _seen(self.tensors, before, after)) @ self.tensors["weight"]


def head_bytes(game: str) -> list[int]:
    """Return the bytes that a head reads: those with a label."""
    return sorted({label.ram for label in atari.ram_labels(game)})


def _seen(tensors: dict[str, Tensor], before: Ram, after: Ram) -> Float[Tensor, "rows numbers"]:
    then, now = (part[:, tensors["bytes"]].float() / 64 - 2 for part in (before, after))
    return torch.cat([now, (2 * (now - then)).clamp(-1, 1)], 1)


def _units(tensors: dict[str, Tensor], seen: Tensor) -> Float[Tensor, "rows units"]:
    scaled = ((seen - tensors["mean"]) / tensors["scale"]).clamp(-4, 4)
    drawn = torch.relu(scaled @ tensors["drawn"] + tensors["bias"])
    return torch.cat([torch.ones_like(drawn[:, :1]), scaled, drawn], 1)


@stage(version=1)
def head(
    data: GameData,
    model: AtariModel,
    arm: str,
    discount: float,
    seed: int,
    learned: Artifact | None,
) -> Artifact:
    """Fit a head to what a model imagines of recorded actions, and to what then came.

    So it gives weight to what the model foresees well. It learns from signs of rewards and from
    discounted returns; those of held-out episodes score it.

    Args:
        data: Training and validation episodes, of players of all grades.
        model: Sizes of P.
        arm: A name in `ARMS`, or "emulator": what was recorded, in place of what is imagined.
        discount: Of rewards, a step.
        seed: As in `imagination`.
        learned: What `dynamics` left.

    Returns:
        Tensors of a `Head`; the record holds ``rows``: R2 of reward and value on held-out episodes.
    """
    dreamt = None if arm == EMULATOR else imagination(arm, model, learned, seed)
    before, after, told = _experience(data, "training", discount, dreamt)
    tensors = {"bytes": torch.tensor(head_bytes(data.label)), "discount": torch.tensor(discount)}
    seen, drawn = _seen(tensors, before, after), torch_generator(PRETRAIN_SEED)
    directions = torch.randn(seen.shape[1], UNITS, generator=drawn)
    tensors |= {"drawn": directions / directions.norm(dim=0), "mean": seen.mean(0)}
    tensors |= {"bias": torch.randn(UNITS, generator=drawn), "scale": seen.std(0) + 1e-3}
    units = _units(tensors, seen).double()
    gram = units.T @ units
    ridge = gram + (PENALTY * gram.diagonal().clamp(min=1e-6)).diag()
    tensors["weight"] = torch.linalg.solve(ridge, units.T @ told).float()
    before, after, told = _experience(data, "validation", discount, dreamt)
    missed = (Head(tensors, data.label)(before, after) - told).square().mean(0)
    reward, value = (1 - missed / told.var(0, correction=0)).tolist()
    return Artifact({"rows": [{"reward_r2": reward, "value_r2": value}]}, tensors)


def _experience(
    data: GameData, part: str, discount: float, dreamt: Model | None
) -> tuple[Ram, Ram, Tensor]:
    """Return RAM before and after steps, imagined or recorded, and [reward, value] of each."""
    opened, recorded = data.open(), data.abstract(part)
    loaded = opened.dataset.load(columns=("reward",), episodes=getattr(opened, part))
    reward, ends = np.sign(loaded["reward"]), np.flatnonzero(np.diff(loaded.episode, append=-1))
    left = np.repeat(ends, np.diff(ends, prepend=-1)) - np.arange(len(reward))
    value = np.zeros(len(reward))
    for row in np.flatnonzero(left)[::-1]:
        value[row] = reward[row + 1] + discount * value[row + 1]
    known = np.flatnonzero(left >= AHEAD + SETTLED / (1 - discount))
    starts = generator(0, "starts of a head", part).permutation(known)[:STARTS]
    steps = [starts + ahead for ahead in range(AHEAD)]
    ram = torch.from_numpy(with_actions(recorded))
    rows = [torch.from_numpy(recorded.current[starts] + ahead) for ahead in range(AHEAD + 1)]
    plans = torch.from_numpy(np.stack([recorded.action[step] for step in steps], 1))
    states = ram[torch.stack(rows)] if dreamt is None else dreamt(ram[rows[0]], plans)
    worth = torch.from_numpy(np.stack([reward, value], 1)[np.concatenate(steps)])
    return states[:-1].flatten(0, 1), states[1:].flatten(0, 1), worth
