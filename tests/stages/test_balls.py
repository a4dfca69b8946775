from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Episode, Manifest, observation_columns, step_columns
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.domains import balls as domain
from rmr_gym.domains.balls import BallsModel, PixelModel
from rmr_gym.models.objects import ClipEncoder
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.runs.store import Artifact, Room, Store, write_artifact
from rmr_gym.runs.training import Phase
from rmr_gym.stages import balls
from rmr_gym.stages.balls import (
    BALLS_PRESETS,
    BallsFolder,
    BallsPreset,
    BallsWorld,
    Evaluation,
    Prediction,
    RecordedBalls,
    WarmStart,
)

STEPS, BALLS = 20, 3
SIZES = BallsModel(dim=16)
TINY = BallsPreset(
    preset="tiny",
    model=BallsModel(dim=16, predict="acceleration"),
    phases=(Phase(40, batch=16), Phase(8, 1e-4, batch=16, unroll=2)),
    pixels=PixelModel(SIZES, slot_dim=8, channels=4, decoder_channels=4, grid=4),
    warm_start=WarmStart((Phase(3, batch=4), Phase(1, batch=2)), handed_on=1),
    prediction=Prediction((Phase(2, batch=4), Phase(2, 2e-4, batch=4))),
    evaluation=Evaluation(windows=40, horizon=12, frames=12),
    validation_share=0.25,
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls"
    options = {"balls": BALLS, "resolution": 16, "max_episode_steps": STEPS}
    record("rmr/BouncingBalls-v0", path, episodes=8, **options)
    return path


@pytest.fixture(scope="module")
def world(recorded, forget_loaded):
    yield BallsWorld(RecordedBalls("BouncingBalls", recorded, TINY.validation_share), TINY)
    forget_loaded()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """What one test trained, others find."""
    return Store(tmp_path_factory.mktemp("store"))


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def without_p(artifact):
    return {k: v for k, v in artifact.tensors.items() if not k.startswith("processor.")}


def with_preset(world, **changes):
    return replace(world, preset=replace(world.preset, **changes))


def test_pretraining_learns_over_its_phases(world, tmp_path):
    steps = []
    task = world.pretrained()
    artifact = Store(tmp_path).compute(task, lambda *progress: steps.append(progress))
    assert steps == [(step, 48) for step in range(1, 49)]
    assert [row["step"] for row in artifact.record["rows"]] == [40, 48]
    losses = [point["loss"] for point in artifact.record["curve"]]
    assert np.mean(losses[30:40]) < np.mean(losses[:10])
    assert artifact.record["model"]["predict"] == "acceleration"
    assert artifact.record["kind"] == balls.KIND
    processor = domain.make_balls_processor(TINY.model, 0, BALLS)
    assert set(artifact.part("processor")) == set(processor.state_dict())


@pytest.mark.parametrize("stop", [20, 44])
def test_a_killed_pretraining_ends_with_the_same_bytes(world, store, tmp_path, monkeypatch, stop):
    monkeypatch.setattr("rmr_gym.runs.training.SAVE_EVERY_SECONDS", 0.0)
    task, killed = world.pretrained(3), Store(tmp_path)
    whole = store.compute(task)

    def interrupt(done, total):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed.compute(task, interrupt)
    steps = []
    resumed = killed.compute(task, lambda done, total: steps.append(done))
    assert steps[0] == stop + 1
    assert same(whole.tensors, resumed.tensors)
    assert whole.record["curve"] == resumed.record["curve"]
    assert not same(whole.tensors, store.compute(world.pretrained(4)).tensors)


def test_validation_episodes_are_never_trained_on(world):
    episodes = world.data.open()
    assert not set(episodes.training) & set(episodes.validation)
    assert (len(episodes.training), len(episodes.validation)) == (6, 2)


def test_baselines_and_simulator_stand_beside_the_model(world, store):
    rows = {
        row["model"]: row
        for pipeline in (None, world.pretrained())
        for row in store.compute(world.rolled_out(pipeline)).record["rows"]
    }
    assert list(rows) == ["simulator", "copy", "linear", "reflected", "mpnn"]
    assert rows["simulator"]["mse_10"] == rows["simulator"]["outside"] == 0
    assert 0 < rows["reflected"]["mse_1"] <= rows["linear"]["mse_1"] < rows["copy"]["mse_1"]
    assert rows["linear"]["outside"] > 0 == rows["reflected"]["outside"]
    assert rows["copy"]["energy"] == -1
    mine = rows["mpnn"]
    assert 0 < mine["mse_1"] < rows["copy"]["mse_1"]
    assert mine["ratio_10"] == mine["mse_10"] / rows["reflected"]["mse_10"]
    assert (mine["predict"], mine["dim"], mine["step"]) == ("acceleration", 16, 48)
    other = store.compute(world.rolled_out(world.pretrained(3))).record["rows"][0]
    assert other["mse_1"] != mine["mse_1"]


def test_validation_error_of_the_record_is_the_one_step_error(world, store):
    artifact = store.compute(world.pretrained())
    data = world.data.positions("validation", 2)
    window = domain.windows(data, np.arange(len(data.current)))
    with torch.no_grad():
        predicted = domain.next_positions(balls.kept_positions(artifact), window[:, :3])
    expected = (predicted - window[:, 3]).square().mean().item()
    assert artifact.record["rows"][-1]["validation_mse"] == pytest.approx(expected, rel=1e-4)


def test_a_folder_counts_by_its_weights_and_must_hold_a_p_of_balls(world, store, tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 3)):
        write_artifact(tmp_path / name, store.compute(world.pretrained(seed)))
    first, again, other = (BallsFolder(tmp_path / name) for name in ("first", "again", "other"))
    assert first.key() == again.key() != other.key()
    own, given = world.pretrained(), balls.given_balls(first)
    rows = [store.compute(world.rolled_out(task)).record["rows"] for task in (own, given)]
    assert rows[0] == rows[1]
    write_artifact(tmp_path / "encoder", Artifact({"kind": "encoder"}))
    with pytest.raises(RMRError, match="holds no balls processor"):
        BallsFolder(tmp_path / "encoder").key()


