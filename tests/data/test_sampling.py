from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmr_gym.core.errors import RMRError
from rmr_gym.data.sampling import (
    WINDOW,
    batch_indices,
    derangement,
    shifted_inside,
    split_episodes,
)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 5), st.integers(0, 99))
def test_parts_are_disjoint_and_of_the_size_asked_for(train, validation, spare, seed):
    first, second = split_episodes(train + validation + spare, train, validation, seed)
    assert (len(first), len(second)) == (train, validation)
    assert not set(first) & set(second)
    assert set(first) | set(second) <= set(range(train + validation + spare))
    assert first == sorted(first)
    assert second == sorted(second)


def test_the_seed_decides():
    assert split_episodes(96, 48, 48, 0) == split_episodes(96, 48, 48, 0)
    assert split_episodes(96, 48, 48, 0) != split_episodes(96, 48, 48, 1)
    train, _ = split_episodes(96, 48, 48, 0)
    assert train != list(range(48)), "the split must not be in the order of recording"


def test_too_few_episodes():
    message = "at least 96 episodes to split into 48 for training and 48 for validation, found 95"
    with pytest.raises(RMRError, match=message):
        split_episodes(95, 48, 48, 0)


@pytest.mark.parametrize(("train", "validation"), [(0, 3), (2, -1)])
def test_sizes_out_of_range(train, validation):
    with pytest.raises(RMRError, match=r"as (training|validation) episodes, found (0|-1)"):
        split_episodes(10, train, validation, 0)


class Listed(NamedTuple):
    current: np.ndarray
    episode: np.ndarray


def listed(*lengths: int) -> Listed:
    episode = np.repeat(np.arange(len(lengths)), lengths)
    return Listed(np.arange(sum(lengths)) + episode, episode)


@pytest.mark.parametrize("kind", ["uniform", "window"])
def test_a_batch_is_a_function_of_seed_stream_and_step(kind):
    data = listed(500, 700)

    def draw(*key):
        return batch_indices(data, 50, *key, kind=kind).tolist()

    assert draw(0, "natural", 7) == draw(0, "natural", 7)
    others = [draw(1, "natural", 7), draw(0, "pretrain", 7), draw(0, "natural", 8)]
    assert all(other != draw(0, "natural", 7) for other in others)


def test_global_state_is_neither_read_nor_changed():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first = batch_indices(listed(100), 10, 0, "a", 0)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    np.random.seed(99)  # noqa: NPY002
    assert (batch_indices(listed(100), 10, 0, "a", 0) == first).all()


def test_uniform_draws_distinct_transitions_from_everywhere():
    data = listed(30, 30)
    drawn = [batch_indices(data, 20, 0, "a", step) for step in range(60)]
    assert all(len(set(batch.tolist())) == 20 for batch in drawn)
    assert set(np.concatenate(drawn).tolist()) == set(range(60))
    assert sorted(batch_indices(data, 60, 0, "a", 0).tolist()) == list(range(60))


def test_window_stays_in_a_window_of_one_episode():
    data = listed(1000, 30, 2000)
    episodes = []
    for step in range(300):
        batch = batch_indices(data, 50, 0, "a", step, kind="window")
        assert len(set(batch.tolist())) == 50
        assert batch.max() - batch.min() < WINDOW
        assert len(set(data.episode[batch].tolist())) == 1
        episodes.append(int(data.episode[batch[0]]))
    share = np.mean(np.array(episodes) == 2)
    assert set(episodes) == {0, 2}, "the episode of 30 is shorter than the batch"
    assert 0.57 < share < 0.76, "episodes are drawn in proportion to their transitions"


def test_window_reaches_both_ends_of_an_episode():
    data = listed(450)
    drawn = np.concatenate([batch_indices(data, 399, 0, "a", s, kind="window") for s in range(80)])
    assert (drawn.min(), drawn.max()) == (0, 449)


def test_an_episode_as_long_as_the_batch_is_used_whole():
    batch = batch_indices(listed(20, 50, 49), 50, 3, "a", 0, kind="window")
    assert sorted(batch.tolist()) == list(range(20, 70))


def test_window_prefers_different_frames():
    data = listed(100)
    frames = np.repeat(np.arange(51, dtype=np.uint8), 2)[:101].reshape(101, 1, 1)
    for step in range(20):
        batch = batch_indices(data, 50, 0, "a", step, kind="window", frames=frames)
        assert len(set(frames[data.current[batch], 0, 0].tolist())) == 50
    filled = batch_indices(data, 60, 0, "a", 0, kind="window", frames=frames)
    assert len(set(filled.tolist())) == 60
    assert len(set(frames[data.current[filled], 0, 0].tolist())) == 50


def test_too_few_transitions():
    with pytest.raises(RMRError, match=r"1 to 40 transitions .* got 41"):
        batch_indices(listed(20, 20), 41, 0, "a", 0)
    with pytest.raises(RMRError, match=r"at least 21 transitions .* at most 20"):
        batch_indices(listed(20, 20), 21, 0, "a", 0, kind="window")
    with pytest.raises(RMRError, match=r"1 to 400 transitions \(the window\), got 401"):
        batch_indices(listed(900), 401, 0, "a", 0, kind="window")


def test_an_unknown_kind_is_named():
    with pytest.raises(RMRError, match="did you mean 'window'"):
        batch_indices(listed(60), 5, 0, "a", 0, kind="windows")


def test_derangements_have_no_fixed_point_and_are_all_alike():
    rng = np.random.default_rng(0)
    drawn = [tuple(derangement(4, rng).tolist()) for _ in range(1800)]
    assert all(value != place for each in drawn for place, value in enumerate(each))
    assert all(sorted(each) == [0, 1, 2, 3] for each in drawn)
    counts = [drawn.count(each) for each in set(drawn)]
    assert len(counts) == 9, "there are nine derangements of four"
    assert min(counts) > 140
    assert max(counts) < 265


def test_the_smallest_derangement():
    assert derangement(2, np.random.default_rng(0)).tolist() == [1, 0]
    with pytest.raises(RMRError, match="at least 2"):
        derangement(1, np.random.default_rng(0))


def test_transitions_near_an_end_are_moved_forward():
    current = np.array([0, 1, 2, 3, 5, 6, 7])  # two episodes, of four and three transitions
    index = np.array([0, 2, 3, 4, 6])
    np.testing.assert_array_equal(shifted_inside(current, index, 1), index)
    np.testing.assert_array_equal(shifted_inside(current, index, 3), [0, 1, 1, 4, 4])
    with pytest.raises(RMRError, match=r"predicting 4 steps .* found one of 3"):
        shifted_inside(current, index, 4)
