from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.runs.store import Artifact
from rmr_gym.runs.training import Phase
from rmr_gym.stages import belief as stages
from rmr_gym.stages.belief import (
    BELIEFS,
    FOLDS,
    Believing,
    ReadGame,
    _expanded,
    _lessons,
    belief,
    evidence,
    filmed,
    instants,
    labelled_rows,
    read_bits,
    recorded_episodes,
    recurrent,
    scratch,
    supervised_frames,
)
from rmr_gym.stages.natural import pretrain

LABELS = 40
SMALL = Believing(horizon=12, tracks=8, segment=12, starts=(0, 8), scored=(1, 4, 12))
QUICK = Phase(steps=4, batch=4, unroll=5)


@pytest.fixture(scope="module")
def episodes(game):
    return recorded_episodes(game.data, "training", game.preset.model)


@pytest.fixture(scope="module")
def read(game, chain):
    return evidence(game.data, game.preset.model, 0.9, LABELS, 0)


def task(game, read, arm, config=SMALL, seed=0, **donors):
    if arm not in ("copy", "pixels"):
        donors.setdefault("donor", game.pretrained())
    if arm == "foreign_p":
        donors.setdefault("foreign", game.pretrained(1))
    return belief(game.data, game.preset.model, config, LABELS, arm, seed, read, **donors)


@pytest.mark.parametrize("arm", BELIEFS)
def test_every_belief_is_fitted_and_scored(game, chain, read, arm):
    rows = chain.compute(task(game, read, arm)).record["rows"]
    assert {row["k"] for row in rows} == {1, 4, 12}
    assert {row["start"] for row in rows} == {0, 8}
    assert all(0 <= row["micro_f1"] <= 1 for row in rows)


def test_actions_stand_beside_the_row_that_they_led_to(game):
    episodes = recorded_episodes(game.data, "training", game.preset.model)
    opened = game.data.open()
    loaded = opened.dataset.load(columns=("ram", "action"), episodes=opened.training)
    np.testing.assert_array_equal(episodes.action[loaded.current + 1], loaded["action"])
    assert episodes.first[0] == 0
    assert (episodes.action[episodes.first] == 0).all()
    assert len(episodes.bits) == len(episodes.episode) == int((episodes.length + 1).sum())


def test_short_tracks_begin_where_most_labels_soon_follow(episodes):
    labelled = labelled_rows(episodes, LABELS, 0)
    known = np.isin(np.arange(len(episodes.bits)), labelled)
    config = replace(SMALL, horizon=20, segment=20, tracks=3)
    (long, steps), (short, few) = _lessons(episodes, labelled, known, config)
    assert (len(long), steps, len(short), few) == (1, 20, 6, 12)
    assert np.isin(short, labelled).all()
    soon = {row: known[row + 1 : row + 13].sum() for row in episodes.followed_by(labelled, 12)}
    left_out = [count for row, count in soon.items() if row not in short]
    assert min(soon[row] for row in short) >= max(left_out)


def test_fewer_labels_are_among_more(game):
    episodes = recorded_episodes(game.data, "training", game.preset.model)
    few, many = (set(labelled_rows(episodes, count, 0)) for count in (10, 30))
    assert few < many
    assert few != set(labelled_rows(episodes, 10, 1))


def test_training_frames_are_read_by_a_reader_that_saw_no_label_of_their_fold(game, chain, read):
    """Wrong labels in one fold change what is read of the others and not of itself."""
    artifact = chain.compute(read)
    episodes = recorded_episodes(game.data, "training", game.preset.model)
    read_again = _expanded(artifact, "training")
    assert len(read_again) == len(episodes.bits)
    from rmr_gym.models.rmr.belief import PixelReader

    rows = labelled_rows(episodes, LABELS, 0)
    fold = episodes.episode % FOLDS
    kept = rows[fold[rows] != 0]
    reader = PixelReader(84, 84).fit(
        episodes.frames[kept],
        torch.from_numpy(episodes.bits[kept]).float(),
        artifact.record["penalty"],
    )
    chosen = torch.from_numpy(fold == 0)
    expected = reader(episodes.frames[chosen])
    varying = torch.zeros(1024, dtype=torch.bool)
    varying[artifact.tensors["varying"]] = True
    expected = torch.where(varying.unflatten(0, (128, 8)), expected, 0)
    torch.testing.assert_close(read_again[chosen], expected, atol=2e-3, rtol=2e-3)


def test_p_alone_does_not_depend_on_frames(game, chain, read):
    artifact = chain.compute(task(game, read, "p_alone"))
    assert (artifact.tensors["weight"] == torch.eye(7)[0]).all()


