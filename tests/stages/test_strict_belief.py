from dataclasses import replace

import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import make_core
from rmr_gym.runs.store import Room
from rmr_gym.runs.training import Phase
from rmr_gym.stages.belief import (
    STRICT,
    Believing,
    Strict,
    _latent_filter,
    _on_tracks,
    evidence,
    recorded_episodes,
    strict,
)

SCORING = Believing(horizon=8, segment=8, starts=(0, 20), scored=(1, 8))
SMALL = Strict(Phase(steps=4, batch=3, unroll=3), ahead=2, length=6, scoring=SCORING)


@pytest.fixture(scope="module")
def read(game):
    return evidence(game.data, game.preset.model, 0.9, 40, 0)


def task(game, read, arm, config=SMALL, seed=0, start="known", **donors):
    donors = {"donor": game.pretrained()} | donors
    return strict(game.data, game.preset.model, config, 40, arm, seed, read, start=start, **donors)


@pytest.mark.parametrize("arm", STRICT)
def test_every_belief_is_learned_and_probed(game, chain, read, arm):
    artifact = chain.compute(task(game, read, arm))
    rows = artifact.record["rows"]
    assert {(row["start"], row["k"]) for row in rows} == {(0, 1), (0, 8), (20, 1), (20, 8)}
    assert all(0 <= row["micro_f1"] <= 1 for row in rows)


def test_what_is_frozen_stays_and_what_learns_moves(game, chain, read):
    donor = chain.compute(game.pretrained()).part("processor")
    for arm, moves in (("rmr", False), ("no_memory", False), ("scratch_p", True)):
        tensors = chain.compute(task(game, read, arm)).part("transition.pipeline.processor")
        start = (
            donor if arm != "scratch_p" else make_core(game.preset.model, "mpnn", 0).state_dict()
        )
        assert moves != all(torch.equal(tensors[name], part) for name, part in start.items())


def test_beliefs_without_frames_and_without_memory_are_what_they_say(game, chain, read):
    """P alone does not change with frames; an encoder of single frames forgets its start."""
    model, donor = game.preset.model, chain.compute(game.pretrained())
    training = recorded_episodes(game.data, "training", model)
    for arm, remembers in (("p_alone", True), ("no_memory", False)):
        network = _latent_filter(game.data, training, model, arm, 0, donor)
        prior, seen = torch.randn(2, 3, 128, model.dim)
        assert torch.equal(network.correct(prior, seen), prior if remembers else seen)


def test_a_killed_run_resumes_to_the_same_bytes(game, chain, read, tmp_path, monkeypatch):
    """The beliefs that tracks have reached are part of the state."""
    whole, calls = chain.compute(task(game, read, "rmr")), []

    def fail(config, starts, seed, step):
        calls.append(step)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return _on_tracks(config, starts, seed, step)

    monkeypatch.setattr("rmr_gym.runs.training.SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("rmr_gym.stages.belief._on_tracks", fail)
    given = chain.compute(read), chain.compute(game.pretrained())

    def computed():
        parts = (game.data, game.preset.model, SMALL, 40, "rmr", 0, *given)
        return strict.function(*parts, room=Room(tmp_path / "room"))

    with pytest.raises(KeyboardInterrupt):
        computed()
    again = computed()
    assert calls == [1, 2, 3, 4, 4]
    assert again.record["rows"] == whole.record["rows"]
    for name, tensor in whole.tensors.items():
        assert torch.equal(again.tensors[name], tensor), name


def test_tracks_walk_on_and_begin_anew_one_after_the_other():
    starts, config = np.array([0, 1000]), replace(SMALL, length=9)
    rows, new = zip(*(_on_tracks(config, starts, 0, step) for step in range(1, 10)), strict=True)
    assert new[0].all()
    assert [part.tolist() for part in new[1:4]] == [
        [False, False, True],
        [False, True, False],
        [True, False, False],
    ]
    walked = np.diff(np.stack(rows), axis=0)
    assert (walked[~np.stack(new)[1:]] == 3).all()
    assert np.isin(np.stack(rows)[np.stack(new)], starts).all()


@pytest.mark.parametrize("arm", ["rmr", "pixels", "no_memory"])
def test_a_start_that_is_not_known_is_learned(game, chain, read, arm):
    known, other = (
        chain.compute(task(game, read, arm, start=start)).record["rows"]
        for start in ("known", "unknown")
    )
    assert (known == other) == (arm == "pixels")


def test_bad_input_is_refused_with_a_sentence(game, chain, read):
    with pytest.raises(RMRError, match="instants"):
        chain.compute(task(game, read, "instants"))
    with pytest.raises(RMRError, match="unkown"):
        chain.compute(task(game, read, "rmr", start="unkown"))
    with pytest.raises(RMRError, match="needs episodes of so many"):
        chain.compute(task(game, read, "rmr", replace(SMALL, length=600)))
    with pytest.raises(RMRError, match="steps ahead <= steps of a gradient step"):
        replace(SMALL, ahead=4)
