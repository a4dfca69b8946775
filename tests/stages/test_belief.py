from dataclasses import replace

import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.stages.belief import (
    BELIEFS,
    FOLDS,
    Believing,
    _expanded,
    belief,
    evidence,
    labelled_rows,
    recorded_episodes,
)

LABELS = 40
SMALL = Believing(horizon=12, tracks=8, rounds=2, starts=(0, 8), scored=(1, 4, 12), hidden=0.9)


@pytest.fixture(scope="module")
def read(game, chain):
    return evidence(game.data, game.preset.model, SMALL, LABELS, 0)


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
    episodes = recorded_episodes(game.data, "training", 84, 84)
    opened = game.data.open()
    loaded = opened.dataset.load(columns=("ram", "action"), episodes=opened.training)
    np.testing.assert_array_equal(episodes.action[loaded.current + 1], loaded["action"])
    assert episodes.first[0] == 0
    assert (episodes.action[episodes.first] == 0).all()
    assert len(episodes.bits) == len(episodes.episode) == int((episodes.length + 1).sum())


def test_fewer_labels_are_among_more(game):
    episodes = recorded_episodes(game.data, "training", 84, 84)
    few, many = (set(labelled_rows(episodes, count, 0)) for count in (10, 30))
    assert few < many
    assert few != set(labelled_rows(episodes, 10, 1))


def test_training_frames_are_read_by_a_reader_that_saw_no_label_of_their_fold(game, chain, read):
    """Wrong labels in one fold change what is read of the others and not of itself."""
    artifact = chain.compute(read)
    episodes = recorded_episodes(game.data, "training", 84, 84)
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


def test_open_loop_does_not_depend_on_frames(game, chain, read):
    artifact = chain.compute(task(game, read, "open_loop"))
    assert not artifact.tensors["weight"][..., 1].any()
    assert not artifact.tensors["weight"][..., 3].any()


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
            chain.compute(evidence(game.data, game.preset.model, SMALL, labels, 0))
    for wrong in ({"scored": (13,)}, {"rounds": 0}, {"starts": (-1,)}):
        with pytest.raises(RMRError):
            replace(SMALL, **wrong)
