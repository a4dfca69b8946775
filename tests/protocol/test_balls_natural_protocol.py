from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

import rmr_gym  # noqa: F401
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Episode, Manifest, observation_columns, step_columns
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.domains.balls import BallsModel, PixelModel, balls_data, windows_ahead
from rmr_gym.models.objects import ClipEncoder
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.protocol import balls, balls_natural
from rmr_gym.protocol import balls_natural_scores as scores
from rmr_gym.protocol.balls import BallsPreset, Phase
from rmr_gym.protocol.balls_natural import PixelTask
from rmr_gym.protocol.balls_natural_presets import (
    PIXEL_PRESETS,
    PixelPreset,
    find_pixel_preset,
)
from rmr_gym.protocol.store import Artifact

EPISODES, STEPS, BALLS = 5, 11, 3
SIZES = BallsModel(dim=16)
TINY = PixelPreset(
    name="tiny",
    warm_start=(Phase(3, batch=4), Phase(1, batch=2)),
    handed_on=1,
    phases=(Phase(2, batch=4), Phase(2, 2e-4, batch=4)),
    model=PixelModel(SIZES, slot_dim=8, channels=4, decoder_channels=4, grid=4),
    windows=12,
    validation_share=0.4,
)
ABSTRACT = BallsPreset("tiny", (Phase(3, batch=4),), SIZES, validation_share=0.4)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls"
    envs = gym.make_vec("rmr/BouncingBalls-v0", EPISODES, threads=1, balls=BALLS, resolution=16)
    actions, seen = np.zeros(EPISODES, np.int64), [envs.reset(seed=0)[0]]
    seen += [envs.step(actions)[0] for _ in range(STEPS)]
    space = envs.unwrapped.single_observation_space
    manifest = Manifest(observation_columns(space), step_columns(envs.single_action_space))
    flags = np.zeros(STEPS, bool)
    with DatasetWriter(path, manifest) as writer:
        for index in range(EPISODES):
            columns = {name: np.stack([rows[name][index] for rows in seen]) for name in space}
            steps = (actions[:1].repeat(STEPS), np.zeros(STEPS, np.float32), flags, flags)
            writer.write(Episode(index, index, "passive", columns, *steps))
    envs.close()
    return path


@pytest.fixture(autouse=True)
def _stages():
    yield
    for cached in (
        *(balls.open_balls, balls.load_part),
        *(balls_natural.load_pixels, scores.true_masks),
    ):
        cached.cache_clear()


@pytest.fixture
def task(recorded, tmp_path):
    return PixelTask(recorded, tmp_path / "store", TINY, BALLS, abstract=ABSTRACT)


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def without_p(artifact):
    return {k: v for k, v in artifact.tensors.items() if not k.startswith("processor.")}


def test_training_reads_pixels_alone(task, monkeypatch):
    asked = []
    load = TransitionDataset.load

    def spied(self, columns, **options):
        asked.append(tuple(columns))
        return load(self, columns=columns, **options)

    monkeypatch.setattr(TransitionDataset, "load", spied)
    balls_natural.trained(task, "baseline", 0)
    assert set(asked) == {("pixels",)}


def test_a_frozen_p_stays_what_it_was_and_the_others_start_alike(task):
    given = balls_natural.donor(task).part("processor")
    rmr, baseline = (balls_natural.trained(task, arm, 0) for arm in ("rmr", "baseline"))
    assert same(rmr.part("processor"), given)
    random_p = balls_natural.trained(task, "random_p", 0).part("processor")
    fresh = balls_natural.arm_processor("baseline", SIZES, BALLS, 0, None).state_dict()
    assert same(random_p, fresh)
    assert not same(baseline.part("processor"), fresh)
    shuffled = balls_natural.trained(task, "shuffled_p", 0).part("processor")
    assert not same(shuffled, given)
    for name, values in shuffled.items():
        assert torch.equal(values.flatten().sort().values, given[name].flatten().sort().values)


