import logging

import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.core.palette import PALETTE_GRAY
from rmr_gym.domains.atari import AtariModel, NaturalData, frame_statistics, make_core
from rmr_gym.protocol import natural, stacked, stacked_training
from rmr_gym.protocol.arms import ARMS
from rmr_gym.protocol.config import Natural
from rmr_gym.protocol.feeding import Feed, Frames, frame_names
from rmr_gym.protocol.natural import natural_batch, train_natural
from rmr_gym.protocol.stacked import NaturalRun, train_natural_stack
from rmr_gym.protocol.store import Artifact
from rmr_gym.protocol.training import DivergedError

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
    return make_core(MODEL, "mpnn", seed).state_dict()


def run(arm, seed, of=100):
    return NaturalRun(arm, seed, donor(of) if ARMS[arm].pretrained else None)


def alone(config, data, each, model=MODEL):
    return train_natural(config, model, data, each.arm, pretrained=each.pretrained, seed=each.seed)


def together(config, data, runs):
    """Train a stack of which no run may break."""
    found = train_natural_stack(config, MODEL, data, runs)
    artifacts = [each for each in found if isinstance(each, Artifact)]
    assert len(artifacts) == len(runs)
    return artifacts


def broken(seed, value):
    weights = donor(100)
    weights["core.update.bias"][0] = value
    return NaturalRun("rmr", seed, weights)


def assert_equal_within_rounding(stacked_artifact, artifact, steps):
    assert stacked_artifact.tensors.keys() == artifact.tensors.keys()
    for one, other in zip(stacked_artifact.record["curve"], artifact.record["curve"], strict=True):
        assert one == pytest.approx(other, rel=2e-4, abs=1e-6)
    for name, tensor in artifact.tensors.items():
        # Adam moves a weight whose gradient is all rounding by its whole rate: few may differ.
        difference = (stacked_artifact.tensors[name] - tensor).abs().double()
        assert difference.max() <= 2.1e-3 * steps, name
        assert difference.mean() <= 2e-6 * steps, name
    for key in ("arm", "health", "collapsed_at"):
        assert stacked_artifact.record[key] == artifact.record[key]
    hashes = [each.record["processor_hash"] for each in (stacked_artifact, artifact)]
    assert hashes[0]["before"] == hashes[1]["before"]
    if hashes[1]["after"] == hashes[1]["before"]:
        assert hashes[0] == hashes[1]


@pytest.mark.parametrize("objective", ["cswm", "infonce"])
def test_a_stack_of_all_arms_equals_the_runs_one_by_one(data, objective):
    config = Natural(objective=objective, checkpoints=(2, 3), batch=6)
    runs = [run(arm, seed) for seed, arm in enumerate(ARMS)] + [run("rmr", 0, 101), run("rmr", 1)]
    artifacts = together(config, data, runs)
    for each, artifact in zip(runs, artifacts, strict=True):
        assert artifact.record["stacked"]["runs"] == len(runs)
        assert_equal_within_rounding(artifact, alone(config, data, each), 3)


def test_another_seed_or_donor_is_no_rounding(data):
    config = Natural(checkpoints=(3,), batch=6)
    one, other = together(config, data, [run("rmr", 0), run("rmr", 0, 101)])
    with pytest.raises(AssertionError):
        assert_equal_within_rounding(one, other, 3)


@pytest.mark.parametrize("objective", ["cswm", "infonce"])
def test_rows_are_those_of_the_batches_of_the_runs_alone(data, objective):
    config, seeds = Natural(objective=objective, checkpoints=(1,), batch=6), [4, 2, 4]
    rows, frames = Feed(config, data, seeds).rows(7), Frames(data.frames)
    for index, seed in enumerate(seeds):
        batch = natural_batch(config, data, seed, 7)
        assert torch.equal(frames.at(rows.frames[index]), batch.frames)
        assert torch.equal(frames.at(rows.frames[index] + 1), batch.following)
        assert torch.equal(data.action[rows.transitions[index]], batch.action)
        assert torch.equal(rows.permutation[index], batch.permutation)


def test_palette_indices_are_decoded_where_they_lie():
    indices = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (5, 3, 2), np.uint8))
    frames = Frames(indices, torch.tensor(PALETTE_GRAY))
    rows = torch.tensor([[3, 0], [1, 1]])
    assert torch.equal(frames.at(rows), torch.tensor(PALETTE_GRAY)[indices.long()][rows])
    assert frames.at(rows).dtype == torch.uint8


