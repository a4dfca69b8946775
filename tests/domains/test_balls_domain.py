import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains import balls
from rmr_gym.domains.balls import BallsModel
from rmr_gym.models.rmr.processors import CORES

WALLS = torch.full((4, 1), 0.9)


def past(batch=3, slots=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    last = torch.rand(batch, slots, 2, generator=generator) - 0.5
    steps = 0.05 * torch.randn(2, batch, slots, 2, generator=generator)
    return torch.stack([last - steps.sum(0), last - steps[0], last], dim=1)


def pipeline(**options):
    return balls.abstract_pipeline(BallsModel(dim=8, **options), seed=0, slots=4)


@pytest.mark.parametrize("core", CORES)
def test_every_core_predicts_and_learns(core):
    model, x = pipeline(core=core), past()
    out = model(x)
    assert out.shape == (3, 4, 2)
    out.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.encoder.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("core", ["mpnn", "deep_sets", "interaction"])
def test_the_order_of_the_balls_does_not_matter(core):
    model, x, order = pipeline(core=core), past(), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(x[:, :, order]), model(x)[:, order])


@pytest.mark.parametrize(
    ("predict", "expected"),
    [
        ("position", lambda x: torch.zeros_like(x[:, 2])),
        ("change", lambda x: x[:, 2]),
        ("acceleration", lambda x: 2 * x[:, 2] - x[:, 1]),
    ],
)
def test_what_a_silent_decoder_predicts(predict, expected):
    model, x = pipeline(predict=predict), past()
    torch.nn.init.zeros_(model.decoder.weight)
    torch.nn.init.zeros_(model.decoder.bias)
    torch.testing.assert_close(model(x), expected(x))
    torch.nn.init.ones_(model.decoder.bias)
    scale = 1.0 if predict == "position" else balls.FRAME
    torch.testing.assert_close(model(x), expected(x) + scale)


def test_motion_is_seen_in_units_a_second():
    model, x = pipeline(predict="acceleration"), past()
    seen = []
    model.encoder.register_forward_hook(lambda *arguments: seen.append(arguments[1][0]))
    model(x)
    velocities = [(x[:, 2] - x[:, 1]) / 0.05, (x[:, 1] - x[:, 0]) / 0.05]
    torch.testing.assert_close(seen[0], torch.cat([x[:, 2], *velocities], -1))


def test_every_pass_has_weights_of_its_own_and_a_skip():
    processor = balls.make_balls_processor(BallsModel(dim=8, passes=3), seed=0)
    first, second, third = processor.cores
    assert not torch.equal(first.hidden.weight, second.hidden.weight)
    z = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    once = first(z) + z
    twice = second(once) + once
    torch.testing.assert_close(processor(z), third(twice) + twice)


def test_no_skip_leads_around_the_interaction_network():
    processor = balls.make_balls_processor(BallsModel(dim=8, core="interaction"), seed=0)
    z = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    assert len(processor.cores) == 1
    torch.testing.assert_close(processor(z), processor.cores[0](z))


def test_seeds_fix_the_initial_weights():
    first, again, other = (
        balls.abstract_pipeline(BallsModel(dim=8), seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


def test_windows_never_cross_an_episode():
    states = np.arange(2 * 7, dtype=np.float32).reshape(2, 7, 1, 1) + np.zeros((1, 2), np.float32)
    data = balls.balls_data(states, ahead=2)
    before, after = balls.windows(data, np.arange(len(data.current)), ahead=2)
    first = before[:, 0, 0, 0]
    assert first.tolist() == [0, 1, 2, 7, 8, 9]
    expected = first[:, None] + torch.arange(5)
    torch.testing.assert_close(torch.cat([before, after], 1)[..., 0, 0], expected)


def test_too_short_episodes_are_refused():
    with pytest.raises(RMRError, match="at least 13 instants, found at most 12"):
        balls.balls_data(np.zeros((2, 12, 3, 2), np.float32), ahead=10)


def test_rollout_feeds_predictions_back():
    x = past()
    out = balls.rollout(lambda seen: seen[:, 2] + seen[:, 1] - seen[:, 0], x, 3)
    first = x[:, 2] + x[:, 1] - x[:, 0]
    second = first + x[:, 2] - x[:, 1]
    third = second + first - x[:, 2]
    torch.testing.assert_close(out, torch.stack([first, second, third], 1))


def test_rollout_loss_reaches_through_all_instants():
    model, x = pipeline(predict="acceleration"), past()
    future = torch.zeros(3, 2, 4, 2)
    loss = balls.rollout_loss(model, x, future)
    torch.testing.assert_close(loss, balls.rollout(model, x, 2).square().mean())
    through = torch.autograd.grad(loss, model.decoder.bias)[0]
    last_only = (balls.rollout_loss(model, x, future[:, :1])) / 2
    assert not torch.allclose(through, torch.autograd.grad(last_only, model.decoder.bias)[0])


def test_baselines_on_balls_that_meet_the_walls():
    x = torch.zeros(1, 3, 4, 2)
    x[0, :, 0, 0] = torch.tensor([0.70, 0.78, 0.86])
    x[0, :, 1, 1] = torch.tensor([-0.80, -0.84, -0.88])
    found = {name: roll(x, 50)[0] for name, roll in balls.baselines(WALLS).items()}
    assert (found["copy"] == x[0, 2]).all()
    torch.testing.assert_close(found["linear"][:2, 0, 0], torch.tensor([0.94, 1.02]))
    torch.testing.assert_close(found["reflected"][:2, 0, 0], torch.tensor([0.86, 0.78]))
    torch.testing.assert_close(found["reflected"][:2, 1, 1], torch.tensor([-0.88, -0.84]))
    torch.testing.assert_close(found["reflected"][44, 0, 0], torch.tensor(0.86))
    torch.testing.assert_close(found["reflected"][:, 2], torch.zeros(50, 2))
    assert found["reflected"].abs().max() <= 0.9


def test_scores_by_hand():
    start, future = torch.zeros(1, 3, 1, 2), torch.zeros(1, 10, 1, 2)
    start[0, :, 0, 0] = torch.tensor([-0.2, -0.1, 0.0])
    future[0, :, 0, 0] = 0.1 * torch.arange(1, 11)
    predicted = future.clone()
    predicted[0, 0, 0, 1] = 0.2
    predicted[0, 9, 0, 0] = 1.1
    scores = balls.score_rollouts(start, predicted, future, torch.tensor([[0.95]]))
    assert scores.mse_1 == pytest.approx(0.02)
    assert scores.mse_10 == pytest.approx(0.005)
    assert scores.outside == pytest.approx(0.1)
    assert scores.excursion == pytest.approx(0.15)
    assert scores.energy == pytest.approx(3.0, rel=1e-4)
    inside = balls.score_rollouts(start, 0 * predicted, future, torch.tensor([[0.95]]))
    assert (inside.outside, inside.excursion) == (0, 0)
    assert inside.energy == pytest.approx(-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"core": "mpn"}, "did you mean 'mpnn'"),
        ({"predict": "chang"}, "did you mean 'change'"),
        ({"dim": 0}, "1 or more"),
        ({"passes": 0}, "1 or more"),
    ],
)
def test_bad_models_are_refused(options, message):
    with pytest.raises(RMRError, match=message):
        BallsModel(**options)