def test_arms_of_a_seed_share_warm_start_and_batches(task, monkeypatch):
    seen = {}
    arm = None
    draw = balls_natural.batch_indices

    def spied(data, batch, seed, stream, step):
        index = draw(data, batch, seed, stream, step)
        seen.setdefault((arm, stream), []).append(index.tolist())
        return index

    monkeypatch.setattr(balls_natural, "batch_indices", spied)
    for arm in ("baseline", "random_p"):
        balls_natural.trained(task, arm, 0)
    assert len(seen["baseline", "still"]) == 4
    assert ("random_p", "still") not in seen, "the warm start is computed once"
    batches = seen["baseline", "pixels"]
    assert batches == seen["random_p", "pixels"]
    assert len({str(batch) for batch in batches}) == 4, "phases do not repeat batches"
    warm = balls_natural.warm_started(task, 0)
    start = balls_natural.restored(task, "rmr", 0, warm)
    own = {k: v for k, v in start.state_dict().items() if not k.startswith("processor.")}
    assert same(own, warm.tensors)


def test_equal_runs_give_equal_bytes_and_a_stopped_run_goes_on(task, tmp_path, monkeypatch):
    whole = balls_natural.trained(task, "baseline", 0)
    again = replace(task, store=tmp_path / "again")
    steps = 0

    def stop(done, total):
        nonlocal steps
        steps += 1
        if steps == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("rmr_gym.protocol.training.SAVE_EVERY_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        balls_natural.trained(again, "baseline", 0, stop)
    resumed = balls_natural.trained(again, "baseline", 0)
    assert same(whole.tensors, resumed.tensors)
    assert [point["step"] for point in resumed.record["curve"]] == [1, 2, 3, 4]
    other = balls_natural.trained(again, "baseline", 1)
    assert not same(without_p(whole), without_p(other))


def test_the_slot_encoder_is_held_until_the_rest_has_found_its_way(task):
    warm = balls_natural.warm_started(task, 0).tensors
    for phases, held in ((TINY.phases[:1], True), (TINY.phases, False)):
        after = balls_natural.trained(replace(task, preset=replace(TINY, phases=phases)), "rmr", 0)
        same_start = same(after.part("encoder.encoder"), Artifact({}, warm).part("encoder.encoder"))
        assert same_start == held


def test_clips_end_the_warm_start(task, monkeypatch):
    shown = []
    still = ClipEncoder.still

    def spied(self, clip):
        shown.append(clip.shape[:2])
        return still(self, clip)

    monkeypatch.setattr(ClipEncoder, "still", spied)
    balls_natural.warm_started(task, 0)
    assert shown == [(4, 1)] * 3 + [(2, 3)]


def test_an_aligned_start_hands_the_abstract_pipeline_over_and_then_trains(task):
    abstract = balls_natural.donor(task)
    untouched = replace(task, preset=replace(TINY, phases=()))
    start = balls_natural.trained(untouched, "random_p_aligned", 0).tensors
    assert torch.equal(start["decoder.position.weight"], abstract.tensors["decoder.weight"])
    for arm in ("rmr_aligned", "tuned_p_aligned"):
        trained = balls_natural.trained(task, arm, 0)
        moved = trained.tensors["decoder.position.weight"]
        assert not torch.equal(moved, abstract.tensors["decoder.weight"])
        frozen = same(trained.part("processor"), abstract.part("processor"))
        assert frozen == (arm == "rmr_aligned")
    other = replace(ABSTRACT, model=replace(SIZES, predict="change"))
    model = replace(TINY.model, processor=replace(SIZES, predict="change"))
    changed = replace(task, abstract=other, preset=replace(TINY, model=model))
    with pytest.raises(RMRError, match="--predict position"):
        balls_natural.trained(changed, "rmr_aligned", 0)


def test_compare_gives_a_row_an_arm_and_seed(task):
    outcomes = scores.compare(task, (0, 1), ("rmr", "no_p"))
    assert [outcome.error for outcome in outcomes] == [None] * 6
    rows = [outcome.value for outcome in outcomes]
    assert [(row["arm"], row["seed"], row["step"]) for row in rows] == [
        *(("warm_start", 0, 4), ("warm_start", 1, 4)),
        *(("rmr", 0, 4), ("no_p", 0, 4), ("rmr", 1, 4), ("no_p", 1, 4)),
    ]
    assert set(rows[-1]) == set(scores.ROW)
    assert len({row["copy_mse"] for row in rows}) == 1
    assert all(-1 <= row["ari"] <= 1 for row in rows)
    for row in rows:
        assert row["ratio_to_copy"] == pytest.approx(row["mse"] / row["copy_mse"])


def test_scores_hold_a_rollout_and_a_bottleneck_has_its_widths(task):
    points = [("mpnn", 4), ("mpnn", 16), ("interaction", 16)]
    outcomes = scores.bottleneck(task, (4,), (0,), ("baseline",))
    assert [outcome.error for outcome in outcomes] == [None] * 6
    rows = [outcome.value for outcome in outcomes]
    assert [(row["core"], row["dim"]) for row in rows if row["arm"] == "baseline"] == points
    for row in rows:
        assert ("rollout_mse" in row) == (row["arm"] == "baseline")
    (mine,) = (
        row for row in rows if (row["arm"], row["core"], row["dim"]) == ("baseline", *points[1])
    )
    (alone,) = (o.value for o in scores.compare(task, (0,), ("baseline",)) if "baseline" in o.key)
    assert alone.items() <= mine.items(), "the same cell, found again"


def test_windows_ahead_are_followed_by_their_episode():
    data = balls_data(torch.zeros(13, 4, 4, 3, dtype=torch.uint8), [6, 7])
    reach = [(row, row + 3) for row in data.current[windows_ahead(data, 3)]]
    assert reach == [(2, 5), (8, 11), (9, 12)]


def test_rollouts_stay_within_an_episode(task):
    drawn = scores.imagined(task, "no_p", 0, 2, 4)
    assert drawn.past.shape == (2, 3, 16, 16, 3)
    assert drawn.predicted.shape == drawn.truth.shape == (2, 4, 16, 16, 3)
    assert drawn.masks.shape == (2, 4, BALLS + 1, 16, 16)
    data = balls_natural.load_pixels(task.data, 0.4, "validation")
    frames = data.seen.numpy() / np.float32(255)
    starts = [
        start
        for start in range(len(frames))
        if np.array_equal(frames[start : start + 3], drawn.past[0])
    ]
    assert len(starts) == 1
    assert starts[0] % (STEPS + 1) + 7 <= STEPS + 1
    with pytest.raises(RMRError, match="an episode of 15 frames"):
        scores.imagined(task, "no_p", 0, 2, 12)


def test_unknown_names_and_missing_p_are_refused(task):
    with pytest.raises(RMRError, match="baseline"):
        scores.compare(task, (0,), ("base_line",))
    with pytest.raises(RMRError, match="at least one seed"):
        scores.compare(task, ())
    with pytest.raises(RMRError, match="pretrained processor"):
        balls_natural.arm_processor("rmr", SIZES, BALLS, 0, None)
    with pytest.raises(RMRError, match="laptop"):
        find_pixel_preset("labtop")


@pytest.mark.parametrize("name", PIXEL_PRESETS)
def test_every_preset_makes_a_pipeline(name):
    model = find_pixel_preset(name).model
    resolution = 64 if name == "paper" else 32
    processor = balls_natural.arm_processor("random_p", model.processor, 3, 0, None)
    before = parameter_hash(processor)
    pipeline = balls_natural.pixel_pipeline(model, processor, 0, resolution=resolution, balls=3)
    clip = torch.rand(1, 3, resolution, resolution, 3)
    assert pipeline(clip).frame.shape == (1, resolution, resolution, 3)
    assert parameter_hash(pipeline.processor) == before
