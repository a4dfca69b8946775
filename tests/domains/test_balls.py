from copy import deepcopy
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

import rmr_gym  # noqa: F401
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import Transitions
from rmr_gym.domains import balls
from rmr_gym.domains.balls import BallsModel, PixelModel
from rmr_gym.envs.balls.config import PRESETS
from rmr_gym.models.objects import Decoded
from rmr_gym.models.rmr.processors import CORES, PassiveProcessor

WALLS = torch.full((4, 1), 0.9)
SMALL = PixelModel(BallsModel(dim=16), slot_dim=8, channels=4, decoder_channels=4, grid=4)


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
    out = balls.next_positions(model, x)
    assert out.shape == (3, 4, 2)
    out.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.encoder.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("core", ["mpnn", "deep_sets", "interaction"])
def test_the_order_of_the_balls_does_not_matter(core):
    model, x, order = pipeline(core=core), past(), torch.tensor([2, 0, 3, 1])
    moved = balls.next_positions(model, x[:, :, order])
    torch.testing.assert_close(moved, balls.next_positions(model, x)[:, order])


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
    torch.testing.assert_close(balls.next_positions(model, x), expected(x))
    torch.nn.init.ones_(model.decoder.bias)
    scale = 1.0 if predict == "position" else balls.FRAME
    torch.testing.assert_close(balls.next_positions(model, x), expected(x) + scale)


def test_motion_is_seen_in_units_a_second():
    model, x = pipeline(predict="acceleration"), past()
    velocities = [(x[:, 2] - x[:, 1]) / 0.05, (x[:, 1] - x[:, 0]) / 0.05]
    seen = torch.cat([x[:, 2], *velocities], -1)
    expected = seen @ model.encoder.weight.T + model.encoder.bias
    torch.testing.assert_close(model.encoder(x), expected)


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


def data_of(seen, lengths, ahead=1):
    column = "pixels" if seen.dtype == torch.uint8 else "state"
    episode = np.repeat(np.arange(len(lengths)), np.array(lengths) - 1)
    return balls.balls_data(Transitions({column: seen.numpy()}, None, episode), column, ahead)


def test_windows_never_cross_an_episode():
    positions = torch.arange(2.0 * 7)[:, None, None].expand(-1, 1, 2)
    data = data_of(positions, [7, 7], ahead=2)
    seen = balls.windows(data, np.arange(len(data.current)), ahead=2)[..., 0, 0]
    assert seen[:, 0].tolist() == [0, 1, 2, 7, 8, 9]
    torch.testing.assert_close(seen, seen[:, :1] + torch.arange(5))


def test_too_short_episodes_are_refused():
    with pytest.raises(RMRError, match="13 instants or more, found at most 12"):
        data_of(torch.zeros(24, 3, 2), [12, 12], ahead=10)


def test_rollout_feeds_predictions_back():
    x = past()
    out = balls.rollout(lambda seen: seen[:, 2] + seen[:, 1] - seen[:, 0], x, 3)
    first = x[:, 2] + x[:, 1] - x[:, 0]
    second = first + x[:, 2] - x[:, 1]
    third = second + first - x[:, 2]
    torch.testing.assert_close(out, torch.stack([first, second, third], 1))


def test_rollout_loss_reaches_through_all_instants():
    model, x = pipeline(predict="acceleration"), past()
    predict = partial(balls.next_positions, model)
    window = torch.cat([x, torch.zeros(3, 2, 4, 2)], dim=1)
    loss = balls.rollout_loss(predict, window)
    torch.testing.assert_close(loss, balls.rollout(predict, x, 2).square().mean())
    through = torch.autograd.grad(loss, model.decoder.bias)[0]
    last_only = balls.rollout_loss(predict, window[:, :4]) / 2
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


def pixels(seed=0, **changes):
    model = PixelModel(**(SMALL.__dict__ | changes))
    processor = balls.make_balls_processor(model.processor, seed, 3)
    return balls.pixel_pipeline(model, processor, seed, resolution=16, balls=3)


def numbered(lengths):
    """Frames whose colour is their row, so that a window shows where it came from."""
    rows = torch.arange(sum(lengths), dtype=torch.uint8)
    return data_of(rows[:, None, None, None].expand(-1, 16, 16, 3).contiguous(), lengths)


def test_windows_of_frames_never_cross_episodes():
    data = numbered([5, 4, 3])
    assert data.current.tolist() == [2, 3, 7]
    seen = (balls.windows(data, np.arange(3))[:, :, 0, 0, 0] * 255).round().int()
    assert seen.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7, 8]]
    with pytest.raises(RMRError, match="4 instants or more, found at most 3"):
        numbered([3, 2])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_pipeline_predicts_frames_and_trains_all_but_a_frozen_p(precision):
    model = pixels(precision=precision)
    model.processor.requires_grad_(False)
    past = torch.rand(2, 3, 16, 16, 3)
    decoded = model(past)
    assert decoded.frame.shape == (2, 16, 16, 3)
    assert decoded.frame.dtype == decoded.masks.dtype == torch.float32
    decoded.frame.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("processor."), name


