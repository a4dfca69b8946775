"""Scores of trained world models: next frames, collisions, groups, simulations."""

from math import log
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rmr_gym.core.metrics import foreground_ari
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.clips import Clips, relational_weight, true_groups
from rmr_gym.models.world.base import CUT, SURE, frame_bce, unroll
from rmr_gym.protocol.store import Artifact, Scratch, Store
from rmr_gym.protocol.world_model_rollouts import ready_model, scoring_noise, simulate, test_clips
from rmr_gym.protocol.world_models import WorldTask, trained, training_key

SCORE_BATCH = 32
SCORED = ("sequences", "last", "seen", "ahead", "cut")
"""What of a preset scores hang on beside training."""
WRONG = -log(SURE)
"""What a pixel that is predicted with certainty and wrong costs, in nats."""

ROW = (
    "model", "groups", "seed", "step", "bce", "relative_bce", "relational_bce",
    "relative_relational_bce", "ari", "ari_last", "rollout_bce", "relative_rollout_bce",
    "rollout_f1",
)  # fmt: skip


class Sums(NamedTuple):
    """Scores of single frames, a row a sequence.

    Attributes:
        bce: Of each predicted frame.
        copied: Of the frame before it, taken for a prediction.
        relational: BCE on the pixels of colliding balls; NaN without truth.
        relational_copied: That of the frame before.
        ari: Of the groups of each frame but the first; NaN without truth or groups.
    """

    bce: Float[np.ndarray, "rows time"]
    copied: Float[np.ndarray, "rows time"]
    relational: Float[np.ndarray, "rows time"]
    relational_copied: Float[np.ndarray, "rows time"]
    ari: Float[np.ndarray, "rows time"]


def scored(
    task: WorldTask, seed: int, test: Path | None = None, groups: int | None = None
) -> dict[str, Any]:
    """Return a row of scores of a trained model.

    Source: R-NEM, section 4: BCE and relational BCE of max_k psi in nats a frame, relative to the
    BCE of copying the frame before; ARI of the groups' hard shares on the pixels that balls own;
    BCE of simulations.
    Differs: BCE is the mean of the last predictions of a sequence (10, as in the code) where the
    text says the last one; ``ari`` is that of all frames after the first, ``ari_last`` of the last.
    A simulation is also given relative to the last frame that was shown, and as F1 of the pixels
    that it predicts to be lit, which a gray cloud has none of.

    Args:
        task: Of the training.
        seed: Of the training.
        test: Another data set, all of which is used; None: the validation episodes.
        groups: K while scoring, for models that have groups; None: as in training.

    Returns:
        The entries of `ROW`, and ``simulation``, those of `Simulation` as lists; None where there
        is no truth in the data or no group in the model.
    """
    fingerprint = None if test is None else TransitionDataset(test).fingerprint
    key = scoring_key(task, seed, fingerprint, groups)

    def run(scratch: Scratch) -> Artifact:
        del scratch
        return Artifact({"row": score_model(task, seed, test, groups)})

    return Store(task.store).get_or_run("world_model_scores", key, run).record["row"]


def scoring_key(task: WorldTask, seed: int, test: str | None, groups: int | None) -> dict[str, Any]:
    """Return everything that scores hang on; ``test`` is the fingerprint of another data set."""
    return training_key(task, seed) | {
        "test": test,
        "groups": groups,
        "scores": [getattr(task.preset, name) for name in SCORED],
    }


def score_model(
    task: WorldTask, seed: int, test: Path | None, groups: int | None
) -> dict[str, Any]:
    """Score a trained model; see `scored`."""
    preset = task.preset
    artifact = trained(task, seed)
    clips = test_clips(task, test, preset.length + 1)
    model = ready_model(task, seed, clips, artifact, groups)
    sums = taught(model, clips)
    longer = test_clips(task, test, preset.seen + preset.ahead)
    simulation = score_simulation(model, longer, task.preset.seen)
    last = Sums(*(part[:, -preset.last :] for part in sums))
    row = {
        "model": task.model,
        "groups": getattr(model, "groups", None),
        "seed": seed,
        "step": artifact.record["step"],
        "bce": _mean(last.bce),
        "relative_bce": _ratio(last.bce, last.copied, clips),
        "relational_bce": _mean(last.relational),
        "relative_relational_bce": _ratio(last.relational, last.relational_copied, clips),
        "ari": _mean(sums.ari),
        "ari_last": _mean(last.ari),
        "rollout_bce": _mean(simulation.bce),
        "relative_rollout_bce": _ratio(simulation.bce, simulation.copied, longer),
        "rollout_f1": _mean(simulation.f1),
    }
    curves = {
        name: [_or_none(each) for each in curve.tolist()]
        for name, curve in simulation._asdict().items()
    }
    return {name: _or_none(value) for name, value in row.items()} | {"simulation": curves}


