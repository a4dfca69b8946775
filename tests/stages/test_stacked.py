"""Stacks equal the runs alone, within rounding; one that breaks costs no other its result."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import AtariModel, NaturalData, frame_statistics, make_core
from rmr_gym.domains.dynamics import RandomWorld, recorded
from rmr_gym.runs.store import Artifact, Store
from rmr_gym.runs.sweep import jobs_of, run_tasks, traces_of
from rmr_gym.runs.training import DivergedError
from rmr_gym.stages import natural as natural_module
from rmr_gym.stages import natural as pretrain_module
from rmr_gym.stages import stacked
from rmr_gym.stages.export import dynamics_donor
from rmr_gym.stages.games import GameData
from rmr_gym.stages.natural import natural, natural_batch
from rmr_gym.stages.presets import ARMS, Natural, Pretraining
from rmr_gym.stages.stacked import (
    AbstractRun,
    NaturalRun,
    frame_names,
    natural_rows,
    pretrain_stack,
    stacking,
    train_natural_stack,
    train_together,
)

MODEL = AtariModel(dim=4, trunk="nature", height=40, width=40)
EPISODES, LENGTH = 3, 30


@pytest.fixture(scope="module")
def data():
    """A bright square that wanders over a fixed background."""
    rng = np.random.default_rng(0)
    frames = np.tile(rng.integers(0, 60, (40, 40), np.uint8), (EPISODES * (LENGTH + 1), 1, 1))
    for frame, (row, column) in zip(frames, rng.integers(0, 34, (len(frames), 2)), strict=True):
        frame[row : row + 6, column : column + 6] = 220
    frames[7] = frames[5]
    current = np.concatenate([np.arange(LENGTH) + n * (LENGTH + 1) for n in range(EPISODES)])
    pixels = torch.from_numpy(frames)
    return NaturalData(
        pixels,
        torch.from_numpy(rng.integers(0, 18, EPISODES * LENGTH)),
        current,
        np.repeat(np.arange(EPISODES), LENGTH),
        *frame_statistics(pixels),
    )


def donor(seed):
    weights = make_core(MODEL, "mpnn", seed).state_dict().items()
    return Artifact({}, {f"processor.{name}": value for name, value in weights})


def run(arm, seed, of=100):
    return NaturalRun(arm, seed, donor(of) if ARMS[arm].pretrained else None)


@pytest.fixture
def alone(data, monkeypatch):
    """Train one run by the stage itself."""
    monkeypatch.setattr(natural_module, "natural_data", lambda *_: data)

    def train(config, one):
        game = GameData("Pong", Path("nowhere"), 1, 1)
        return natural.function(game, MODEL, config, one.arm, one.seed, one.donor)

    return train


def together(config, data, runs):
    """Train a stack of which no run may break."""
    results = train_natural_stack(config, MODEL, data, runs)
    artifacts = [result for result in results if isinstance(result, Artifact)]
    assert len(artifacts) == len(runs)
    return artifacts


def broken(seed, value):
    weights = donor(100)
    weights.tensors["processor.core.update.bias"][0] = value
    return NaturalRun("rmr", seed, weights)


def assert_close(tensors, others, steps, mean):
    assert tensors.keys() == others.keys()
    for name, tensor in others.items():
        # Adam moves a weight whose gradient is all rounding by its whole rate: few may differ.
        difference = (tensors[name] - tensor).abs().double()
        assert difference.max() <= 2.1e-3 * steps, name
        assert difference.mean() <= mean, name


def assert_equal_within_rounding(one, other, steps):
    assert_close(one.tensors, other.tensors, steps, 2e-6 * steps)
    for point, expected in zip(one.record["curve"], other.record["curve"], strict=True):
        assert point == pytest.approx(expected, rel=2e-4, abs=1e-6)
    for key in ("arm", "health", "note"):
        assert one.record[key] == other.record[key]
    hashes = [artifact.record["processor_hash"] for artifact in (one, other)]
    assert hashes[0]["before"] == hashes[1]["before"]
    if hashes[1]["after"] == hashes[1]["before"]:
        assert hashes[0] == hashes[1]


class TestNaturalStacks:
    @pytest.mark.parametrize("objective", ["cswm", "infonce"])
    def test_a_stack_of_all_arms_equals_the_runs_one_by_one(self, data, alone, objective):
        config = Natural(objective=objective, checkpoints=(2, 3), batch=6)
        runs = [run(arm, seed) for seed, arm in enumerate(ARMS)]
        runs += [run("rmr", 0, 101), run("rmr", 1)]
        artifacts = together(config, data, runs)
        for one, artifact in zip(runs, artifacts, strict=True):
            assert artifact.record["stacked"]["runs"] == len(runs)
            assert_equal_within_rounding(artifact, alone(config, one), 3)
        with pytest.raises(AssertionError):  # another donor is no rounding
            assert_equal_within_rounding(artifacts[0], artifacts[5], 3)

    @pytest.mark.parametrize("objective", ["cswm", "infonce"])
    def test_rows_are_those_of_the_batches_of_the_runs_alone(self, data, objective):
        config, seeds = Natural(objective=objective, checkpoints=(1,), batch=6), [4, 2, 4]
        rows, transitions, partners = natural_rows(config, data, seeds)(7)
        for index, seed in enumerate(seeds):
            batch = natural_batch(config, data, seed, 7)
            assert torch.equal(data.frames[rows[index]], batch.frames)
            assert torch.equal(data.frames[rows[index] + 1], batch.following)
            assert torch.equal(data.action[transitions[index]], batch.action)
            assert torch.equal(partners[index], batch.permutation)

    def test_equal_frames_and_no_others_have_equal_names(self, data):
        names = frame_names(data.frames)
        assert (names[5] == names[7]).all()
        assert len(np.unique(names, axis=0)) == len(np.unique(data.frames.numpy(), axis=0))

    def test_a_run_that_is_no_number_ends_alone(self, data):
        config = Natural(checkpoints=(1, 3), batch=6)
        runs = [run("rmr", 0), run("cswm", 0), run("no_p", 0)]
        with_broken = [runs[0], broken(5, torch.nan), *runs[1:]]
        results = train_natural_stack(config, MODEL, data, with_broken)
        assert isinstance(results[1], DivergedError)
        assert "step 1" in str(results[1])
        left = [result for result in results if isinstance(result, Artifact)]
        for one, other in zip(left, together(config, data, runs), strict=True):
            assert one.record["curve"] == other.record["curve"]
            assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
        results = train_natural_stack(config, MODEL, data, [broken(5, torch.inf)] * 2)
        assert [type(result) for result in results] == [DivergedError, DivergedError]

    def test_a_collapsed_run_stops_at_its_checkpoint_and_no_other(self, data, alone, monkeypatch):
        config = Natural(checkpoints=(1, 2), batch=6)
        runs = [run("rmr", 0), run("rmr", 1), run("cswm", 2)]
        counted = []

        def count(encoder, data):
            counted.append(encoder)
            return 100 if len(counted) == 2 else 3

        monkeypatch.setattr(natural_module, "count_dead_slots", count)
        artifacts = together(config, data, runs)
        notes = [artifact.record["note"] for artifact in artifacts]
        (index,) = (number for number, note in enumerate(notes) if note)
        assert "collapsed" in notes[index]
        assert "step 1" in notes[index]
        assert [point["step"] for point in artifacts[index].record["curve"]] == [1]
        assert {name.split(".")[0] for name in artifacts[index].tensors} == {"1"}
        monkeypatch.setattr(natural_module, "count_dead_slots", lambda encoder, data: 3)
        other = (index + 1) % 3
        assert_equal_within_rounding(artifacts[other], alone(config, runs[other]), 2)

    def test_out_of_memory_halves_the_stack_and_says_so(self, data, monkeypatch, caplog):
        config = Natural(checkpoints=(2,), batch=6)
        runs, train = [run("rmr", seed) for seed in range(5)], stacked.train_stack
        whole = together(config, data, runs)

        def small(training, *args):
            if len(training.stack.runs) > 2:
                raise torch.cuda.OutOfMemoryError("fake: no room")
            return train(training, *args)

        monkeypatch.setattr(stacked, "train_stack", small)
        with caplog.at_level(logging.WARNING):
            artifacts = together(config, data, runs)
        assert "a stack of 5 runs" in caplog.text
        sizes = sorted(artifact.record["stacked"]["runs"] for artifact in artifacts)
        assert sizes == [1, 2, 2, 2, 2]
        for one, other in zip(artifacts, whole, strict=True):
            assert_equal_within_rounding(one, other, 2)

    def test_a_single_run_that_does_not_fit_can_be_mended(self, data, monkeypatch):
        def no_room(*args, **options):
            raise torch.cuda.OutOfMemoryError("fake: no room")

        monkeypatch.setattr(stacked, "train_stack", no_room)
        config = Natural(checkpoints=(1,), batch=6)
        with pytest.raises(RMRError, match="single run"):
            train_natural_stack(config, MODEL, data, [run("rmr", 0)] * 2)

    def test_settings_that_cannot_be_stacked_are_refused(self, data):
        config = Natural(objective="infonce_3step", checkpoints=(1,), batch=6)
        with pytest.raises(RMRError, match="one by one"):
            train_natural_stack(config, MODEL, data, [run("rmr", 0)])

    def test_bfloat16_convolutions_are_other_results(self, game, chain):
        half = game.with_preset(natural={"cnn": "bf16", "checkpoints": (2,)})
        whole = game.with_preset(natural={"checkpoints": (2,)})
        assert half.trained("cswm", 0) != whole.trained("cswm", 0)
        one, other = (chain.compute(each.trained("cswm", 0)) for each in (half, whole))
        assert "stacked" not in one.record
        assert one.record["curve"][0] == pytest.approx(other.record["curve"][0], rel=0.05)
        assert one.record["curve"] != other.record["curve"]


CONFIG = Pretraining(steps=3, batch=6, checkpoints=(2, 3), validation_rows=20)


class World:
    """A random world of so many scored bytes."""

    def __init__(self, number):
        rng = np.random.default_rng
        drawn = RandomWorld.draw(rng(number))
        self.parts = {
            part: recorded(drawn, rng(seed), 2 + number, 15)
            for seed, part in enumerate(("training", "validation"))
        }
        self.scored_bytes, self.number = np.arange(4 + number), number

    def key(self):
        return self.number

    def abstract(self, part):
        return self.parts[part]

    def run(self, seed):
        return AbstractRun(*self.parts.values(), self.scored_bytes, seed)


@pytest.fixture(scope="module")
def worlds():
    return World(0), World(1)


class TestAbstractStacks:
    @pytest.mark.parametrize("core", ["mpnn", "deep_sets", "mlp"])
    def test_a_stack_of_games_and_seeds_equals_the_runs_one_by_one(self, worlds, core):
        model = AtariModel(dim=4, core=core)
        runs = [(worlds[0], 0), (worlds[1], 0), (worlds[0], 1)]
        results = pretrain_stack(CONFIG, model, [world.run(seed) for world, seed in runs])
        for (world, seed), one in zip(runs, results, strict=True):
            assert isinstance(one, Artifact)
            other = pretrain_module.pretrain.function(world, model, CONFIG, seed)
            assert one.record["stacked"]["runs"] == 3
            pairs = zip(one.record["curve"], other.record["curve"], strict=True)
            assert all(point == pytest.approx(expected, rel=1e-5) for point, expected in pairs)
            for row, expected in zip(one.record["rows"], other.record["rows"], strict=True):
                assert row == pytest.approx(expected, abs=2e-3)
            assert one.record["copy"] == other.record["copy"]
            assert_close(one.tensors, other.tensors, CONFIG.steps, 1e-5)

    def test_a_run_that_is_no_number_ends_alone(self, worlds):
        runs = [world.run(0) for world in (worlds[0], worlds[0], worlds[0])]
        bits = np.full_like(runs[1].training.bits, np.nan, dtype=np.float32)
        runs[1] = runs[1]._replace(training=runs[1].training._replace(bits=bits))
        results = pretrain_stack(CONFIG, AtariModel(dim=4, core="none"), runs)
        assert [type(result) for result in results] == [Artifact, DivergedError, Artifact]

    def test_nothing_is_no_stack(self):
        with pytest.raises(RMRError, match="got none"):
            pretrain_stack(CONFIG, AtariModel(dim=4), [])


@pytest.fixture
def quick(game):
    """One checkpoint and one probe: what a sweep needs to be checked."""
    return game.with_preset(
        pretraining={"steps": 3, "checkpoints": (3,)},
        natural={"checkpoints": (2,)},
        probing={"probes": ("ridge",)},
    )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def planned(tasks, store, size):
    """Return the jobs that are stacks, and the others."""
    jobs = stacking(store, size)(jobs_of(tasks, store))
    assert len({job.key for job in jobs}) == len(jobs)
    return [job for job in jobs if len(job.tasks) > 1], [job for job in jobs if len(job.tasks) == 1]


class TestJobs:
    def test_jobs_of_one_recipient_share_stacks_of_at_most_so_many(self, quick, recorded, store):
        other = replace(
            quick, data=replace(quick.data, label="Breakout", path=recorded("Breakout"))
        )
        donor = dynamics_donor("random_dynamics", quick.preset)
        tasks = [
            game.trained(arm, seed, donor)
            for game in (quick, other)
            for seed in range(3)
            for arm in ("cswm", "rmr")
        ]
        stacks, others = planned(tasks, store, 4)
        assert [job._replace(after=()) for job in others] == [
            job._replace(after=()) for job in jobs_of(tasks, store)
        ]
        assert [len(job.tasks) for job in stacks] == [3, 3, 3, 3]
        for leader in stacks:
            assert len({task.arguments["data"] for task in leader.tasks}) == 1
            assert len({task.arguments["arm"] for task in leader.tasks}) == 1
            arm = leader.tasks[0].arguments["arm"]
            assert leader.after == ((donor.key,) if arm == "rmr" else ())
            mine = [job for job in others if leader.key in job.after]
            assert {job.tasks[0] for job in mine} == set(leader.tasks)
        for size in (1, None):
            assert planned(tasks, store, size) == ([], jobs_of(tasks, store))

    def test_a_stack_that_killed_its_process_twice_is_tried_no_more(self, quick, store):
        tasks = [quick.trained("cswm", seed) for seed in range(3)]
        ((leader,), _) = planned(tasks, store, 4)
        traces_of(store, leader).start()
        assert len(planned(tasks, store, 4)[0]) == 1
        traces_of(store, leader).start()
        assert planned(tasks, store, 4) == ([], jobs_of(tasks, store))

    def test_without_a_gpu_nothing_is_stacked_unless_asked_for(self, quick, store):
        on_gpu = replace(quick, device="cuda")
        assert planned([quick.trained("cswm", seed) for seed in range(50)], store, None)[0] == []
        stacks, _ = planned([on_gpu.trained("cswm", seed) for seed in range(50)], store, None)
        assert [len(job.tasks) for job in stacks] == [25, 25]

    def test_runs_of_one_width_objective_and_model_share_a_stack(self, quick, recorded, store):
        other = replace(
            quick, data=replace(quick.data, label="Breakout", path=recorded("Breakout"))
        )
        narrow = quick.with_preset(model={"dim": 2})
        several = quick.with_preset(natural={"objective": "infonce_3step"})
        variants = [quick, narrow, several]
        stacks, _ = planned(
            [game.trained("cswm", seed) for game in variants for seed in (0, 1)], store, 9
        )
        assert [len(job.tasks) for job in stacks] == [2, 2]
        tasks = [game.pretrained(seed) for game in (quick, other, narrow) for seed in (0, 1)]
        stacks, _ = planned([*tasks, dynamics_donor("random_dynamics", quick.preset)], store, 9)
        assert [len(job.tasks) for job in stacks] == [4, 2]
        for alone in ({"rollout": 2}, {"noise": 0.1}, {"warmup": 2}, {"end": 0.5}):
            game = quick.with_preset(pretraining=alone)
            assert planned([game.pretrained(seed) for seed in (0, 1)], store, 9)[0] == []

    def test_a_size_below_one_is_refused(self, store):
        with pytest.raises(RMRError, match="found 0"):
            stacking(store, 0)

    def test_stacked_sweeps_give_what_plain_ones_give(self, quick, chain, store):
        trained = [quick.trained(arm, 0) for arm in ("rmr", "cswm", "random_p")]
        tasks = [quick.probed(task) for task in trained] + [quick.pretrained(1)]
        outcomes = run_tasks(tasks, store, group=stacking(store, 4))
        assert not any(outcome.error or outcome.note for outcome in outcomes.values())
        for task in tasks[:3]:
            plain = chain.compute(task).record["rows"]
            for row, expected in zip(store.record(task)["rows"], plain, strict=True):
                for score in ("micro_f1", "macro_f1", "slot_accuracy"):
                    assert row[score] == pytest.approx(expected[score], abs=0.02)
        for task in trained:
            record = store.record(task)
            assert record["stacked"]["runs"] == 3
            assert record["seconds"] == pytest.approx(record["stacked"]["seconds"] / 3)
            assert "stacked" not in chain.record(task)
            assert_close(store.find(task).tensors, chain.find(task).tensors, 2, 4e-6)
        assert [store.record(quick.pretrained(seed))["stacked"]["runs"] for seed in (0, 1)] == [
            2,
            2,
        ]

    def test_what_is_in_the_store_is_not_trained_again(self, quick, store, monkeypatch):
        tasks = [quick.trained(arm, 0) for arm in ("cswm", "random_p", "no_p")]
        before = store.compute(tasks[0]).record
        asked, train = [], stacked.train_natural_stack

        def watched(config, model, data, runs, **options):
            asked.extend((run.arm, run.seed) for run in runs)
            return train(config, model, data, runs, **options)

        monkeypatch.setattr(stacked, "train_natural_stack", watched)
        for _ in range(2):
            assert train_together(store, tasks) is None
        assert asked == [("random_p", 0), ("no_p", 0)]
        assert store.record(tasks[0]) == before

    def test_a_stack_that_fails_leaves_the_training_to_the_jobs(self, quick, store, monkeypatch):
        def fail(*args, **options):
            raise RuntimeError("fake: the device is lost")

        monkeypatch.setattr(stacked, "train_natural_stack", fail)
        tasks = [quick.trained(arm, 0) for arm in ("cswm", "no_p")]
        outcomes = run_tasks(tasks, store, group=stacking(store, 8))
        (note,) = (outcome.note for outcome in outcomes.values() if outcome.note)
        assert "not trained as a stack, but one by one: fake: the device is lost" in note
        assert all("stacked" not in store.record(task) for task in tasks)

    def test_half_stacks_are_told_of(self, quick, store, monkeypatch):
        train = stacked.train_natural_stack

        def halved(*args, **options):
            artifacts = train(*args, **options)
            for artifact in artifacts:
                artifact.record["stacked"]["runs"] = 2
            return artifacts

        monkeypatch.setattr(stacked, "train_natural_stack", halved)
        tasks = [quick.trained(arm, 0) for arm in ("cswm", "no_p", "random_p")]
        note = train_together(store, tasks)
        assert note == "3 runs did not fit the device's memory: trained in stacks of 2"
