import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.report.charts import figure_bytes
from rmr_gym.report.pictures import (
    CAPTION,
    activation_figure,
    attended,
    film_frames,
    group_colours,
    groups_figure,
    masks_figure,
    rollout_figure,
    rollout_frames,
    slot_colours,
)


def sheet(time=3, slots=2, size=4):
    rng = np.random.default_rng(0)
    shares = rng.random((time, slots, size, size))
    return {
        "truth": rng.random((time, size, size)),
        "predicted": rng.random((time, size, size)),
        "seen": 2,
        "shares": shares / shares.sum(axis=1, keepdims=True),
        "pictures": rng.random((time, slots, size, size)),
        "attention": np.zeros((time, slots, slots)),
    }


def test_groups_are_in_their_colours():
    shares = np.zeros((1, 2, 1, 2))
    shares[0, 1, 0, 0] = 1
    shares[0, :, 0, 1] = 0.5
    found, colours = group_colours(shares), slot_colours(2)
    np.testing.assert_allclose(found[0, 0, 0], colours[1])
    np.testing.assert_allclose(found[0, 0, 1], colours.mean(axis=0))


def test_attention_puts_the_other_group_on_top_in_its_colour():
    pictures = np.zeros((1, 2, 1, 2))
    pictures[0, 0, 0, 0] = pictures[0, 1, 0, 1] = 0.5
    attention = np.array([[[0.0, 1.0], [0.0, 0.0]]])
    found = attended(pictures, attention)
    np.testing.assert_allclose(found[0, 0, 0, 0], [0.5] * 3)
    np.testing.assert_allclose(found[0, 0, 0, 1], 0.5 * slot_colours(2)[1])
    np.testing.assert_allclose(found[0, 1, 0, 0], [0, 0, 0])


def test_a_row_a_kind_of_picture():
    full = groups_figure(**sheet())
    assert len(full.axes) == 3 * 5
    assert [full.axes[3 * row].get_ylabel() for row in range(5)] == [
        *("truth", "predicted", "groups", "group 1", "group 2")
    ]
    edges = [axes.spines["top"].get_edgecolor() for axes in full.axes[:3]]
    assert edges[0] == edges[1] != edges[2], "frames that were shown are marked"
    bare = sheet() | dict.fromkeys(("shares", "pictures", "attention"))
    assert len(groups_figure(**bare).axes) == 3 * 2


def test_a_film_shows_all_side_by_side():
    drawn = sheet()
    frames = film_frames(drawn["truth"], drawn["predicted"], drawn["shares"], times=2)
    assert len(frames) == 3
    assert frames[0].shape == (CAPTION + 12, 2 * 3 * 6, 3)
    assert len(np.unique(frames[0][:CAPTION])) > 2  # the names of the parts
    frames = [frame[CAPTION:] for frame in frames]
    assert frames[0].dtype == np.uint8
    first = frames[1][2:10:2, 2:10:2, 0]
    np.testing.assert_array_equal(first, (drawn["truth"][1] * 255).round().astype(np.uint8))


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).random((*shape, 8, 8, 3))


def images(figure):
    return [axes.images[0].get_array() if axes.images else None for axes in figure.axes]


def test_a_rollout_shows_what_was_seen_predicted_and_true():
    past, predicted, truth = pictures(3), pictures(2, seed=1), pictures(2, seed=2)
    shown = images(rollout_figure(past, predicted, truth))
    top, bottom = shown[:5], shown[5:]
    np.testing.assert_array_equal(np.stack(top), np.concatenate([past, predicted]))
    assert bottom[:3] == [None] * 3
    np.testing.assert_array_equal(np.stack(bottom[3:]), truth)


def test_rollouts_of_different_length_are_refused():
    with pytest.raises(RMRError, match="as many true frames"):
        rollout_figure(pictures(3), pictures(2), pictures(1))


def test_owners_are_in_the_colours_of_the_slots():
    frames = np.ones((1, 8, 8, 3))
    masks = np.zeros((1, 2, 8, 8))
    masks[0, 0, :, :4] = masks[0, 1, :, 4:] = 1
    frame, predicted, owned, *each = images(masks_figure(frames, frames, masks))
    assert len(each) == 2
    np.testing.assert_allclose(owned[:, :4], np.broadcast_to(slot_colours(2)[0], (8, 4, 3)))
    np.testing.assert_allclose(owned[:, 4:], np.broadcast_to(slot_colours(2)[1], (8, 4, 3)))
    np.testing.assert_allclose(each[0][:, 4:], 0)
    np.testing.assert_array_equal(frame, predicted)


def test_a_film_shows_the_past_then_truth_prediction_and_owners():
    past, truth = np.full((3, 8, 8, 3), 0.2), np.full((2, 8, 8, 3), 1.0)
    predicted, masks = np.full((2, 8, 8, 3), 0.5), np.zeros((2, 2, 8, 8))
    masks[:, 0] = 1
    frames = rollout_frames(past, predicted, truth, masks, times=2)
    assert [frame.shape for frame in frames] == [(CAPTION + 20, 60, 3)] * 5
    frames = [frame[CAPTION:] for frame in frames]
    assert {tuple(frames[0][10, x]) for x in (10, 30, 50)} == {(51, 51, 51)}
    assert frames[4][10, 10].tolist() == [255] * 3
    assert frames[4][10, 30].tolist() == [128] * 3
    red = slot_colours(2)[0] * 0.5 * 255
    assert frames[4][10, 50] == pytest.approx(red.round())


PHASES = {"digits": 0, "blanks": 3, "recall": 9}


def pattern(seed=0):
    return np.random.default_rng(seed).random((12, 4)).round()


def test_the_picture_shows_the_pattern_and_its_phases():
    one, mean = pattern(), np.full((12, 4), 0.5)
    figure = activation_figure({"one": one, "mean": mean}, PHASES)
    first, second = (panel for panel in figure.axes if panel.images)
    np.testing.assert_array_equal(first.images[0].get_array(), one.T)
    np.testing.assert_array_equal(second.images[0].get_array(), mean.T)
    assert second.images[0].get_clim() == (0, 1)
    ticks = [tick.get_text() for tick in second.get_xticklabels()]
    assert {name: ticks.index(name) for name in PHASES} == PHASES
    assert figure_bytes(figure, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("patterns", "phases", "message"),
    [
        ({}, PHASES, "one pattern or more of one shape"),
        ({"a": pattern(), "b": pattern()[1:]}, PHASES, "one pattern or more of one shape"),
        ({"a": pattern()}, {"recall": 12}, "begin at 0 to 11"),
    ],
)
def test_bad_patterns(patterns, phases, message):
    with pytest.raises(RMRError, match=message):
        activation_figure(patterns, phases)
