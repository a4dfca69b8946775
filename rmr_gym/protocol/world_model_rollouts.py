"""Simulations of trained world models, to be scored and to be drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import read_manifest
from rmr_gym.domains.clips import Clips, load_clips
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.world.base import unroll
from rmr_gym.protocol.store import Artifact
from rmr_gym.protocol.training import Progress
from rmr_gym.protocol.world_model_checks import check_test
from rmr_gym.protocol.world_models import WorldTask, restored, trained
from rmr_gym.stages.balls import open_balls

HELD_OUT = "validation"
"""What the validation episodes of the training data are called among test sets."""


def data_name(test: Path | None) -> str:
    """Return what a test set is called in tables; None: the validation episodes."""
    return HELD_OUT if test is None else test.resolve().name


def count_balls(data: Path) -> int | None:
    """Return how many balls move in a data set; None where it varies or the data do not say."""
    columns = read_manifest(data).columns
    return None if "presence" in columns or "state" not in columns else columns["state"].shape[0]


def test_clips(task: WorldTask, test: Path | None, length: int) -> Clips:
    """Return sequences that were not trained on, side by side, with what is true of them.

    Raises:
        RMRError: No episode is long enough, or the test set is not one, see `check_test`.
    """
    if test is None:
        episodes = open_balls(task.data, task.preset.validation_share)
        clips = load_clips(episodes.dataset, episodes.validation, length, length, truth=True)
    else:
        check_test(task, test)
        dataset = TransitionDataset(test)
        clips = load_clips(dataset, range(len(dataset.episodes)), length, length, truth=True)
    order = generator(0, "world model sequences").permutation(len(clips.rows))
    return replace(clips, rows=clips.rows[np.sort(order[: task.preset.sequences])])


def ready_model(
    task: WorldTask, seed: int, clips: Clips, artifact: Artifact, groups: int | None
) -> nn.Module:
    """Return a trained model to be scored, with another number of groups, if one is given.

    Raises:
        RMRError: It has none to change, or fewer than two are given.
    """
    model: Any = restored(task, clips, seed, artifact)
    model.cut = task.preset.cut if clips.binary else 0.0
    if groups is not None:
        model.groups = replace(task, groups=groups).groups
    return model


def scoring_noise(place: torch.device, start: int) -> torch.Generator:
    """Return the source of noise for a batch of scored sequences, of the same seed for every model.

    Models see the same noise where they draw alike: those of N-EM's family at equal K, those of
    crops always; at another K the first shares come first from the stream and the rest is shifted.
    """
    return torch.Generator(place).manual_seed(integer_seed(0, "world model scores", start))


class Simulated(NamedTuple):
    """What a model made of some sequences.

    Attributes:
        frames: Predictions of the second frame and of all that follow.
        groups: Shares of the groups in each frame but the last; None without groups.
        pictures: What every group predicts; None for models without.
        attention: What group k takes of group i; None for models without.
    """

    frames: Float[Tensor, "batch time height width channels"]
    groups: Float[Tensor, "batch time slots height width"] | None
    pictures: Float[Tensor, "batch time slots height width channels"] | None
    attention: Float[Tensor, "batch time slots slots"] | None


@torch.no_grad()
def simulate(
    model: Any, frames: Tensor, actions: Tensor | None, seen: int, noise: torch.Generator
) -> Simulated:
    """Show a model the first frames of sequences and let it go on by itself.

    Args:
        model: A world model.
        frames: Frames in [0, 1]; the last is only ever predicted.
        actions: Taken at each frame, or None.
        seen: Frames that are shown.
        noise: Of the model's state.
    """
    told = None if actions is None else actions[:, :-1]
    states = list(unroll(model, frames[:, :-1], told, noise, seen))
    decoded = [model.decode(state) for state in states]
    groups = [each.groups for each in decoded if each.groups is not None]
    parts = [
        torch.stack([getattr(state, name) for state in states], dim=1)
        if groups and hasattr(states[0], name)
        else None
        for name in ("pictures", "attention")
    ]
    shares = torch.stack(groups, dim=1) if groups else None
    return Simulated(torch.stack([each.frame for each in decoded], dim=1), shares, *parts)


class Drawn(NamedTuple):
    """One sequence to look at: its frames but the first and the last, what was made of them.

    Attributes:
        truth: Frames, in [0, 1].
        predicted: Predictions of them.
        seen: How many of them the model was shown.
        shares: Of the groups in them; None for models without.
        pictures: What each group predicted; None for models without.
        attention: What group k took of group i to predict them; None for models without.
    """

    truth: Float[np.ndarray, "time height width"]
    predicted: Float[np.ndarray, "time height width"]
    seen: int
    shares: Float[np.ndarray, "time slots height width"] | None
    pictures: Float[np.ndarray, "time slots height width"] | None
    attention: Float[np.ndarray, "time slots slots"] | None


def drawn(
    task: WorldTask,
    seed: int,
    count: int,
    *,
    seen: int,
    ahead: int,
    test: Path | None = None,
    groups: int | None = None,
    progress: Progress | None = None,
) -> list[Drawn]:
    """Run a trained model over some test sequences, to be drawn.

    Args:
        task: Of the training.
        seed: Of the training.
        count: Number of sequences.
        seen: Frames that are shown, 2 or more.
        ahead: Frames that follow, 2 or more.
        test: Another data set; None: the validation episodes.
        groups: K now, for models that have groups; None: as in training.
        progress: Called after every gradient step, where the model is not in the store yet.

    Raises:
        RMRError: Too few frames, no sequence that is long enough, or too few sequences.
    """
    if min(seen, ahead) < 2:
        raise RMRError(f"expected to show and to predict 2 frames or more, got {seen} and {ahead}")
    clips = test_clips(task, test, seen + ahead)
    if not 1 <= count <= len(clips.rows):
        raise RMRError(f"expected 1 to {len(clips.rows)} sequences to draw, got {count}")
    model = ready_model(task, seed, clips, trained(task, seed, progress), groups)
    place = find_device(task.device)
    frames, actions = clips.shown(np.arange(count), place)
    made = simulate(model, frames, actions, seen, scoring_noise(place, 0))
    return [_drawn(frames[row].cpu().numpy(), made, row, seen) for row in range(count)]


def _drawn(frames: np.ndarray, made: Simulated, row: int, seen: int) -> Drawn:
    def of(part: Tensor | None, *frames: slice | int) -> np.ndarray | None:
        return None if part is None else part[row].cpu().numpy()[frames]

    before = slice(None, -1)
    return Drawn(
        frames[1:-1, ..., 0],
        made.frames[row].cpu().numpy()[before, ..., 0],
        seen - 1,
        of(made.groups, slice(1, None)),
        of(made.pictures, before, slice(None), slice(None), slice(None), 0),
        of(made.attention, before),
    )