def test_p_stands_between_encoder_and_decoder():
    model, past = pixels(), torch.rand(1, 3, 16, 16, 3)
    before = model(past).frame
    still = balls.still(model, past[:, 2:]).frame
    with torch.no_grad():
        for parameter in model.processor.parameters():
            parameter.mul_(2)
    assert not torch.allclose(before, model(past).frame)
    torch.testing.assert_close(still, balls.still(model, past[:, 2:]).frame)


def test_a_still_is_decoded_from_its_own_slots_handed_on():
    model, clip = pixels(), torch.rand(2, 3, 16, 16, 3)
    shown = balls.still(model, clip).frame.unflatten(0, (2, 3))
    for instant, slots in enumerate(model.encoder.encoder(clip).unbind(1)):
        latents = model.encoder.join(torch.cat([slots, slots, slots], dim=-1))
        torch.testing.assert_close(shown[:, instant], model.decoder(latents).frame)


def test_places_and_colours_of_the_last_frame_reach_the_decoder_to_begin_with():
    model, past = pixels(), torch.rand(1, 3, 16, 16, 3)
    slots = model.encoder.encoder(past)
    latents = model.encoder.join(torch.cat(slots.unbind(1), dim=-1))
    torch.testing.assert_close(model.decoder.position(latents), slots[:, -1, :, -5:-3])
    torch.testing.assert_close(model.decoder.colour(latents), slots[:, -1, :, -3:])


def test_equal_seeds_share_all_but_p():
    first, second, other = pixels(1), pixels(1), pixels(2)
    second.processor = PassiveProcessor(())
    own = {k: v for k, v in first.state_dict().items() if not k.startswith("processor.")}
    assert own.keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in own.items())
    assert not torch.equal(own["encoder.join.weight"], other.state_dict()["encoder.join.weight"])


def test_owners_agree_with_the_simulator():
    env = gym.make_vec("rmr/BouncingBalls-v0", num_envs=3, threads=1, resolution=32, masks=True)
    observation, info = env.reset(seed=0)
    env.close()
    found = balls.owners(observation["state"], np.full(10, 0.15, np.float32), 32)
    truth = info["masks"]
    assert set(np.unique(found)) == set(range(11))
    assert (found == truth).mean() > 0.97
    both = (found > 0) & (truth > 0)
    assert (found == truth)[both].mean() > 0.99


def test_scores_of_a_copy_equal_the_copy_baseline(monkeypatch):
    """A pipeline that shows the last frame again, and owns its left and its right half."""
    frames = torch.zeros(8, 16, 16, 3, dtype=torch.uint8)
    for row in range(8):
        frames[row, :, row : row + 4] = 255
    data = data_of(frames, [8])
    masks = torch.zeros(1, 2, 16, 16)
    masks[:, 0, :, :8] = masks[:, 1, :, 8:] = 1

    def copy(self, past):
        last = past[:, -1]
        shape = (len(last), -1, -1, -1)
        return Decoded(last, masks.expand(*shape), last[:, None].expand(-1, 2, -1, -1, -1))

    model = pixels()
    monkeypatch.setattr(type(model), "forward", copy)
    truth = np.ones((5, 16, 16), np.uint8)
    truth[:, :, 8:] = 2
    scores = balls.score_frames(model, data, np.arange(5), truth)
    assert scores.mse == scores.copy_mse == pytest.approx(2 / 16)
    assert scores.ratio_to_copy == scores.ari == 1
    truth[:, 8:] = 0
    assert balls.score_frames(model, data, np.arange(5), truth).ari == 1, (
        "the background does not count"
    )
    truth[:, :, ::2] = 3
    assert balls.score_frames(model, data, np.arange(5), truth).ari < 0.5
    assert np.isnan(balls.score_frames(model, data, np.arange(5)).ari)


def test_slots_that_add_up_show_nothing_alone(monkeypatch):
    """Two slots show half of each pixel; then one of them shows all of it."""
    frames = torch.zeros(6, 16, 16, 3, dtype=torch.uint8)
    for row in range(6):
        frames[row, :, row : row + 4] = 255
    data, share = data_of(frames, [6]), torch.tensor([0.4, 0.6])

    def shown(brightness, _, clip):
        seen = clip.flatten(0, 1)
        masks = share.view(1, 2, 1, 1).expand(len(seen), 2, 16, 16)
        return Decoded(seen, masks, torch.stack([seen, brightness * seen], dim=1))

    for brightness, error in ((1.0, 0.0), (0.0, 2.0), (0.5, 0.5)):
        monkeypatch.setattr(balls, "still", partial(shown, brightness))
        found = balls.alone_error(pixels(), data, np.arange(3))
        assert found == pytest.approx(error), "white: 4 of 16 columns; moved: 2 of them"