def test_beliefs_are_the_same_bytes_again(game, chain, read):
    again = task(game, read, "rmr").stage.function(
        game.data,
        game.preset.model,
        SMALL,
        LABELS,
        "rmr",
        0,
        chain.compute(read),
        chain.compute(game.pretrained()),
    )
    kept = chain.compute(task(game, read, "rmr"))
    assert torch.equal(again.tensors["weight"], kept.tensors["weight"])
    assert again.record["rows"] == kept.record["rows"]


def test_bad_input_is_refused_with_a_sentence(game, chain, read):
    with pytest.raises(RMRError, match=r"known|belief"):
        chain.compute(task(game, read, "gru"))
    with pytest.raises(RMRError, match="needs a pretrained P"):
        chain.compute(task(game, read, "rmr", donor=None))
    late = replace(SMALL, starts=(0, 400))
    with pytest.raises(RMRError, match="after each start"):
        chain.compute(task(game, read, "copy", config=late))
    long = replace(SMALL, horizon=500)
    with pytest.raises(RMRError, match="needs episodes of so many"):
        chain.compute(task(game, read, "copy", config=long))
    for labels in (3, 10**6):
        with pytest.raises(RMRError, match=f"expected 8 labelled frames or more.*got {labels}"):
            chain.compute(evidence(game.data, game.preset.model, 0.9, labels, 0))
    for wrong in ({"scored": (13,)}, {"rounds": 0}, {"starts": (-1,)}, {"segment": 13}):
        with pytest.raises(RMRError):
            replace(SMALL, **wrong)


def scratched(game, read):
    return scratch(game.data, game.preset.model, game.preset.pretraining, LABELS, 0, read)


def gru(game, read, config=SMALL, learning=QUICK, start="known"):
    return recurrent(game.data, game.preset.model, config, learning, LABELS, 0, read, start)


def test_a_scratch_p_learns_from_what_is_read_and_from_labels(game, chain, read, episodes):
    """All of RAM that is not labelled may be wrong; of labelled frames it may not."""
    artifact, labelled = chain.compute(read), labelled_rows(episodes, LABELS, 0)
    bits = read_bits(artifact, "training").numpy()
    assert (bits != episodes.bits).any()
    bits[labelled] = episodes.bits[labelled]
    world = ReadGame(**vars(game.data), bits=bits)
    expected = pretrain.function(world, game.preset.model, game.preset.pretraining, 0)
    trained = chain.compute(scratched(game, read))
    for name, tensor in expected.tensors.items():
        assert torch.equal(trained.tensors[name], tensor)
    own = chain.compute(game.pretrained())
    assert trained.record["processor_hash"] != own.record["processor_hash"]
    assert trained.record["copy"] == own.record["copy"]


def test_a_belief_with_a_scratch_p_is_scored(game, chain, read):
    arguments = (game.data, game.preset.model, SMALL, LABELS, "scratch_p", 0, read)
    rows = chain.compute(belief(*arguments, scratched(game, read))).record["rows"]
    assert {row["k"] for row in rows} == {1, 4, 12}


def test_a_gru_is_scored_and_is_the_same_bytes_again(game, chain, read):
    asked = gru(game, read)
    kept = chain.compute(asked)
    assert {(row["start"], row["k"]) for row in kept.record["rows"]} == set(
        product((0, 8), (1, 4, 12))
    )
    assert kept.record["chosen"]["step"] in range(1, 5)
    arguments = asked.arguments | {"read": chain.compute(read)}
    again = asked.stage.function(**arguments)
    for name, tensor in kept.tensors.items():
        assert torch.equal(again.tensors[name], tensor)
    assert again.record["rows"] == kept.record["rows"]


def test_a_gru_learns_to_count_what_no_frame_shows(game, chain, read, episodes, monkeypatch):
    """A bit that turns over with every step is hidden from readers, and follows from the start."""
    artifact, labelled = chain.compute(read), np.arange(len(episodes.bits))
    byte = int(game.data.scored_bytes[0])
    bits = np.zeros_like(episodes.bits)
    for first, length in zip(episodes.first, episodes.length, strict=True):
        bits[first : first + length + 1, byte, 7] = np.arange(length + 1) % 2
    varying = torch.tensor([8 * byte + 7])
    mean, blank = torch.zeros(128, 8), torch.zeros(len(bits), 1)
    mean[byte, 7] = 0.5
    tensors = {"training": blank, "validation": blank, "varying": varying, "mean": mean}
    toy = Artifact({}, artifact.tensors | tensors)
    world = episodes._replace(bits=bits)
    monkeypatch.setattr(stages, "recorded_episodes", lambda *_: world)
    monkeypatch.setattr(stages, "labelled_rows", lambda *_: labelled)
    monkeypatch.setattr(stages, "score_beliefs", lambda *_: [])
    long = Phase(steps=60, batch=8, learning_rate=2e-2, unroll=12)
    arguments = (game.data, game.preset.model, SMALL, long, LABELS, 0, toy)
    assert recurrent.function(*arguments).record["chosen"]["micro_f1"] == 1
    blind = recurrent.function(*arguments, "unknown").record["chosen"]["micro_f1"]
    assert blind < 0.9


