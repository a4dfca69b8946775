from dataclasses import replace

import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains import atari
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode
from rmr_gym.models.rmr.processors import make_processor
from rmr_gym.protocol import ranking, stages
from rmr_gym.protocol.pipelines import PipelineScratch, kept_pipeline, trained_pipelines
from rmr_gym.protocol.ranking import AHEAD, Paths, rank_predictions, ranked, ranking_paths
from rmr_gym.protocol.store import Artifact, Scratch


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (stages.open_episodes, stages.natural_data, stages.probe_sets, ranking_paths):
        cached.cache_clear()


def fail(*_, **__):
    raise AssertionError("trained again")


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


@pytest.mark.parametrize("arm", ["rmr", "cswm", "shuffled_p", "no_p"])
def test_pipelines_hold_the_encoders_of_the_natural_stage(task, tmp_path, arm):
    whole = trained_pipelines(task, arm, 1)
    alone = stages.trained_encoders(replace(task, store=tmp_path / "other"), arm, 1)
    assert stages.kept_steps(whole) == stages.kept_steps(alone) == [2, 4]
    for step in (2, 4):
        pipeline = kept_pipeline(task, arm, 1, whole, step)
        assert same(pipeline.encoder.state_dict(), alone.part(str(step)))
    moved = [
        not same(*(kept_pipeline(task, arm, 1, whole, s).processor.state_dict() for s in (2, 4)))
    ]
    assert moved == [arm in ("cswm", "no_p")]


def test_what_natural_would_hold_is_kept_under_its_own_key(task, monkeypatch):
    whole = trained_pipelines(task, "cswm", 0)
    monkeypatch.setattr(stages, "train_natural", fail)
    encoders = stages.trained_encoders(task, "cswm", 0)
    assert same(kept_pipeline(task, "cswm", 0, whole, 4).encoder.state_dict(), encoders.part("4"))
    assert encoders.record["seconds"] > 0.01
    assert same(trained_pipelines(task, "cswm", 0).tensors, whole.tensors)


def test_arms_trained_before_are_trained_once_more(task, tmp_path):
    stages.trained_encoders(task, "cswm", 0)
    fresh = trained_pipelines(replace(task, store=tmp_path / "other"), "cswm", 0)
    assert same(trained_pipelines(task, "cswm", 0).tensors, fresh.tensors)


def test_a_run_killed_between_checkpoints_still_has_the_first(task, tmp_path, monkeypatch):
    whole = trained_pipelines(task, "cswm", 0)
    broken = replace(task, store=tmp_path / "broken")
    save = Scratch.save

    def save_and_die(self, state):
        save(self, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Scratch, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        trained_pipelines(broken, "cswm", 0)
    monkeypatch.setattr(Scratch, "save", save)
    assert same(trained_pipelines(broken, "cswm", 0).tensors, whole.tensors)


def test_only_checkpoints_are_kept(tmp_path):
    scratch = PipelineScratch(Scratch(tmp_path / "s"), (2,))
    for step in (1, 2, 3):
        tensors = {"model.w": torch.tensor([float(step)]), "optimizer.0.step": torch.tensor(1.0)}
        scratch.save(Artifact({"step": step}, tensors))
    assert set(scratch.kept) == {"2.w"}
    again = PipelineScratch(Scratch(tmp_path / "s"), (2,))
    assert again.load().record["step"] == 3
    assert again.kept["2.w"].item() == 2


def test_paths_follow_the_episodes(task):
    paths = ranking_paths(task)
    episodes = stages.open_episodes(task)
    data = atari.load_natural(episodes.dataset, episodes.validation, task.preset.model)
    rows = len(paths.start)
    assert paths.action.shape == (rows, AHEAD[-1])
    lengths = [episodes.dataset.episodes[index].length for index in episodes.validation]
    assert rows == sum(max(0, length - AHEAD[-1] + 1) for length in lengths)
    starts = np.concatenate(
        [
            np.arange(max(0, n - AHEAD[-1] + 1)) + off
            for n, off in zip(lengths, np.cumsum([0, *lengths]), strict=False)
        ]
    )
    for ahead, frames in paths.later.items():
        assert torch.equal(frames, data.frames[data.current[starts] + ahead])
    assert torch.equal(paths.action[:, 4], data.action[starts + 4])


class Oracle(torch.nn.Module):
    """Encodes a frame as the number that stands in its corner."""

    def __init__(self):
        super().__init__()
        self.none = torch.nn.Parameter(torch.zeros(1))

    def forward(self, frames):
        return frames[:, 0, :1].float()[:, None]


def adding_processor():
    """A world in which the action is added to the state."""
    processor = make_processor("none", slots=1, actions=18, dim=1)
    with torch.no_grad():
        processor.action_encoder.weight.copy_(torch.arange(18.0)[None])
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
    pipeline = EncodeProcessDecode(Oracle(), adding_processor(), torch.nn.Identity())
    rows = rank_predictions(pipeline, Paths(frames, action, later))
    assert [row["ahead"] for row in rows] == list(AHEAD)
    assert all(row["hits_at_1"] == row["mrr"] == 1 and row["rows"] == 40 for row in rows)
    shifted = {ahead: each.roll(1, 0) for ahead, each in later.items()}
    worse = rank_predictions(pipeline, Paths(frames, action, shifted))
    assert all(row["mrr"] < 0.5 for row in worse)


def test_ranks_of_a_trained_arm_are_found_again(task, monkeypatch):
    whole = trained_pipelines(task, "rmr", 0)
    pipeline = kept_pipeline(task, "rmr", 0, whole, 4)
    rows = ranked(task, pipeline).record["rows"]
    assert all(0 < row["mrr"] <= 1 and 0 <= row["tied"] <= 1 for row in rows)
    monkeypatch.setattr(ranking, "rank_predictions", fail)
    assert ranked(task, kept_pipeline(task, "rmr", 0, whole, 4)).record["rows"] == rows


def test_episodes_that_are_too_short_are_said(task, monkeypatch):
    monkeypatch.setattr(ranking, "AHEAD", (1, 500))
    with pytest.raises(RMRError, match="record longer episodes"):
        ranking_paths(task)
