"""Ranking of predicted latents: Hits@1 and MRR after 1, 5 and 10 predicted steps."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rmr_gym.core.errors import RMRError
from rmr_gym.core.metrics import ranking_scores
from rmr_gym.core.seeding import generator
from rmr_gym.domains import atari
from rmr_gym.domains.atari import AtariModel
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, find_device
from rmr_gym.runs.store import Artifact, stage
from rmr_gym.stages.games import GameData
from rmr_gym.stages.natural import OBJECTIVES, kept_pipeline, kept_steps
from rmr_gym.stages.presets import Natural

AHEAD = (1, 5, 10)
"""Numbers of predicted steps, as C-SWM reports them."""

ROWS = 1000
"""Size of the reference set: so many paths of validation episodes."""

BATCH = 100
PATHS_SEED = 0


@stage(version=4)
def ranking(
    data: GameData, model: AtariModel, config: Natural, pipelines: Artifact, device: str = "cpu"
) -> Artifact:
    """Rank what the pipelines of all checkpoints predict, by the similarity that they learnt by.

    Args:
        data: Paths come from its validation episodes.
        model: Sizes.
        config: Its objective says by which similarity.
        pipelines: What `rmr_gym.stages.natural.natural` left.
        device: Where to compute.

    Returns:
        The record holds ``rows``, see `rank_predictions`, one list a checkpoint.
    """
    paths, similarity = ranking_paths(data, model), OBJECTIVES[config.objective].similarity
    rows = []
    for step in kept_steps(pipelines):
        pipeline = kept_pipeline(model, pipelines, step).to(find_device(device)).eval()
        centre = pipelines.tensors.get(f"{step}.centre")
        ranked = rank_predictions(pipeline, paths, similarity, centre)
        rows += [{"step": step, **row} for row in ranked]
    return Artifact({"rows": rows})


class Paths(NamedTuple):
    """Frames of a set of paths: where each starts, its actions, and where it is later."""

    start: UInt8[Tensor, "rows height width"]
    action: Int[Tensor, "rows time"]
    later: dict[int, UInt8[Tensor, "rows height width"]]


@lru_cache(maxsize=1)
def ranking_paths(data: GameData, model: AtariModel) -> Paths:
    """Draw paths of the validation episodes; the same for every encoder and number of steps.

    Raises:
        RMRError: No validation episode is long enough.
    """
    episodes = data.open()
    loaded = atari.load_natural(episodes.dataset, episodes.validation, model.height, model.width)
    longest = AHEAD[-1]
    ends = loaded.episode[longest - 1 :]
    starts = np.flatnonzero(loaded.episode[: len(ends)] == ends)
    if len(starts) == 0:
        raise RMRError(
            f"no validation episode of {data.label} has {longest} steps, which ranking predicts: "
            "record longer episodes"
        )
    rng = generator(PATHS_SEED, "ranking paths")
    starts = np.sort(rng.choice(starts, size=min(ROWS, len(starts)), replace=False))
    rows = torch.from_numpy(loaded.current[starts])
    action = torch.stack([loaded.action[starts + step] for step in range(longest)], dim=1)
    later = {ahead: loaded.frames[rows + ahead] for ahead in AHEAD}
    return Paths(loaded.frames[rows], action, later)


@torch.no_grad()
def rank_predictions(
    pipeline: EncodeProcessDecode,
    paths: Paths,
    similarity: str = "euclidean",
    centre: Tensor | None = None,
) -> list[dict[str, Any]]:
    r"""Score the latents that the pipeline predicts against those of the frames that came.

    .. math:: \hat z_0 = f(x_0), \qquad \hat z_{t+1} = g(P(\hat z_t, a_t))

    Source: C-SWM (Kipf et al. 2020), section 4 and appendix; its evaluation code.
    Differs: paths start anywhere in the episodes and not only at their beginning; 1, 5 and 10 steps
    are scored on the same paths; states are compared by the similarity of the objective; beside the
    prediction stands the present state, taken for one.

    Args:
        pipeline: Pixel encoder, P and decoder onto latents.
        paths: See `ranking_paths`.
        similarity: "euclidean", or "cosine" of the flattened latents.
        centre: What the objective subtracts from latents; None: nothing.

    Returns:
        Records of ahead, similarity, hits_at_1, mrr, tied, copy_hits_at_1, copy_mrr and rows, one a
        number of steps.
    """
    middle = 0.0 if centre is None else centre.flatten().cpu().numpy()
    predicted, rows = _unrolled(pipeline, paths), []
    present = _in_batches(pipeline.encoder, paths.start) - middle
    for ahead, frames in paths.later.items():
        true = _in_batches(pipeline.encoder, frames) - middle
        scores = ranking_scores(true, predicted.pop(ahead) - middle, similarity)
        copied = ranking_scores(true, present, similarity)
        beside = {"copy_hits_at_1": copied.hits_at_1, "copy_mrr": copied.mrr, "rows": len(true)}
        rows.append({"ahead": ahead, "similarity": similarity, **scores._asdict(), **beside})
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
    return {ahead: np.concatenate(latents) for ahead, latents in parts.items()}


def _in_batches(
    encoder: torch.nn.Module, frames: UInt8[Tensor, "rows height width"]
) -> Float[np.ndarray, "rows features"]:
    place = next(encoder.parameters()).device
    parts = [encoder(part.to(place)).flatten(1).cpu().numpy() for part in frames.split(BATCH)]
    return np.concatenate(parts)
