import numpy as np

from rmr_gym.analysis.balls_figures import slot_colours
from rmr_gym.analysis.world_model_figures import (
    attended,
    film_frames,
    group_colours,
    groups_figure,
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
    assert frames[0].shape == (8, 2 * 3 * 6, 3)
    assert frames[0].dtype == np.uint8
    first = frames[1][::2, 2:10:2, 0]
    np.testing.assert_array_equal(first, (drawn["truth"][1] * 255).astype(np.uint8))
