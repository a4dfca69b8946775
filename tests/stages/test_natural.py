"""The chain pretrain -> natural -> probe on one tiny game."""

import pickle
import shutil
from dataclasses import replace
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains import atari
from rmr_gym.models.rmr.pipeline import predicted_bits, ram_loss
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.runs.store import Room, Store
from rmr_gym.stages import natural as natural_module
from rmr_gym.stages.chain import ENCODERS, SUPERVISED, UNTRAINED
from rmr_gym.stages.games import natural_data, probe_sets
from rmr_gym.stages.natural import (
    OBJECTIVES,
    count_dead_slots,
    kept_encoder,
    kept_pipeline,
    kept_step,
    kept_steps,
    natural,
    natural_batch,
    pretrain,
    untrained,
)
from rmr_gym.stages.presets import ARMS, arm_processor


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def run(task, **changes):
    """Compute a task at once, without a store."""
    return task.stage.function(**(dict(task.arguments) | changes))


@pytest.fixture
def donor(game, chain):
    return chain.compute(game.pretrained())


def start_encoder(game, chain, seed=0):
    return kept_encoder(game.preset.model, chain.compute(game.trained(UNTRAINED, seed)), 0)


class TestPretraining:
    def test_it_learns_and_stands_beside_the_copy_baseline(self, game, donor):
        rows = donor.record["copy"] + donor.record["rows"]
        assert [(r["model"], r["step"]) for r in rows] == [("copy", 0), ("mpnn", 3), ("mpnn", 6)]
        assert all(0 <= row["bit_f1"] <= 1 for row in rows)
        losses = [point["loss"] for point in donor.record["curve"]]
        assert losses[-1] < losses[0]
        assert [row["loss"] for row in donor.record["rows"]] == [losses[2], losses[5]]
        fresh = arm_processor("cswm", game.preset.model, 0, None).state_dict()
        assert set(donor.part("processor")) == set(fresh)

    def test_seed_0_is_that_of_every_other_command(self, game):
        assert game.pretrained().key == game.pretrained(0).key != game.pretrained(1).key


