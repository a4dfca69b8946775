from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

import rmr_gym  # noqa: F401
from rmr_gym.core.errors import RMRError
from rmr_gym.data.schema import Episode, Manifest, observation_columns, step_columns
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.domains import balls as domain
from rmr_gym.domains.balls import BallsModel
from rmr_gym.protocol import balls
from rmr_gym.protocol import balls_scores as scores
from rmr_gym.protocol.balls import BallsPreset, BallsTask, Evaluation, Phase

EPISODES, STEPS, BALLS = 12, 30, 3
TINY = BallsPreset(
    name="tiny",
    phases=(Phase(60, batch=16), Phase(10, 1e-4, batch=16, unroll=2)),
    model=BallsModel(dim=16, predict="acceleration"),
    evaluation=Evaluation(windows=40, horizon=12),
    validation_share=0.25,
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls"
    envs = gym.make_vec("rmr/BouncingBalls-v0", EPISODES, threads=1, balls=BALLS, resolution=8)
    actions, states = np.zeros(EPISODES, np.int64), [envs.reset(seed=0)[0]["state"]]
    states += [envs.step(actions)[0]["state"] for _ in range(STEPS)]
    space = gym.spaces.Dict(state=envs.unwrapped.single_observation_space["state"])
    manifest = Manifest(observation_columns(space), step_columns(envs.single_action_space))
    flags = np.zeros(STEPS, bool)
    with DatasetWriter(path, manifest) as writer:
        for index in range(EPISODES):
            state = np.stack([rows[index] for rows in states])
            steps = (actions[:1].repeat(STEPS), np.zeros(STEPS, np.float32), flags, flags)
            writer.write(Episode(index, index, "passive", {"state": state}, *steps))
    envs.close()
    return path


@pytest.fixture
def task(recorded, tmp_path):
    return BallsTask(recorded, tmp_path / "store", TINY)


def with_preset(task, **changes):
    return replace(task, preset=replace(task.preset, **changes))


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def test_pretraining_learns_over_its_phases(task):
    seen = []
    artifact = balls.pretrained(task, 0, lambda *values: seen.append(values))
    assert seen == [(step, 70) for step in range(1, 71)]
    assert [row["step"] for row in artifact.record["rows"]] == [60, 70]
    curve = artifact.record["curve"]
    assert [point["step"] for point in curve] == list(range(1, 71))
    assert np.mean([p["loss"] for p in curve[50:60]]) < np.mean([p["loss"] for p in curve[:10]])
    assert artifact.record["model"]["predict"] == "acceleration"
    processor = domain.make_balls_processor(TINY.model, 0, BALLS)
    assert set(artifact.part("processor")) == set(processor.state_dict())


def test_same_seed_same_bytes_other_seed_others(task, tmp_path):
    first = balls.pretrained(task, 3)
    again = balls.pretrained(replace(task, store=tmp_path / "other"), 3)
    assert same(first.tensors, again.tensors)
    assert first.record["rows"] == again.record["rows"]
    assert not same(first.tensors, balls.pretrained(task, 4).tensors)


@pytest.mark.parametrize("stop", [30, 65])
def test_a_killed_run_ends_with_the_same_bytes(task, tmp_path, monkeypatch, stop):
    monkeypatch.setattr("rmr_gym.protocol.training.SAVE_EVERY_SECONDS", 0.0)
    whole = balls.pretrained(replace(task, store=tmp_path / "whole"))

    def interrupt(done, total):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        balls.pretrained(task, 0, interrupt)
    seen = []
    resumed = balls.pretrained(task, 0, lambda done, total: seen.append(done))
    assert seen[0] == stop + 1
    assert same(whole.tensors, resumed.tensors)
    assert whole.record["curve"] == resumed.record["curve"]


def test_finished_phases_are_not_trained_again(task, monkeypatch):
    first = balls.pretrained(task)
    trained = []

    def watch(phase, *arguments, **options):
        trained.append(phase)
        return original(phase, *arguments, **options)

    original = balls.train_phase
    monkeypatch.setattr(balls, "train_phase", watch)
    assert same(balls.pretrained(task).tensors, first.tensors)
    assert trained == []
    added = Phase(5, 1e-5, batch=16)
    balls.pretrained(with_preset(task, phases=(*TINY.phases, added)))
    assert trained == [added]


def test_validation_episodes_are_never_trained_on(task):
    episodes = balls.open_balls(task.data, TINY.validation_share)
    assert not set(episodes.training) & set(episodes.validation)
    assert (len(episodes.training), len(episodes.validation)) == (9, 3)


def test_baselines_and_simulator_stand_beside_the_model(task):
    references = {row["model"]: row for row in scores.scored(task)}
    assert list(references) == ["simulator", "copy", "linear", "reflected"]
    assert references["simulator"]["mse_10"] == 0
    assert references["simulator"]["outside"] == 0
    assert 0 < references["reflected"]["mse_1"] <= references["linear"]["mse_1"]
    assert references["linear"]["mse_1"] < references["copy"]["mse_1"]
    assert references["linear"]["outside"] > 0 == references["reflected"]["outside"]
    assert references["copy"]["energy"] == -1
    (row,) = scores.scored(task, balls.pretrained(task))
    assert row["model"] == "mpnn"
    assert 0 < row["mse_1"] < references["copy"]["mse_1"]


def test_scores_are_found_again_and_differ_by_weights(task, monkeypatch):
    first, other = (balls.pretrained(task, seed) for seed in (0, 1))
    rows = scores.scored(task, first)
    assert scores.scored(task, other) != rows
    monkeypatch.setattr(scores, "score_rollers", None)
    assert scores.scored(task, first) == rows


def test_validation_error_of_the_record_is_the_one_step_error(task):
    artifact = balls.pretrained(task)
    pipeline = balls.restored(TINY.model, artifact, BALLS)
    data = balls.load_part(task.data, TINY.validation_share, "validation", 2)
    window = domain.windows(data, np.arange(len(data.current)))
    with torch.no_grad():
        expected = (domain.next_positions(pipeline, window[:, :3]) - window[:, 3]).square().mean()
    assert artifact.record["rows"][-1]["validation_mse"] == pytest.approx(expected.item(), rel=1e-4)


def test_bottleneck_covers_every_width_and_the_interaction_network(task):
    outcomes = scores.bottleneck(with_preset(task, phases=(Phase(3, batch=8),)), (2, 4), (0, 1))
    assert [outcome.error for outcome in outcomes] == [None] * 8
    rows = [outcome.value for outcome in outcomes]
    found = [(row["core"], row["dim"], row["seed"]) for row in rows]
    points = [("mpnn", 2), ("mpnn", 4), ("mpnn", 16), ("interaction", 16)]
    assert found == [(*point, seed) for seed in (0, 1) for point in points]
    assert all(row["validation_mse"] > 0 and row["mse_10"] > 0 for row in rows)


def test_wall_positions_of_one_radius_or_one_a_ball():
    assert balls.wall_positions((0.2,), 3).flatten().tolist() == pytest.approx([0.8] * 3)
    assert balls.wall_positions((0.1, 0.2), 2).flatten().tolist() == pytest.approx([0.9, 0.8])
    with pytest.raises(RMRError, match="one radius or 3"):
        balls.wall_positions((0.1, 0.2), 3)


def test_data_without_balls_are_refused(recorded, tmp_path):
    manifest = Manifest(
        observation_columns(gym.spaces.Box(0, 1, (4,))), step_columns(gym.spaces.Discrete(2))
    )
    zeros, flags = np.zeros((3, 4), np.float32), np.zeros(2, bool)
    with DatasetWriter(tmp_path / "other", manifest) as writer:
        for index in range(2):
            steps = (np.zeros(2, np.int64), np.zeros(2, np.float32), flags, flags)
            writer.write(Episode(index, 0, "any", {"observation": zeros}, *steps))
    with pytest.raises(RMRError, match="positions of balls"):
        balls.pretrained(BallsTask(tmp_path / "other", tmp_path / "store", TINY))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Phase(0),
        lambda: Phase(1, unroll=0),
        lambda: Phase(1, learning_rate=0.0),
        lambda: Evaluation(windows=0),
        lambda: Evaluation(horizon=9),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(RMRError, match="or more"):
        make()


def test_unknown_presets_show_the_nearest():
    with pytest.raises(RMRError, match="did you mean 'laptop'"):
        balls.find_balls_preset("latop")