def test_equal_frames_and_no_others_have_equal_names(data):
    names = frame_names(data.frames)
    assert (names[5] == names[7]).all()
    assert len(np.unique(names, axis=0)) == len(np.unique(data.frames.numpy(), axis=0))


def test_a_run_that_is_no_number_ends_alone(data):
    config = Natural(checkpoints=(1, 3), batch=6)
    runs = [run("rmr", 0), run("cswm", 0), run("no_p", 0)]
    found = train_natural_stack(config, MODEL, data, [runs[0], broken(5, torch.nan), *runs[1:]])
    assert isinstance(found[1], DivergedError)
    assert "step 1" in str(found[1])
    left = [each for each in found if isinstance(each, Artifact)]
    for one, other in zip(left, together(config, data, runs), strict=True):
        assert one.record["curve"] == other.record["curve"]
        assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in other.tensors)


def test_a_stack_of_nothing_but_broken_runs_ends(data):
    config = Natural(checkpoints=(2,), batch=6)
    found = train_natural_stack(config, MODEL, data, [broken(5, torch.inf)] * 2)
    assert [type(each) for each in found] == [DivergedError, DivergedError]


def test_a_collapsed_run_stops_at_its_checkpoint_and_no_other(data, monkeypatch):
    config = Natural(checkpoints=(1, 2), batch=6)
    runs = [run("rmr", 0), run("rmr", 1), run("cswm", 2)]
    counted = []

    def count(encoder, data):
        counted.append(encoder)
        return 100 if len(counted) == 2 else 3

    monkeypatch.setattr(stacked, "count_dead_slots", count)
    artifacts = together(config, data, runs)
    ends = [artifact.record["collapsed_at"] for artifact in artifacts]
    assert sorted(ends, key=str) == [1, None, None]
    index = ends.index(1)
    assert [point["step"] for point in artifacts[index].record["curve"]] == [1]
    assert {name.split(".")[0] for name in artifacts[index].tensors} == {"1"}
    monkeypatch.setattr(natural, "count_dead_slots", lambda encoder, data: 3)
    other = (index + 1) % 3
    assert_equal_within_rounding(artifacts[other], alone(config, data, runs[other]), 2)


def test_out_of_memory_halves_the_stack_and_says_so(data, monkeypatch, caplog):
    config = Natural(checkpoints=(2,), batch=6)
    runs = [run("rmr", seed) for seed in range(5)]
    whole = together(config, data, runs)

    def train_stack(stack, *args, **options):
        if len(stack.runs) > 2:
            raise torch.cuda.OutOfMemoryError("fake: no room")
        return stacked_training.train_stack(stack, *args, **options)

    monkeypatch.setattr(stacked, "train_stack", train_stack)
    with caplog.at_level(logging.WARNING):
        artifacts = together(config, data, runs)
    assert "a stack of 5 runs" in caplog.text
    assert sorted(artifact.record["stacked"]["runs"] for artifact in artifacts) == [1, 2, 2, 2, 2]
    assert {artifact.record["stacked"]["meant"] for artifact in artifacts} == {5}
    for one, other in zip(artifacts, whole, strict=True):
        assert_equal_within_rounding(one, other, 2)


def test_a_single_run_that_does_not_fit_is_an_error_that_can_be_mended(data, monkeypatch):
    def train_stack(*args, **options):
        raise torch.cuda.OutOfMemoryError("fake: no room")

    monkeypatch.setattr(stacked, "train_stack", train_stack)
    with pytest.raises(RMRError, match="single run"):
        train_natural_stack(Natural(checkpoints=(1,), batch=6), MODEL, data, [run("rmr", 0)] * 2)


@pytest.mark.parametrize("objective", ["infonce_3step", "infonce_aligned"])
def test_settings_that_cannot_be_stacked_are_refused(data, objective):
    config = Natural(objective=objective, checkpoints=(1,), batch=6)
    with pytest.raises(RMRError, match="one by one"):
        train_natural_stack(config, MODEL, data, [run("rmr", 0)])
    assert isinstance(alone(Natural(checkpoints=(1,), batch=6), data, run("no_p", 0)), Artifact)
