"""Ranking of predicted latents: Hits@1 and MRR after 1, 5 and 10 predicted steps."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rmr_gym.core.errors import RMRError
from rmr_gym.core.ranking import ranking_scores
from rmr_gym.core.seeding import generator
from rmr_gym.domains import atari
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, find_device
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.protocol import stages
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import Artifact, Scratch, Store

AHEAD = (1, 5, 10)
"""Numbers of predicted steps, as C-SWM reports them."""

ROWS = 1000
"""Size of the reference set: so many paths of validation episodes."""

BATCH = 100
PATHS_SEED = 0


class Paths(NamedTuple):
    """Frames of a set of paths: where each starts, its actions, and where it is later."""

    start: UInt8[Tensor, "rows height width"]
    action: Int[Tensor, "rows time"]
    later: dict[int, UInt8[Tensor, "rows height width"]]


@lru_cache(maxsize=1)
def ranking_paths(task: GameTask) -> Paths:
    """Draw paths of the validation episodes; the same for every encoder and number of steps.

    Raises:
        RMRError: No validation episode is long enough.
    """
    episodes = stages.open_episodes(task)
    data = atari.load_natural(episodes.dataset, episodes.validation, task.preset.model)
    longest = AHEAD[-1]
    ends = data.episode[longest - 1 :]
    starts = np.flatnonzero(data.episode[: len(ends)] == ends)
    if len(starts) == 0:
        raise RMRError(
            f"no validation episode of {task.game} has {longest} steps, which ranking predicts: "
            "record longer episodes"
        )
    rng = generator(PATHS_SEED, "ranking paths")
    starts = np.sort(rng.choice(starts, size=min(ROWS, len(starts)), replace=False))
    rows = torch.from_numpy(data.current[starts])
    action = torch.stack([data.action[starts + step] for step in range(longest)], dim=1)
    later = {ahead: data.frames[rows + ahead] for ahead in AHEAD}
    return Paths(data.frames[rows], action, later)


@torch.no_grad()
def rank_predictions(pipeline: EncodeProcessDecode, paths: Paths) -> list[dict[str, Any]]:
    r"""Score the latents that the pipeline predicts against those of the frames that came.

    .. math:: \hat z_0 = f(x_0), \qquad \hat z_{t+1} = g(P(\hat z_t, a_t))

    Source: C-SWM (Kipf et al. 2020), section 4 and appendix; its evaluation code.
    Differs: paths start anywhere in the episodes and not only at their beginning; 1, 5 and 10 steps
    are scored on the same paths.

    Args:
        pipeline: Pixel encoder, P and decoder onto latents.
        paths: See `ranking_paths`.

    Returns:
        Records of ahead, hits_at_1, mrr, tied and rows, one a number of steps.
    """
    predicted, rows = _unrolled(pipeline, paths), []
    for ahead, frames in paths.later.items():
        true = _in_batches(pipeline.encoder, frames)
        scores = ranking_scores(true, predicted.pop(ahead))
        rows.append({"ahead": ahead, **scores._asdict(), "rows": len(true)})
    return rows


def _unrolled(
    pipeline: EncodeProcessDecode, paths: Paths
) -> dict[int, Float[np.ndarray, "rows features"]]:
    place = next(pipeline.parameters()).device
    parts: dict[int, list[np.ndarray]] = {ahead: [] for ahead in paths.later}
    for frames, actions in zip(paths.start.split(BATCH), paths.action.split(BATCH), strict=True):
        latent = pipeline.encoder(frames.to(place))
        for step, action in enumerate(actions.to(place).unbind(1), 1):
            latent = pipeline.decoder(pipeline.processor(latent, action))
            if step in parts:
                parts[step].append(latent.flatten(1).cpu().numpy())
    return {ahead: np.concatenate(found) for ahead, found in parts.items()}


def _in_batches(
    encoder: torch.nn.Module, frames: UInt8[Tensor, "rows height width"]
) -> Float[np.ndarray, "rows features"]:
    place = next(encoder.parameters()).device
    parts = [encoder(part.to(place)).flatten(1).cpu().numpy() for part in frames.split(BATCH)]
    return np.concatenate(parts)


def ranked(task: GameTask, pipeline: EncodeProcessDecode) -> Artifact:
    """Return the ranking scores of a pipeline; found again by its weights."""

    def run(scratch: Scratch) -> Artifact:
        del scratch
        pipeline.to(find_device(task.device)).eval()
        return Artifact({"rows": rank_predictions(pipeline, ranking_paths(task))})

    key = stages.data_key(task) | {
        "pipeline": parameter_hash(pipeline),
        "ahead": list(AHEAD),
        "rows": ROWS,
        "seed": PATHS_SEED,
    }
    return Store(task.store).get_or_run("ranking", key, run)