def test_walls_of_one_radius_or_one_a_ball(world):
    def walls(*radii):
        return replace(world.data, radii=radii).walls.flatten().tolist()

    assert walls(0.2) == pytest.approx([0.8] * 3)
    assert walls(0.1, 0.2, 0.3) == pytest.approx([0.9, 0.8, 0.7])
    with pytest.raises(RMRError, match="one radius or 3"):
        walls(0.1, 0.2)


def test_data_without_balls_and_too_few_episodes_are_refused(tmp_path, forget_loaded):
    space = gym.spaces.Box(0, 1, (4,))
    manifest = Manifest(observation_columns(space), step_columns(gym.spaces.Discrete(2)))
    zeros, flags = np.zeros((3, 4), np.float32), np.zeros(2, bool)
    steps = (np.zeros(2, np.int64), np.zeros(2, np.float32), flags, flags)
    with DatasetWriter(tmp_path / "other", manifest) as writer:
        writer.write(Episode(0, 0, "any", {"observation": zeros}, *steps))
    world = BallsWorld(RecordedBalls("any", tmp_path / "other"), TINY)
    with pytest.raises(RMRError, match="2 episodes or more"):
        world.data.key()
    forget_loaded()
    with DatasetWriter(tmp_path / "other", manifest) as writer:
        writer.write(Episode(1, 0, "any", {"observation": zeros}, *steps))
    with pytest.raises(RMRError, match="positions of balls"):
        Store(tmp_path / "store").compute(world.pretrained())


@pytest.mark.parametrize("settings", [{"windows": 0}, {"horizon": 9}, {"frames": 0}], ids=str)
def test_impossible_evaluations_are_refused(settings):
    with pytest.raises(RMRError, match=r"1 or more|horizon in \[10, inf\)"):
        Evaluation(**settings)


def test_training_on_frames_reads_pixels_alone(world, tmp_path, monkeypatch, forget_loaded):
    asked = []
    load = TransitionDataset.load

    def spied(self, columns, **options):
        asked.append(tuple(columns))
        return load(self, columns=columns, **options)

    forget_loaded()
    monkeypatch.setattr(TransitionDataset, "load", spied)
    Store(tmp_path).compute(world.trained("cswm", 0))
    assert set(asked) == {("pixels",)}


def test_a_frozen_p_stays_what_it_was_and_the_others_start_alike(world, store):
    given = store.compute(world.pretrained(model=SIZES)).part("processor")
    parts = {
        arm: store.compute(world.trained(arm, 0)).part("processor")
        for arm in ("rmr", "cswm", "random_p", "shuffled_p")
    }
    fresh = balls.arm_processor("cswm", SIZES, BALLS, 0, None).state_dict()
    assert same(parts["rmr"], given)
    assert same(parts["random_p"], fresh)
    assert not same(parts["cswm"], fresh)
    assert not same(parts["shuffled_p"], given)
    for name, values in parts["shuffled_p"].items():
        assert torch.equal(values.flatten().sort().values, given[name].flatten().sort().values)