def test_rollouts_of_frames_go_on_from_what_was_predicted():
    past = torch.rand(2, 3, 16, 16, 3)
    model = pixels()
    frames, masks = balls.imagine(model, past, 3)
    assert frames.shape == (2, 3, 16, 16, 3)
    assert masks.shape == (2, 3, 4, 16, 16)
    second = model(torch.cat([past[:, 1:], frames[:, :1]], dim=1)).frame.clamp(0, 1)
    torch.testing.assert_close(frames[:, 1], second)


def test_pixels_learn_one_batch():
    model = pixels()
    generator = torch.Generator().manual_seed(0)
    clip = torch.rand(2, 4, 1, 1, 3, generator=generator).expand(-1, -1, 16, 16, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = (model(clip[:, :3]).frame - clip[:, 3]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_an_unknown_precision_is_refused():
    with pytest.raises(RMRError, match="precision"):
        PixelModel(precision="fp16")


def test_an_aligned_pipeline_puts_pictures_where_the_abstract_one_says():
    model = SMALL.processor
    abstract = balls.abstract_pipeline(model, 1, 3)
    frames = balls.pixel_pipeline(SMALL, abstract.processor, 0, resolution=16, balls=3)
    before = deepcopy(frames)
    balls.align(frames, abstract.state_dict(), 0)
    slots = torch.randn(
        2, 3, 4, frames.encoder.encoder.width, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        stills = [before.encoder.join(torch.cat([each] * 3, dim=-1)) for each in slots.unbind(1)]
        places = torch.stack([before.decoder.position(still) for still in stills], dim=1)
        latents = frames.encoder.join(torch.cat(slots.unbind(1), dim=-1))
        for name, expected in {
            "position": abstract.decoder(abstract.encoder(places)),
            "colour": before.decoder.colour(stills[-1]),
            "content": before.decoder.content(stills[-1]),
        }.items():
            read = getattr(frames.decoder, name)(latents)
            assert torch.allclose(read, expected, atol=1e-4), name


def test_what_cannot_be_aligned_is_refused():
    narrow = replace(SMALL, processor=BallsModel(dim=15))
    abstract = balls.abstract_pipeline(narrow.processor, 0, 3)
    frames = balls.pixel_pipeline(narrow, abstract.processor, 0, resolution=16, balls=3)
    with pytest.raises(RMRError, match="latents of 16 or more, found 15"):
        balls.align(frames, abstract.state_dict(), 0)
    other = replace(SMALL, decoder="broadcast")
    frames = balls.pixel_pipeline(other, abstract.processor, 0, resolution=16, balls=3)
    with pytest.raises(RMRError, match="found BroadcastDecoder"):
        balls.align(frames, abstract.state_dict(), 0)


def test_windows_ahead_are_followed_by_their_episode():
    data = data_of(torch.zeros(13, 4, 4, 3, dtype=torch.uint8), [6, 7])
    reach = [(row, row + 3) for row in data.current[balls.windows_ahead(data, 3)]]
    assert reach == [(2, 5), (8, 11), (9, 12)]


def test_places_of_pushed_balls_are_seen_in_pixels_and_keep_their_rows():
    envs = gym.make_vec("rmr/PushedBalls-v0", num_envs=8, threads=1, resolution=32)
    seen, places = envs.reset(seed=3)[0], None
    for step in range(25):
        before, places = places, balls.seen_places(torch.from_numpy(seen["pixels"]), places)
        true = torch.from_numpy(seen["state"])
        assert (places - true)[:, :2].norm(dim=-1).max() < 0.02
        away = torch.cdist(places[:, 2:], true[:, 2:]).min(dim=-1)
        assert away.values.max() < 0.02
        assert (away.indices.sort().values == torch.arange(3)).all()
        if before is not None:
            assert (places - before).norm(dim=-1).max() < 0.4
        seen = envs.step(np.full(8, step % 5))[0]
    envs.close()


def test_velocities_are_kept_but_for_walls_and_pushes():
    first = torch.tensor([[0.0, 0.0], [0.7, 0.5]])
    way = torch.tensor([[0.0, 0.0], [0.1, 0.0]])
    window = torch.stack([first, first + way / 2, first + way])[None, [0, 1, 2]]
    future = balls.extrapolated(window, torch.tensor([[1, 0, 2]]))
    kick = balls.KICK
    expected = torch.tensor([[kick, 0], [2 * kick, 0], [3 * kick, kick]])
    torch.testing.assert_close(future[0, :, 0], expected)
    torch.testing.assert_close(future[0, :, 1, 0], torch.tensor([0.85, 0.8, 0.75]))


def test_what_is_known_of_pushed_balls_is_so():
    config = PRESETS["pushed"].config
    assert (*balls.PALETTE,) == (*config.palette()[:-1],)
    assert config.radii == balls.RADIUS
    assert config.push / config.masses / config.fps == balls.KICK
    env = gym.make("rmr/PushedBalls-v0", observe=["velocities"], speeds=(0.01, 1.5))
    for action, push in enumerate(balls.PUSHES.numpy()):
        before = env.reset(seed=1)[0]["velocities"][0]
        after = env.step(action)[0]["velocities"][0]
        np.testing.assert_allclose(after - before, config.push * push, atol=1e-5)
