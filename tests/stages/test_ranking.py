from dataclasses import replace

import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains import atari
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode
from rmr_gym.models.rmr.processors import make_processor
from rmr_gym.stages import ranking as ranking_module
from rmr_gym.stages.natural import OBJECTIVES, start_latents
from rmr_gym.stages.ranking import AHEAD, Paths, rank_predictions, ranking_paths


def test_paths_follow_the_episodes(game):
    paths = ranking_paths(game.data, game.preset.model)
    episodes = game.data.open()
    data = atari.load_natural(episodes.dataset, episodes.validation, 84, 84)
    rows = len(paths.start)
    assert paths.action.shape == (rows, AHEAD[-1])
    lengths = [episodes.dataset.episodes[index].length for index in episodes.validation]
    assert rows == sum(max(0, length - AHEAD[-1] + 1) for length in lengths)
    starts = np.concatenate(
        [
            np.arange(max(0, length - AHEAD[-1] + 1)) + first
            for length, first in zip(lengths, np.cumsum([0, *lengths]), strict=False)
        ]
    )
    for ahead, frames in paths.later.items():
        assert torch.equal(frames, data.frames[data.current[starts] + ahead])
    assert torch.equal(paths.action[:, 4], data.action[starts + 4])


class Corner(torch.nn.Module):
    """Encodes a frame as the numbers that stand in its corner."""

    def __init__(self, width=1):
        super().__init__()
        self.none, self.width = torch.nn.Parameter(torch.zeros(1)), width

    def forward(self, frames):
        return frames[:, 0, : self.width].float()[:, None]


def adding_processor(weights):
    """A world in which what the action stands for is added to the state."""
    processor = make_processor("none", slots=1, actions=18, dim=len(weights))
    with torch.no_grad():
        processor.action_encoder.weight.copy_(weights)
        processor.action_encoder.bias.zero_()
    return processor


def test_predictions_are_unrolled_with_each_steps_own_action():
    rng = np.random.default_rng(0)
    start = torch.from_numpy(rng.permutation(100)[:40].astype(np.uint8))
    action = torch.from_numpy(rng.integers(0, 18, (40, 10)))
    frames = start[:, None, None].expand(40, 2, 2)
    later = {
        ahead: (frames + action[:, :ahead].sum(1)[:, None, None]).to(torch.uint8) for ahead in AHEAD
    }
    processor = adding_processor(torch.arange(18.0)[None])
    pipeline = EncodeProcessDecode(Corner(), processor, torch.nn.Identity())
    rows = rank_predictions(pipeline, Paths(frames, action, later))
    assert [row["ahead"] for row in rows] == list(AHEAD)
    assert all(row["hits_at_1"] == row["mrr"] == 1 and row["rows"] == 40 for row in rows)
    shifted = {ahead: frames.roll(1, 0) for ahead, frames in later.items()}
    worse = rank_predictions(pipeline, Paths(frames, action, shifted))
    assert all(row["mrr"] < 0.5 for row in worse)


def test_states_are_ranked_by_the_similarity_that_was_learnt_beside_the_copy():
    """By hand: P doubles the first number and keeps the second.

    The states (4, 1), (6, 2), (1, 4) are predicted to become (8, 1), (12, 2), (2, 4); what comes is
    (4, 0), (6, 1), (1, 2).
    """

    class Doubling(torch.nn.Module):
        def forward(self, latents, action):
            del action
            return latents * torch.tensor([2.0, 1.0])

    def frames(*corners):
        return torch.tensor(corners, dtype=torch.uint8)[:, None, :]

    start = frames((4, 1), (6, 2), (1, 4))
    true = frames((4, 0), (6, 1), (1, 2))
    pipeline = EncodeProcessDecode(Corner(2), Doubling(), torch.nn.Identity())
    paths = Paths(start, torch.zeros(3, 10, dtype=torch.long), {1: true})
    (cosine,) = rank_predictions(pipeline, paths, "cosine")
    (euclidean,) = rank_predictions(pipeline, paths, "euclidean")
    assert (cosine["similarity"], euclidean["similarity"]) == ("cosine", "euclidean")
    # cosine: (4,0) and (8,1) 1st; (6,1) and (12,2) 1st; (1,2) and (2,4) 1st
    assert (cosine["hits_at_1"], cosine["mrr"]) == (1.0, 1.0)
    # squared distance: (4,0) to (8,1) is 17, to (2,4) 20; (6,1) to (12,2) is 37, but to (8,1) 4
    # and to (2,4) 25; (1,2) to (2,4) is 5
    assert euclidean["hits_at_1"] == pytest.approx(2 / 3)
    assert euclidean["mrr"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    # copies, by distance: (4,0) to (4,1); (6,1) to (6,2); (1,2) to (1,4), each the nearest
    assert (euclidean["copy_hits_at_1"], euclidean["copy_mrr"]) == (1.0, 1.0)
    # by cosine (4,0) is as near to none as to (4,1); (6,1) is nearer to (4,1) than to (6,2)
    assert cosine["copy_hits_at_1"] == pytest.approx(2 / 3)
    assert cosine["copy_mrr"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    # less (4, 1), what comes is (0, -1), (2, 0), (-3, 1), the predictions (4, 0), (8, 1), (-2, 3)
    (centred,) = rank_predictions(pipeline, paths, "cosine", torch.tensor([[4.0, 1.0]]))
    assert centred["hits_at_1"] == pytest.approx(2 / 3)
    assert centred["mrr"] == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_an_aligned_start_is_ranked_around_its_centre(game, chain, monkeypatch):
    changed = game.with_preset(natural={"objective": "infonce_aligned", "checkpoints": (2,)})
    centres = []
    monkeypatch.setattr(
        ranking_module, "rank_predictions", lambda *arguments: centres.append(arguments[-1]) or []
    )
    for objective_game in (changed, game):
        artifact = chain.compute(objective_game.trained("cswm", 0))
        task = objective_game.ranked(objective_game.trained("cswm", 0))
        task.stage.function(**(dict(task.arguments) | {"pipelines": artifact}))
    donor = chain.compute(changed.pretrained())
    latents = start_latents(game.data, game.preset.model, donor, "cswm")
    assert torch.equal(centres[0], latents.current.mean(0))
    assert centres[1:] == [None, None]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_ranked_by_its_own_similarity(game, chain, objective):
    changed = game.with_preset(natural={"objective": objective, "checkpoints": (2,)})
    rows = chain.compute(changed.ranked(changed.trained("cswm", 0))).record["rows"]
    expected = "cosine" if objective.startswith("infonce") else "euclidean"
    assert [row["similarity"] for row in rows] == [expected] * len(AHEAD)
    assert [(row["step"], row["ahead"]) for row in rows] == [(2, ahead) for ahead in AHEAD]
    for row in rows:
        assert 0 < row["mrr"] <= 1
        assert 0 < row["copy_mrr"] <= 1
        assert 0 <= row["tied"] <= 1


def test_episodes_that_are_too_short_are_said(game, monkeypatch):
    monkeypatch.setattr(ranking_module, "AHEAD", (1, 500))
    other = replace(game.data, entropy_threshold=0.61)
    with pytest.raises(RMRError, match="record longer episodes"):
        ranking_paths(other, game.preset.model)