@torch.no_grad()
def taught(model: Any, clips: Clips) -> Sums:
    """Return the scores of all sequences, every frame of which is shown."""
    place = next(model.parameters()).device
    found = []
    for start in range(0, len(clips.rows), SCORE_BATCH):
        few = np.arange(start, min(start + SCORE_BATCH, len(clips.rows)))
        frames, actions = clips.shown(few, place)
        told = None if actions is None else actions[:, :-1]
        states = unroll(model, frames[:, :-1], told, scoring_noise(place, start))
        columns = [
            _instant(model.decode(state), clips, few, t, frames) for t, state in enumerate(states)
        ]
        found.append([np.stack(part, axis=1) for part in zip(*columns, strict=True)])
    bce, copied, *others = (np.concatenate(part) for part in zip(*found, strict=True))
    return Sums(bce, copied, *others)


def _instant(
    prediction: Any, clips: Clips, few: np.ndarray, t: int, frames: Tensor
) -> tuple[np.ndarray, ...]:
    """Return the fields of `Sums` for the prediction after frame ``t`` and the groups in it."""
    rows, nothing = clips.rows[few, t], np.full(len(few), np.nan)
    before, after = frames[:, t], frames[:, t + 1]
    pair = [_array(frame_bce(frame, after)) for frame in (prediction.frame, before)]
    relational, ari = [nothing, nothing], nothing
    if clips.truth is not None:
        weight = torch.from_numpy(relational_weight(clips, rows)).to(after)[..., None]
        weight = weight.expand_as(after)
        relational = [
            _array(frame_bce(frame, after, weight)) for frame in (prediction.frame, before)
        ]
        if prediction.groups is not None and t > 0:
            ari = foreground_ari(true_groups(clips, rows), _array(prediction.groups.argmax(dim=1)))
    return (*pair, *relational, ari)


class Simulation(NamedTuple):
    """Scores of simulated frames, by how far ahead they are.

    Attributes:
        bce: Mean over sequences.
        copied: That of the last frame that was shown.
        f1: Of lit pixels, all sequences together; NaN where nothing is lit nor said to be.
        f1_copied: That of the last frame that was shown.
    """

    bce: Float[np.ndarray, " ahead"]
    copied: Float[np.ndarray, " ahead"]
    f1: Float[np.ndarray, " ahead"]
    f1_copied: Float[np.ndarray, " ahead"]


@torch.no_grad()
def score_simulation(model: Any, clips: Clips, seen: int) -> Simulation:
    """Show a model the first frames of all sequences, and score what it makes of the others."""
    place = next(model.parameters()).device
    found: list[list[Tensor]] = []
    for start in range(0, len(clips.rows), SCORE_BATCH):
        few = np.arange(start, min(start + SCORE_BATCH, len(clips.rows)))
        frames, actions = clips.shown(few, place)
        made = simulate(model, frames, actions, seen, scoring_noise(place, start)).frames
        truth = frames[:, seen:]
        simulated, copied = made[:, seen - 1 :], frames[:, seen - 1 : seen].expand_as(truth)
        found.append(
            [
                *(frame_bce(frame, truth).sum(dim=0) for frame in (simulated, copied)),
                *(_lit(frame, truth) for frame in (simulated, copied)),
            ]
        )
    parts = (torch.stack(part).sum(dim=0) for part in zip(*found, strict=True))
    bce, below, hits, hits_copied = parts
    count = len(clips.rows)
    f1, f1_copied = (_array(part[0] / part[1]) for part in (hits, hits_copied))
    return Simulation(_array(bce) / count, _array(below) / count, f1, f1_copied)


def _lit(frames: Tensor, truth: Tensor) -> Int[Tensor, "2 time"]:
    """Return numerator and denominator of F1 by instant: 2 TP, and 2 TP + FP + FN."""
    said, lit = frames > CUT, truth > CUT
    both = (said & lit).sum(dim=(0, 2, 3, 4))
    return torch.stack([2 * both, said.sum(dim=(0, 2, 3, 4)) + lit.sum(dim=(0, 2, 3, 4))])


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _ratio(values: np.ndarray, baseline: np.ndarray, clips: Clips) -> float:
    """Return the ratio of means; NaN where the baseline has no pixel wrong in all scored frames.

    A frame without any costs a little all the same, because probabilities are cut off; one wrong
    pixel costs `WRONG` more.
    """
    nothing, frames = torch.zeros(clips.shape), len(clips.rows) * baseline.shape[-1]
    below, never = _mean(baseline), frame_bce(nothing, nothing).item()
    return _mean(values) / below if below > never + WRONG / 2 / frames else float("nan")


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
