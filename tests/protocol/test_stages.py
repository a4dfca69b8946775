import shutil
from dataclasses import replace
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains import atari
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.protocol import stages
from rmr_gym.protocol.arms import ARMS, arm_processor
from rmr_gym.protocol.natural import OBJECTIVES, natural_batch, train_natural
from rmr_gym.protocol.pipelines import kept_pipeline, trained_pipelines
from rmr_gym.protocol.stages import GameTask


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (stages.open_episodes, stages.natural_data, stages.probe_sets):
        cached.cache_clear()


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def other_store(task, tmp_path, name="other", **changes):
    preset = replace(task.preset, **changes)
    return replace(task, store=tmp_path / name, preset=preset)


def test_pretraining_learns_and_beats_nothing_by_magic(task, tmp_path):
    artifact = stages.pretrained(task)
    rows = artifact.record["rows"]
    assert [(row["model"], row["step"]) for row in rows] == [("copy", 0), ("mpnn", 3), ("mpnn", 6)]
    assert all(0 <= row["bit_f1"] <= 1 for row in rows)
    losses = [point["loss"] for point in artifact.record["curve"]]
    assert losses[-1] < losses[0]
    assert set(artifact.part("processor")) == set(
        arm_processor("cswm", task.preset.model, 0, None).state_dict()
    )


def test_same_seed_twice_gives_the_same_bytes(task, tmp_path):
    again = other_store(task, tmp_path)
    assert same(stages.pretrained(task).tensors, stages.pretrained(again).tensors)
    first = stages.trained_encoders(task, "rmr", 0)
    second = stages.trained_encoders(again, "rmr", 0)
    assert same(first.tensors, second.tensors)
    encoders = [
        stages.kept_encoder(which, 0, artifact, 4)
        for which, artifact in ((task, first), (again, second))
    ]
    rows = [
        stages.probed(which, encoder).record["rows"]
        for which, encoder in zip((task, again), encoders, strict=True)
    ]
    assert rows[0] == rows[1]
    different = stages.trained_encoders(task, "rmr", 1)
    assert not same(first.tensors, different.tensors)