class TestResume:
    @pytest.mark.parametrize("arm", ["pretrain", "rmr", SUPERVISED])
    def test_a_run_broken_off_anywhere_ends_with_the_same_bytes(self, game, chain, tmp_path, arm):
        task = game.pretrained() if arm == "pretrain" else game.trained(arm, 0)
        whole = chain.compute(task)
        given = {n: chain.compute(v) for n, v in task.arguments.items() if n == "donor" and v}
        last = {"pretrain": 6}.get(arm, 4)
        for stop in (1, last // 2, last):

            def broken(done, total, stop=stop):
                if done == stop:
                    raise KeyboardInterrupt

            room = Room(tmp_path / str(stop), broken)
            with pytest.raises(KeyboardInterrupt):
                run(task, **given, room=room)
            assert (room.load() is not None) == (stop > 1)
            resumed = run(task, **given, room=Room(room.folder))
            assert same(resumed.tensors, whole.tensors)
            assert resumed.record["curve"] == whole.record["curve"]

    def test_a_resumed_stage_goes_on_where_it_was(self, game, tmp_path):
        room, seen = Room(tmp_path / "s"), []
        run(game.pretrained(), room=room)
        run(game.pretrained(), room=Room(room.folder, lambda done, _: seen.append(done)))
        assert seen == []

    def test_another_store_gives_the_same_bytes_and_another_seed_does_not(
        self, game, chain, tmp_path
    ):
        other = Store(tmp_path / "other")
        tasks = [game.trained("rmr", 0), game.probed(game.trained("rmr", 0))]
        for task in tasks:
            one, two = chain.compute(task), other.compute(task)
            assert same(one.tensors, two.tensors)
            assert {**one.record, "seconds": 0} == {**two.record, "seconds": 0}
        different = chain.compute(game.trained("rmr", 1))
        assert not same(chain.compute(tasks[0]).tensors, different.tensors)


class TestArms:
    @pytest.mark.parametrize("arm", ARMS)
    def test_frozen_processors_do_not_move_and_others_do(self, game, chain, arm):
        artifact = chain.compute(game.trained(arm, 0))
        hashes = artifact.record["processor_hash"]
        assert (hashes["before"] != hashes["after"]) != ARMS[arm].frozen
        assert kept_steps(artifact) == [2, 4]
        early, late = (kept_pipeline(game.preset.model, artifact, step) for step in (2, 4))
        assert parameter_hash(late.processor) == hashes["after"]
        moved = parameter_hash(early.processor) != parameter_hash(late.processor)
        assert moved != ARMS[arm].frozen
        assert parameter_hash(early.encoder) != parameter_hash(late.encoder)

    def test_a_frozen_p_that_moves_is_a_bug_that_is_caught(self, game, chain, monkeypatch):
        monkeypatch.setattr("rmr_gym.stages.presets.freeze", lambda processor: None)
        with pytest.raises(RuntimeError, match="frozen P of arm 'random_p' changed"):
            run(game.trained("random_p", 0))

    def test_rmr_uses_the_pretrained_processor_and_a_given_donor(self, game, chain, donor):
        hashes = chain.compute(game.trained("rmr", 0)).record["processor_hash"]
        assert hashes["before"] == donor.record["processor_hash"]
        other = game.with_preset(pretraining={"learning_rate": 0.01}).pretrained()
        given = chain.compute(game.trained("rmr", 0, other))
        assert (
            given.record["processor_hash"]["before"]
            == (chain.compute(other).record["processor_hash"])
        )
        assert not same(given.tensors, chain.compute(game.trained("rmr", 0)).tensors)

    def test_own_donor_is_the_arm_of_a_comparison_and_arms_without_p_need_none(self, game):
        assert game.trained("rmr", 0, game.pretrained()) == game.trained("rmr", 0)
        assert game.trained("cswm", 0).needs == ()
        assert game.trained("rmr", 0).needs == (game.pretrained(),)

    def test_paired_arms_start_equal_and_see_the_same_batches(self, game, donor, monkeypatch):
        seen, starts = {}, {}

        def spied_batch(config, data, seed, step, ahead):
            batch = natural_batch(config, data, seed, step, ahead)
            seen.setdefault(arm, []).append(b"".join(part.numpy().tobytes() for part in batch))
            return batch

        def spied_train(config, pipeline, *args, **options):
            starts[arm] = [parameter_hash(pipeline.encoder), parameter_hash(pipeline.decoder)]
            return train(config, pipeline, *args, **options)

        train = natural_module.train_phase
        monkeypatch.setattr(natural_module, "natural_batch", spied_batch)
        monkeypatch.setattr(natural_module, "train_phase", spied_train)
        for arm in ARMS:
            run(game.trained(arm, 0), donor=donor)
        untrained_start = parameter_hash(kept_encoder(game.preset.model, run(
            untrained(game.data, game.preset.model, game.preset.natural, 0)), 0))  # fmt: skip
        assert {tuple(start) for start in starts.values()} == {tuple(starts["rmr"])}
        assert starts["rmr"][0] == untrained_start
        assert len({tuple(batches) for batches in seen.values()}) == 1
        assert len(set(seen["rmr"])) == game.preset.natural.steps

    def test_fresh_and_random_processors_start_equal(self, game):
        arms = ("cswm", "random_p")
        fresh, random = (arm_processor(arm, game.preset.model, 3, None) for arm in arms)
        assert parameter_hash(fresh) == parameter_hash(random)

    def test_arms_say_what_they_need(self, game, donor):
        with pytest.raises(RMRError, match="needs a pretrained processor"):
            arm_processor("rmr", game.preset.model, 0, None)
        with pytest.raises(RMRError, match="did you mean 'rmr'"):
            game.trained("rm", 0)
        wide = replace(game.preset.model, dim=8)
        with pytest.raises(RMRError, match="do not fit"):
            arm_processor("rmr", wide, 0, donor.part("processor"))

    @pytest.mark.parametrize("arm", ENCODERS)
    def test_every_encoder_is_kept_and_probed(self, game, chain, arm):
        artifact = chain.compute(game.trained(arm, 0))
        assert kept_steps(artifact) == ([0] if arm == UNTRAINED else [2, 4])
        rows = chain.compute(game.scored(arm, 0)).record["rows"]
        probes = game.preset.probing.probes
        assert [(row["step"], row["probe"]) for row in rows] == [
            (step, probe) for step in kept_steps(artifact) for probe in probes
        ]
        assert all(0 < row["micro_f1"] <= 1 for row in rows)

    def test_a_checkpoint_that_is_not_kept_is_said(self, game, chain):
        artifact = chain.compute(game.trained("cswm", 0))
        assert kept_step(artifact, None) == 4
        with pytest.raises(RMRError, match=r"expected one of the checkpoints \[2, 4\] as step"):
            kept_step(artifact, 3)
        for kept in (kept_encoder, kept_pipeline):
            with pytest.raises(RMRError, match=r"one of the checkpoints \[2, 4\] as step, got 3"):
                kept(game.preset.model, artifact, 3)

    def test_pixels_share_the_probe(self, game, chain):
        rows = chain.compute(game.scored("pca", 0)).record["rows"]
        assert [row["probe"] for row in rows] == list(game.preset.probing.probes)
        assert all(row["step"] == row["dead_slots"] == 0 for row in rows)
        assert game.scored("pca", 0) == game.scored("pca", 1)


class TestNatural:
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_it_never_reads_ram(self, game, tmp_path, objective):
        """Without the RAM column, training gives the same bytes; the probe cannot run."""
        blind = tmp_path / "blind"
        shutil.copytree(game.data.path, blind)
        for path in sorted(blind.glob("episodes/*.h5")):
            with h5py.File(path, "r+") as file:
                del file["ram"]
        without = replace(game, data=replace(game.data, path=blind))
        config = {"natural": {"objective": objective, "checkpoints": (2,)}}
        results = [
            run(each.with_preset(**config).trained("cswm", 0)).tensors for each in (game, without)
        ]
        assert same(*results)
        with pytest.raises(RMRError, match="ram"):
            _ = without.data.scored_bytes
        with pytest.raises(RMRError, match="ram"):
            without.data.abstract("training")

    def test_the_encoder_sees_frames_standardised_by_the_training_episodes(self, game, chain):
        encoder = start_encoder(game, chain)
        frames = natural_data(game.data, game.preset.model, game.preset.natural).frames
        torch.testing.assert_close(encoder.mean_frame, frames.float().mean(0))
        deviation = (frames.float() - frames.float().mean(0)).square().mean().sqrt()
        torch.testing.assert_close(encoder.deviation, deviation)

    def test_collapse_stops_the_run_and_is_said(self, game, chain, monkeypatch):
        data = natural_data(game.data, game.preset.model, game.preset.natural)
        blank = data._replace(frames=torch.zeros_like(data.frames))
        assert count_dead_slots(start_encoder(game, chain), blank) == atari.SLOTS
        monkeypatch.setattr(natural_module, "natural_data", lambda *_: blank)
        artifact = run(game.trained("cswm", 0))
        assert "slots were dead at step 2" in artifact.record["note"]
        assert artifact.record["health"] == [{"step": 2, "dead_slots": atari.SLOTS}]
        assert kept_steps(artifact) == [2]

    def test_fewer_episodes(self, game):
        def data(count):
            config = game.with_preset(natural={"episodes": count}).preset.natural
            return natural_data(game.data, game.preset.model, config)

        assert set(data(2).episode) == {0, 1}
        with pytest.raises(RMRError, match="there are 4 for training"):
            data(50)
        with pytest.raises(RMRError, match="at least 1 as episodes"):
            data(0)

    def test_several_steps_stay_within_an_episode(self, game):
        data = natural_data(game.data, game.preset.model, game.preset.natural)
        config = replace(game.preset.natural, objective="infonce_3step", batch=20)
        for step in range(1, 6):
            batches = [natural_batch(config, data, 0, step, ahead) for ahead in range(3)]
            for earlier, later in pairwise(batches):
                assert torch.equal(earlier.following, later.frames)
        pair = np.arange(len(data.episode)) // 2
        short = data._replace(episode=pair, current=data.current + pair)
        with pytest.raises(RMRError, match="needs episodes of so many"):
            natural_batch(replace(config, batch=2), short, 0, 1)


class TestData:
    def test_probe_rows_are_validation_rows_without_training_frames(self, game):
        probing = game.preset.probing
        sets = probe_sets(game.data, game.preset.model, probing)
        seen = {frame.numpy().tobytes() for frame in sets.training.frames}
        assert not any(frame.numpy().tobytes() in seen for frame in sets.test.frames)
        assert len(sets.test.frames) + sets.dropped == probing.test_rows
        assert sets.training.bits.shape[1:] == (len(game.data.scored_bytes), 8)

    def test_data_of_another_game_are_refused(self, game, recorded):
        with pytest.raises(RMRError, match=r"Pong.*Breakout|Breakout.*Pong"):
            replace(game.data, path=recorded("Breakout")).open()

    def test_too_few_episodes_are_counted(self, game):
        with pytest.raises(RMRError, match="42"):
            replace(game.data, train_episodes=40).open()

    def test_no_byte_above_the_threshold_is_said(self, game):
        with pytest.raises(RMRError, match="9"):
            _ = replace(game.data, entropy_threshold=9.0).scored_bytes

    def test_data_count_by_content_and_split(self, game, tmp_path):
        copied = shutil.copytree(game.data.path, tmp_path / "copied")
        assert replace(game.data, path=copied).key() == game.data.key()
        for changes in ({"train_episodes": 3}, {"entropy_threshold": 0.5}):
            assert replace(game.data, **changes).key() != game.data.key()

    def test_what_crosses_to_workers_is_pickled(self, game):
        for task in (game.probed(game.trained("rmr", 1)), game.scored("pca", 0)):
            assert pickle.loads(pickle.dumps(task)) == task
        assert pickle.loads(pickle.dumps(natural)) is natural
        assert pickle.loads(pickle.dumps(pretrain)) is pretrain


class TestPretrainingOnItsOwnPredictions:
    def bits_given(self, game, monkeypatch, **changes):
        """Return the loss's inputs of one step: (given bits, bits that follow) a predicted step."""
        met = []

        def noted(logits, bits, following):
            met.append((bits.clone(), following.clone(), predicted_bits(logits, bits)))
            return ram_loss(logits, bits, following)

        monkeypatch.setattr(natural_module.models, "ram_loss", noted)
        config = replace(game.preset.pretraining, steps=1, checkpoints=(1,), **changes)
        pretrain.function(game.data, game.preset.model, config, 0)
        return met

    def test_each_step_begins_with_what_the_one_before_predicted(self, game, monkeypatch):
        met = self.bits_given(game, monkeypatch, rollout=3)
        assert len(met) == 3
        for (_, _, predicted), (given, _, _) in pairwise(met):
            assert torch.equal(given, predicted.float())
        training = game.data.abstract("training")
        rows = {row.tobytes() for row in training.bits}
        assert all(row.numpy().astype(np.uint8).tobytes() in rows for row in met[2][1])

    def test_noise_flips_a_share_of_the_given_bits_and_none_that_follow(self, game, monkeypatch):
        (clean, following, _), (noisy, same, _) = (
            self.bits_given(game, monkeypatch, noise=noise)[0] for noise in (0.0, 0.2)
        )
        assert torch.equal(following, same)
        flipped = (clean != noisy).float().mean((1, 2))
        assert 0 < flipped.mean() < 0.2
        assert flipped.min() < flipped.max()

    def test_out_of_range_is_refused(self, game):
        for wrong in ({"rollout": 0}, {"noise": 0.5}, {"noise": -0.1}):
            with pytest.raises(RMRError, match=r"rollout=0|noise in \[0, 0.5\) in Pretraining"):
                replace(game.preset.pretraining, **wrong)
        for wrong, interval in (({"warmup": -1}, "0, inf"), ({"end": 1.5}, "0, 1")):
            with pytest.raises(RMRError, match=rf"in \[{interval}[)\]] in Pretraining, got"):
                replace(game.preset.pretraining, **wrong)


def test_the_rate_of_pretraining_rises_and_falls_as_it_is_told(game):
    def moved(**rates):
        config = replace(game.preset.pretraining, steps=2, checkpoints=(2,), **rates)
        trained = pretrain.function(game.data, game.preset.model, config, 0).tensors
        start = atari.abstract_pipeline(game.preset.model, 0).state_dict()
        return max((trained[name] - start[name]).abs().max().item() for name in start)

    assert moved(warmup=2000) == pytest.approx(moved() * 3 / 2 / 2000, rel=0.02)
    assert moved(end=0.0) == pytest.approx(moved() / 4, rel=0.02)
