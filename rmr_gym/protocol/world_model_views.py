"""Scores of world models that see crops: of fewer crops, with fewer modules, of more balls."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.clips import Clips
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.base import unroll
from rmr_gym.models.world.crops import LocalWorld
from rmr_gym.models.world.s2rm import S2RM, S2RM_MODELS
from rmr_gym.protocol.store import Artifact, Scratch, Store
from rmr_gym.protocol.world_model_presets import find_world_model
from rmr_gym.protocol.world_model_rollouts import (
    count_balls,
    data_name,
    ready_model,
    scoring_noise,
    test_clips,
)
from rmr_gym.protocol.world_models import WorldTask, trained, training_key

SCORE_BATCH = 32
VIEW_ROW = (
    "model", "seed", "step", "test", "balls", "views", "dropped", "balanced_accuracy", "f1",
)  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """Under what a trained model is scored.

    Attributes:
        test: A data set, all of which is used; None: the validation episodes.
        views: Crops that it sees of each frame; None: as many as in training.
        dropped: Number of modules that are taken out.
    """

    test: Path | None = None
    views: int | None = None
    dropped: int = 0


class PixelCounts(NamedTuple):
    """How many pixels were lit or dark, and said to be so."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def balanced_accuracy(self) -> float:
        """Arithmetic mean of recall and specificity; NaN where a class does not occur."""
        lit = self.true_positives + self.false_negatives
        dark = self.true_negatives + self.false_positives
        if not lit or not dark:
            return float("nan")
        return (self.true_positives / lit + self.true_negatives / dark) / 2

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN where nothing is lit nor said to be."""
        wrong = self.false_positives + self.false_negatives
        either = 2 * self.true_positives + wrong
        return 2 * self.true_positives / either if either else float("nan")


def view_scores(task: WorldTask, seed: int, condition: Condition) -> dict[str, Any]:
    """Return a row, `VIEW_ROW`, of scores of a trained model of crops.

    Source: S2RM, section 6: balanced accuracy and F1 of the pixels of queried crops, one step
    ahead, over all frames but the first, with fractions of views (Figures 6, 20, 21), with modules
    taken out (Figure 7), with other numbers of balls (Figure 4).
    Differs: sequences are as long as the preset's; a pixel of a crop beyond the edge counts as
    dark. Which modules go is drawn once: those that go first are gone too when more go.

    Args:
        task: Of the training.
        seed: Of the training.
        condition: Under which it is scored.

    Raises:
        RMRError: The model does not see crops, or cannot have so few views or modules.
    """
    if task.model not in S2RM_MODELS:
        raise RMRError(
            f"expected a model that sees crops, one of {', '.join(S2RM_MODELS)}, got {task.model}"
        )
    test = None if condition.test is None else TransitionDataset(condition.test).fingerprint
    key = view_key(task, seed, test, condition)

    def run(scratch: Scratch) -> Artifact:
        del scratch
        return Artifact({"row": _score(task, seed, condition)})

    row = Store(task.store).get_or_run("world_model_scores", key, run).record["row"]
    row["test"] = data_name(condition.test)
    return {name: row[name] for name in VIEW_ROW}


def view_key(task: WorldTask, seed: int, test: str | None, condition: Condition) -> dict[str, Any]:
    """Return everything that such scores hang on; ``test`` is the fingerprint of its data set."""
    crops = [test, condition.views, condition.dropped, task.preset.sequences]
    return training_key(task, seed) | {"crops": crops}


def _score(task: WorldTask, seed: int, condition: Condition) -> dict[str, Any]:
    artifact = trained(task, seed)
    clips = test_clips(task, condition.test, task.preset.length + 1)
    model: Any = ready_model(task, seed, clips, artifact, None)
    model.drop(dropped_parts(model, condition.dropped))
    if condition.views is not None:
        model.views = condition.views
    counts = count_pixels(model, clips)
    return {
        "model": task.model,
        "seed": seed,
        "step": artifact.record["step"],
        "balls": count_balls(condition.test or task.data),
        "views": model.views,
        "dropped": condition.dropped,
        "balanced_accuracy": counts.balanced_accuracy,
        "f1": counts.f1,
    }


def parts_of(task: WorldTask) -> int:
    """Return how many modules the model of a task has; 0 for one without."""
    make, side = find_world_model(task.model).make, task.sizes.size
    model: Any = build(lambda: make((side, side, 1), task.sizes, 0), torch_generator(0))
    return model.parts


def dropped_parts(model: LocalWorld, count: int) -> list[int]:
    """Return which modules of a model go if so many do.

    Raises:
        RMRError: The model has no modules, or not so many.
    """
    if count and not 0 <= count < model.parts:
        raise RMRError(
            f"expected to drop fewer than all {model.parts} modules, got {count}: models without "
            "modules have none to drop"
        )
    order = generator(0, "dropped modules").permutation(model.parts)
    return [int(part) for part in order[:count]]


@torch.no_grad()
def count_pixels(model: Any, clips: Clips) -> PixelCounts:
    """Count the pixels of the crops that a model is asked about, all frames being shown."""
    place = next(model.parameters()).device
    total = torch.zeros(4, dtype=torch.int64, device=place)
    for start in range(0, len(clips.rows), SCORE_BATCH):
        few = np.arange(start, min(start + SCORE_BATCH, len(clips.rows)))
        frames, _ = clips.shown(few, place)
        states = unroll(model, frames[:, :-1], None, scoring_noise(place, start))
        for t, state in enumerate(states):
            logits, truth = model.asked(state, frames[:, t + 1])
            said, lit = logits > 0, truth > 0.5
            both = (said & lit, said & ~lit, ~said & lit, ~said & ~lit)
            total += torch.stack([each.sum() for each in both])
    return PixelCounts(*total.tolist())


class Enclaves(NamedTuple):
    """Where the modules of a trained S2RM are.

    Attributes:
        attended: How much each attends to each pixel, from 0 to 1.
        heard: How much each can hear of each, from 0 to 1.
    """

    attended: Float[np.ndarray, "slots height width"]
    heard: Float[np.ndarray, "slots slots"]


def enclaves(task: WorldTask, seed: int) -> Enclaves | None:
    """Return what to draw as Figures 5 and 9 of S2RM; None for a model without places.

    Args:
        task: Of the training.
        seed: Of the training.
    """
    clips = test_clips(task, None, 2)
    model = ready_model(task, seed, clips, trained(task, seed), None)
    if not isinstance(model, S2RM):
        return None
    found = (model.spatial.enclaves(), model.spatial.interactions())
    return Enclaves(*(each.cpu().numpy() for each in found))