def test_finished_stages_are_found_again(task, monkeypatch):
    first = stages.trained_encoders(task, "cswm", 0)

    def fail(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(stages, "train_natural", fail)
    assert same(stages.trained_encoders(task, "cswm", 0).tensors, first.tensors)


@pytest.mark.parametrize("arm", ARMS)
def test_frozen_processors_do_not_move_and_others_do(task, arm):
    record = stages.trained_encoders(task, arm, 0).record
    moved = record["processor_hash"]["before"] != record["processor_hash"]["after"]
    assert moved != ARMS[arm].frozen


def test_rmr_uses_the_pretrained_processor_and_a_given_donor(task):
    own = stages.pretrained(task)
    processor = arm_processor("rmr", task.preset.model, 0, own.part("processor"))
    assert parameter_hash(processor) == own.record["processor_hash"]
    other = replace(
        task,
        preset=replace(
            task.preset, pretraining=replace(task.preset.pretraining, learning_rate=0.01)
        ),
    )
    donor = stages.pretrained(other)
    assert not same(
        stages.trained_encoders(task, "rmr", 0, donor).tensors,
        stages.trained_encoders(task, "rmr", 0).tensors,
    )


def test_paired_arms_start_from_the_same_encoder_and_see_the_same_batches(task, monkeypatch):
    seen = {}
    starts = {}
    data = stages.natural_data(task)

    def spy(config, data, seed, step, ahead):
        batch = natural_batch(config, data, seed, step, ahead)
        seen.setdefault(current, []).append(b"".join(part.numpy().tobytes() for part in batch))
        return batch

    monkeypatch.setattr("rmr_gym.protocol.natural.natural_batch", spy)
    for current in ("rmr", "cswm", "random_p", "shuffled_p", "no_p"):
        train_natural(
            task.preset.natural,
            task.preset.model,
            data,
            current,
            pretrained=stages.pretrained(task).part("processor"),
        )
        starts[current] = parameter_hash(stages.untrained_encoder(task, 0))
    assert len(set(starts.values())) == 1
    assert len({tuple(batches) for batches in seen.values()}) == 1
    assert len(set(seen["rmr"])) == task.preset.natural.steps


def test_fresh_and_random_processors_start_equal(task):
    model = task.preset.model
    fresh, random = (arm_processor(arm, model, 3, None) for arm in ("cswm", "random_p"))
    assert parameter_hash(fresh) == parameter_hash(random)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_natural_training_never_reads_ram(task, tmp_path, objective):
    """Without the RAM column, training gives the same bytes; the probe cannot run."""
    blind = tmp_path / "blind"
    shutil.copytree(task.data, blind)
    for path in sorted(blind.glob("episodes/*.h5")):
        with h5py.File(path, "r+") as file:
            del file["ram"]
    preset = task.preset.with_objective(objective)
    dataset = stages.open_episodes(task).dataset
    blind_set = type(dataset)(blind)
    results = []
    latents = None
    if OBJECTIVES[objective].aligned:
        latents = stages.start_latents(task, stages.pretrained(task))
    for source in (dataset, blind_set):
        data = atari.load_natural(source, [0, 1, 2, 3], preset.model)
        trained = train_natural(preset.natural, preset.model, data, "cswm", latents=latents)
        results.append(trained.tensors)
    assert same(*results)
    with pytest.raises(RMRError, match="ram"):
        atari.target_slots(blind_set, [0], 0.6)


def test_encoder_sees_frames_standardised_by_the_training_episodes(task):
    encoder = stages.untrained_encoder(task, 0)
    frames = stages.natural_data(task).frames
    torch.testing.assert_close(encoder.mean_frame, frames.float().mean(0))
    deviation = (frames.float() - frames.float().mean(0)).square().mean().sqrt()
    torch.testing.assert_close(encoder.deviation, deviation)


def test_probe_rows_are_validation_rows_without_training_frames(task):
    sets = stages.probe_sets(task)
    seen = {frame.numpy().tobytes() for frame in sets.training.frames}
    assert not any(frame.numpy().tobytes() in seen for frame in sets.test.frames)
    assert len(sets.test.frames) + sets.dropped == task.preset.probing.test_rows
    assert sets.training.bits.shape[1:] == (len(stages.open_episodes(task).slots), 8)


def test_supervised_and_pixels_share_the_probe(task):
    supervised = stages.trained_encoders(task, "supervised", 0)
    assert stages.kept_steps(supervised) == [2, 4]
    rows = stages.probed_pixels(task).record["rows"]
    assert [row["probe"] for row in rows] == list(task.preset.probing.probes)
    assert all(0 < row["micro_f1"] <= 1 for row in rows)


def test_data_of_another_game_are_refused(task, recorded):
    wrong = replace(task, data=recorded("Breakout"))
    with pytest.raises(RMRError, match=r"Pong.*Breakout|Breakout.*Pong"):
        stages.open_episodes(wrong)


def test_too_few_episodes_are_counted(task, tmp_path):
    greedy = other_store(
        task, tmp_path, recording=replace(task.preset.recording, train_episodes=40)
    )
    with pytest.raises(RMRError, match="42"):
        stages.open_episodes(greedy)


def test_no_slot_above_the_threshold_is_said(task, tmp_path):
    strict = other_store(
        task, tmp_path, probing=replace(task.preset.probing, entropy_threshold=9.0)
    )
    with pytest.raises(RMRError, match="9"):
        stages.open_episodes(strict)


def test_arms_say_what_they_need(task):
    with pytest.raises(RMRError, match="needs a pretrained processor"):
        arm_processor("rmr", task.preset.model, 0, None)
    with pytest.raises(RMRError, match="did you mean 'rmr'"):
        stages.trained_encoders(task, "rm", 0)


def test_donor_of_other_size_is_refused(task):
    donor = stages.pretrained(task)
    wide = replace(task.preset.model, dim=8)
    with pytest.raises(RMRError, match="do not fit"):
        arm_processor("rmr", wide, 0, donor.part("processor"))


def test_collapse_stops_the_run_and_is_said(task):
    from rmr_gym.protocol.natural import collapse_message, count_dead_slots

    data = stages.natural_data(task)
    blank = data._replace(frames=torch.zeros_like(data.frames))
    assert count_dead_slots(stages.untrained_encoder(task, 0), blank) == atari.SLOTS
    artifact = train_natural(task.preset.natural, task.preset.model, blank, "cswm")
    assert artifact.record["collapsed_at"] == 2
    assert "collapsed" in collapse_message(artifact.record)
    assert stages.kept_steps(artifact) == [2]


def test_game_task_is_picklable_for_workers(task):
    import pickle

    assert pickle.loads(pickle.dumps(task)) == task
    assert isinstance(task, GameTask)
    assert isinstance(np.asarray(stages.open_episodes(task).slots), np.ndarray)


def with_natural(task, **changes):
    natural = replace(task.preset.natural, **changes)
    return replace(task, preset=replace(task.preset, natural=natural))


@pytest.mark.parametrize("arm", ["rmr", "no_p"])
def test_an_aligned_run_is_kept_rebuilt_and_probed(task, arm):
    aligned = with_natural(task, objective="infonce_aligned")
    artifact = stages.trained_encoders(aligned, arm, 0)
    assert artifact.record["collapsed_at"] is None
    encoder = stages.kept_encoder(aligned, 0, artifact, stages.kept_steps(artifact)[-1])
    assert stages.probed(aligned, encoder).record["rows"][0]["dead_slots"] == 0
    whole = trained_pipelines(aligned, arm, 0)
    pipeline = kept_pipeline(aligned, arm, 0, whole, stages.kept_steps(whole)[-1])
    assert parameter_hash(pipeline.encoder) == parameter_hash(encoder)


def test_an_aligned_run_without_latents_says_what_it_needs(task):
    data, config = stages.natural_data(task), replace(task.preset.natural, objective="cswm_aligned")
    with pytest.raises(RMRError, match="pretrain the game first"):
        train_natural(config, task.preset.model, data, "cswm")


def test_fewer_natural_episodes(task):
    few = with_natural(task, episodes=2)
    assert set(stages.natural_data(few).episode) == {0, 1}
    with pytest.raises(RMRError, match="there are 4 for training"):
        stages.natural_data(with_natural(task, episodes=50))
    with pytest.raises(RMRError, match="1 episode or more"):
        with_natural(task, episodes=0)


def test_several_steps_stay_within_an_episode(task):
    data = stages.natural_data(task)
    config = replace(task.preset.natural, objective="infonce_3step", batch=20)
    for step in range(1, 6):
        batches = [natural_batch(config, data, 0, step, ahead) for ahead in range(3)]
        for earlier, later in pairwise(batches):
            assert torch.equal(earlier.following, later.frames)
    short = data._replace(episode=np.arange(len(data.episode)) // 2)
    with pytest.raises(RMRError, match="needs episodes of so many"):
        natural_batch(replace(config, batch=2), short, 0, 1)
