import numpy as np
import pandas as pd
import pytest

from rmr_gym.analysis.balls_figures import (
    arms_figure,
    masks_figure,
    rollout_figure,
    rollout_frames,
    slot_colours,
)
from rmr_gym.core.errors import RMRError


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
    assert [frame.shape for frame in frames] == [(20, 60, 3)] * 5
    assert {tuple(frames[0][10, x]) for x in (10, 30, 50)} == {(51, 51, 51)}
    assert frames[4][10, 10].tolist() == [255] * 3
    assert frames[4][10, 30].tolist() == [128] * 3
    red = slot_colours(2)[0] * 0.5 * 255
    assert frames[4][10, 50] == pytest.approx(red.round())


def test_every_arm_has_its_dots_in_both_panels():
    rows = [
        {"arm": arm, "seed": seed, "mse": mse, "copy_mse": 1.0}
        | {"rollout_mse": 2 * mse, "rollout_copy_mse": 1.0}
        for arm, mse in (("rmr_aligned", 0.1), ("baseline", 0.4))
        for seed in range(3)
    ]
    panels = arms_figure(pd.DataFrame(rows)).axes
    dots = [np.concatenate([c.get_offsets() for c in panel.collections]) for panel in panels]
    assert np.asarray(dots[0][:, 0]) == pytest.approx([0.1] * 3 + [0.4] * 3)
    assert np.asarray(dots[1][:, 0]) == pytest.approx([0.2] * 3 + [0.8] * 3)
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["rmr_aligned", "baseline"]