def test_a_clip_ends_with_its_row_and_begins_within_the_episode(episodes):
    first = int(episodes.first[1])
    clips = episodes.clips(np.array([first, first + 2]), 3).unflatten(1, (3, 84))
    assert torch.equal(clips[0], episodes.frames[[first, first, first]])
    assert torch.equal(clips[1], episodes.frames[first : first + 3])


def test_one_instant_is_read_as_evidence_reads_it(game, chain, read):
    artifact = chain.compute(read)
    one = chain.compute(instants(game.data, game.preset.model, LABELS, 0, read, 1))
    for part in ("training", "validation"):
        torch.testing.assert_close(one.tensors[part], artifact.tensors[part], atol=2e-3, rtol=2e-3)
    assert torch.equal(one.tensors["hidden"], artifact.tensors["hidden"])


def toy(episodes, artifact, byte, bits, pixel):
    """Return episodes of one bit and one pixel that vary, and what reading them takes."""
    world = np.zeros_like(episodes.bits)
    world[:, byte, 7] = bits
    frames = torch.zeros(len(bits), 84, 84, dtype=torch.uint8)
    frames[:, 40, 40] = torch.from_numpy(255 * pixel.astype(np.uint8))
    mean = torch.zeros(128, 8)
    mean[byte, 7] = 0.5
    tensors = {"varying": torch.tensor([8 * byte + 7]), "mean": mean}
    read = Artifact({"penalty": 1e-3}, artifact.tensors | tensors)
    return episodes._replace(bits=world, frames=frames), read


def test_what_was_seen_a_frame_ago_is_read_of_two_instants_within_the_episode(
    game, chain, read, episodes, monkeypatch
):
    pixel = np.random.default_rng(0).integers(0, 2, len(episodes.bits))
    before = np.roll(pixel, 1)
    before[episodes.first] = pixel[episodes.first]
    world, artifact = toy(episodes, chain.compute(read), 0, before, pixel)
    monkeypatch.setattr(stages, "recorded_episodes", lambda *_: world)
    monkeypatch.setattr(stages, "labelled_rows", lambda *_: np.arange(len(pixel)))
    for count, right in ((1, False), (2, True)):
        found = instants.function(game.data, game.preset.model, LABELS, 0, artifact, count)
        for part in ("training", "validation"):
            guess = (found.tensors[part][:, 0] > 0).numpy()
            assert (guess == before.astype(bool)).all() == right


def test_an_encoder_of_single_frames_learns_what_they_show(
    game, chain, read, episodes, monkeypatch
):
    byte = int(game.data.scored_bytes[0])
    pixel = np.random.default_rng(0).integers(0, 2, len(episodes.bits))
    world, artifact = toy(episodes, chain.compute(read), byte, pixel, pixel)
    monkeypatch.setattr(stages, "recorded_episodes", lambda *_: world)
    monkeypatch.setattr(stages, "labelled_rows", lambda *_: np.arange(len(pixel)))
    monkeypatch.setattr(stages, "score_beliefs", lambda *_: [])
    learning = Phase(steps=30, batch=16, learning_rate=1e-2)
    arguments = (game.data, game.preset.model, SMALL, learning, LABELS, 0, artifact)
    assert supervised_frames.function(*arguments).record["chosen"]["micro_f1"] == 1


def test_an_encoder_of_single_frames_is_scored(game, chain, read):
    arguments = (game.data, game.preset.model, SMALL, QUICK, LABELS, 0, read)
    rows = chain.compute(supervised_frames(*arguments)).record["rows"]
    assert {(row["start"], row["k"]) for row in rows} == set(product((0, 8), (1, 4, 12)))


def test_beliefs_of_unknown_starts_start_from_what_is_read(game, chain, read, episodes):
    artifact = chain.compute(read)
    film = filmed(episodes, artifact, "training", "unknown")
    assert torch.equal(film.begun, read_bits(artifact, "training"))
    arguments = (game.data, game.preset.model, SMALL, LABELS, "copy", 0, read)
    known = belief(*arguments)
    unknown = belief(*arguments, start="unknown")
    assert known.key != unknown.key
    first, other = (chain.compute(task).record["rows"] for task in (known, unknown))
    assert first != other


def test_bad_input_of_a_gru_is_refused_with_a_sentence(game, chain, read):
    with pytest.raises(RMRError, match=r"start 'unkown'.*unknown"):
        chain.compute(gru(game, read, start="unkown"))
    with pytest.raises(RMRError, match="needs episodes of so many"):
        chain.compute(gru(game, read, config=replace(SMALL, horizon=400, segment=400)))