def test_arms_of_a_seed_share_warm_start_and_batches(world, tmp_path, monkeypatch):
    drawn, arm = {}, None
    draw = balls.batch_indices

    def spied(data, batch, seed, stream, step):
        index = draw(data, batch, seed, stream, step)
        drawn.setdefault((arm, stream), []).append(index.tolist())
        return index

    monkeypatch.setattr(balls, "batch_indices", spied)
    store = Store(tmp_path)
    for arm in ("cswm", "random_p"):
        store.compute(world.trained(arm, 0))
    assert len(drawn["cswm", "still"]) == 4
    assert ("random_p", "still") not in drawn, "the warm start is computed once"
    batches = drawn["cswm", "pixels"]
    assert batches == drawn["random_p", "pixels"]
    assert len({str(batch) for batch in batches}) == 4, "phases do not repeat batches"
    warm = store.compute(world.started(0))
    untouched = with_preset(world, prediction=Prediction(()))
    assert same(without_p(store.compute(untouched.trained("random_p", 0))), warm.tensors)


def test_a_killed_arm_ends_with_the_same_bytes(world, store, tmp_path, monkeypatch):
    task, killed, steps = world.trained("cswm", 0), Store(tmp_path), []

    def stop(done, total):
        steps.append(done)
        if len(steps) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr("rmr_gym.runs.training.SAVE_EVERY_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        killed.compute(task, stop)
    assert steps == [1, 2, 3, 4, 1, 2, 3], "the warm start, and into the second phase of the arm"
    resumed, whole = killed.compute(task), store.compute(task)
    assert same(whole.tensors, resumed.tensors)
    assert [point["step"] for point in resumed.record["curve"]] == [1, 2, 3, 4]
    assert not same(without_p(whole), without_p(store.compute(world.trained("cswm", 1))))


def test_the_slot_encoder_is_held_until_the_rest_has_found_its_way(world, store):
    warm = store.compute(world.started(0)).part("encoder.encoder")
    for phases, held in ((TINY.prediction.phases[:1], True), (TINY.prediction.phases, False)):
        ended = with_preset(world, prediction=Prediction(phases))
        after = store.compute(ended.trained("rmr", 0)).part("encoder.encoder")
        assert same(after, warm) == held


def test_clips_end_the_warm_start(world, monkeypatch):
    clips = []
    still = ClipEncoder.still

    def spied(self, clip):
        clips.append(clip.shape[:2])
        return still(self, clip)

    monkeypatch.setattr(ClipEncoder, "still", spied)
    balls.warm_start.function(world.data, TINY.pixels, TINY.warm_start, 0)
    assert clips[:4] == [(4, 1)] * 3 + [(2, 3)]
    assert all(instants == 3 for _, instants in clips[4:]), "these tell whether slots are bound"


def test_a_warm_start_starts_anew_until_slots_are_bound(world, monkeypatch, tmp_path):
    errors, made = iter([0.5, 0.3, 0.4, 0.05, 0.4, 0.2, 0.3]), []
    whole = balls._train_frames

    def spied(pipeline, data, phases, facts, loss_at, room, **rest):
        made.append((facts["seed"], room.folder))
        return whole(pipeline, data, phases, facts, loss_at, room, **rest)

    monkeypatch.setattr(balls, "_train_frames", spied)
    monkeypatch.setattr(domain, "alone_error", lambda *_: next(errors))
    often = replace(TINY.warm_start, attempts=4)
    given = (world.data, TINY.pixels, often, 1)
    bound = balls.warm_start.function(*given, room=Room(tmp_path)).record
    assert (bound["attempts"], bound["alone"], bound["seed"]) == (4, 0.05, 1)
    assert made[0] == (1, tmp_path / "0")
    assert len({seed for seed, _ in made}) == len({folder for _, folder in made}) == 4
    shorter = replace(often, attempts=3)
    best = balls.warm_start.function(*given[:2], shorter, 1).record
    assert (best["attempts"], best["alone"]) == (3, 0.2)


def test_a_killed_second_attempt_ends_with_the_same_bytes(world, store, tmp_path, monkeypatch):
    monkeypatch.setattr(balls, "BOUND", 0.0)
    twice = replace(TINY.warm_start, attempts=2)
    task, killed, steps = with_preset(world, warm_start=twice).started(0), Store(tmp_path), []

    def stop(done, total):
        steps.append(done)
        if len(steps) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr("rmr_gym.runs.training.SAVE_EVERY_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        killed.compute(task, stop)
    steps.clear()
    resumed = killed.compute(task, lambda done, _: steps.append(done))
    assert len(steps) < 4, "the first attempt is not trained again"
    whole = store.compute(task)
    assert same(whole.tensors, resumed.tensors)
    for name in ("alone", "attempts", "seed"):
        assert whole.record[name] == resumed.record[name]


def test_slots_learn_not_to_share_the_pixels_of_clips(world):
    sharing = {}
    for clips in (0, 1):
        config = WarmStart((Phase(80, 1e-2, batch=4),), handed_on=clips)
        artifact = balls.warm_start.function(world.data, TINY.pixels, config, 0)
        pipeline = balls.kept_frames(world.data, TINY.pixels, artifact)
        clip = domain.windows(world.data.frames("training"), np.arange(8))[:, :3]
        decoded = domain.still(pipeline, clip)
        errors = (decoded.pictures - decoded.frame[:, None]).square().mean(dim=-1)
        sharing[clips] = (decoded.masks * errors).sum(dim=1).mean().item()
    assert sharing[1] < sharing[0] / 2


def test_an_aligned_start_hands_the_abstract_pipeline_over_and_then_trains(world, store):
    abstract = store.compute(world.pretrained(model=SIZES))
    untouched = with_preset(world, prediction=Prediction(()))
    start = store.compute(untouched.trained("random_p_aligned", 0)).tensors
    assert torch.equal(start["decoder.position.weight"], abstract.tensors["decoder.weight"])
    for arm in ("rmr_aligned", "tuned_p_aligned"):
        trained = store.compute(world.trained(arm, 0))
        moved = trained.tensors["decoder.position.weight"]
        assert not torch.equal(moved, abstract.tensors["decoder.weight"])
        frozen = same(trained.part("processor"), abstract.part("processor"))
        assert frozen == (arm == "rmr_aligned")
    with pytest.raises(RMRError, match=r"--model\.predict position"):
        store.compute(world.trained("rmr_aligned", 0, world.pretrained()))


def test_scores_stand_beside_those_of_copying_and_hold_a_rollout(world, store):
    tasks = (world.started(0), world.trained("cswm", 0))
    warm, mine = (store.compute(world.scored(task)).record["rows"][0] for task in tasks)
    assert (warm["arm"], warm["step"]) == ("warm_start", 4)
    assert (mine["arm"], mine["step"]) == ("cswm", 4)
    assert warm["copy_mse"] == mine["copy_mse"]
    assert "rollout_mse" not in warm
    assert (warm["attempts"], warm["alone"] > 0, mine["attempts"]) == (1, True, "")
    assert mine["rollout_mse"] > 0 < mine["rollout_copy_mse"]
    for row in (warm, mine):
        assert -1 <= row["ari"] <= 1
        assert row["ratio_to_copy"] == pytest.approx(row["mse"] / row["copy_mse"])


def test_rollouts_stay_within_an_episode(world, store):
    trained = store.compute(world.trained("cswm", 0))
    drawn = balls.imagined(world.data, TINY.pixels, trained, 2, 4)
    assert drawn.past.shape == (2, 3, 16, 16, 3)
    assert drawn.predicted.shape == drawn.truth.shape == (2, 4, 16, 16, 3)
    assert drawn.masks.shape == (2, 4, BALLS + 1, 16, 16)
    frames = world.data.frames("validation").seen.numpy() / np.float32(255)
    (start,) = (
        row for row in range(len(frames)) if np.array_equal(frames[row : row + 3], drawn.past[0])
    )
    assert start % (STEPS + 1) + 7 <= STEPS + 1
    with pytest.raises(RMRError, match="an episode of 23 frames"):
        balls.imagined(world.data, TINY.pixels, trained, 2, 20)


def test_unknown_names_and_missing_p_are_refused(world):
    with pytest.raises(RMRError, match="did you mean 'random_p'"):
        world.trained("randomp", 0)
    with pytest.raises(RMRError, match="pretrained processor"):
        balls.arm_processor("rmr", SIZES, BALLS, 0, None)
    with pytest.raises(RMRError, match="did you mean 'laptop'"):
        BallsPreset.proposals("latop")


@pytest.mark.parametrize("name", BALLS_PRESETS)
def test_every_preset_makes_a_pipeline(name):
    model, resolution = BALLS_PRESETS[name].pixels, 64 if name == "paper" else 32
    processor = balls.arm_processor("random_p", model.processor, 3, 0, None)
    before = parameter_hash(processor)
    pipeline = domain.pixel_pipeline(model, processor, 0, resolution=resolution, balls=3)
    clip = torch.rand(1, 3, resolution, resolution, 3)
    assert pipeline(clip).frame.shape == (1, resolution, resolution, 3)
    assert parameter_hash(pipeline.processor) == before
