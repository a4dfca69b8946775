from copy import deepcopy
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import rmr_gym  # noqa: F401
from rmr_gym.core.errors import RMRError
from rmr_gym.domains.balls import BallsModel, abstract_pipeline, make_balls_processor
from rmr_gym.domains.balls_natural import (
    PixelModel,
    align,
    clips,
    frame_data,
    imagine,
    owners,
    pixel_pipeline,
    score_frames,
)
from rmr_gym.models.objects import Decoded

SMALL = PixelModel(BallsModel(dim=16), slot_dim=8, channels=4, decoder_channels=4, grid=4)


def pipeline(seed=0, **changes):
    model = PixelModel(**(SMALL.__dict__ | changes))
    processor = make_balls_processor(model.processor, seed, 3)
    return pixel_pipeline(model, processor, seed, resolution=16, balls=3)


def numbered(lengths):
    """Frames whose colour is their row, so that a window shows where it came from."""
    rows = torch.arange(sum(lengths), dtype=torch.uint8)
    return frame_data(rows[:, None, None, None].expand(-1, 16, 16, 3).contiguous(), lengths)


def test_windows_never_cross_episodes():
    data = numbered([5, 4, 3])
    assert data.current.tolist() == [2, 3, 7]
    seen = (clips(data, np.arange(3))[:, :, 0, 0, 0] * 255).round().int()
    assert seen.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7, 8]]
    with pytest.raises(RMRError, match="at least 4 instants, found at most 3"):
        numbered([3, 2])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_pipeline_predicts_frames_and_trains_all_but_a_frozen_p(precision):
    model = pipeline(precision=precision)
    model.processor.requires_grad_(False)
    past = torch.rand(2, 3, 16, 16, 3)
    decoded = model(past)
    assert decoded.frame.shape == (2, 16, 16, 3)
    assert decoded.frame.dtype == decoded.masks.dtype == torch.float32
    decoded.frame.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("processor."), name


def test_p_stands_between_encoder_and_decoder():
    model, past = pipeline(), torch.rand(1, 3, 16, 16, 3)
    before = model(past).frame
    still = model.still(past[:, 2:]).frame
    with torch.no_grad():
        for parameter in model.processor.parameters():
            parameter.mul_(2)
    assert not torch.allclose(before, model(past).frame)
    torch.testing.assert_close(still, model.still(past[:, 2:]).frame)


def test_a_still_is_decoded_from_its_own_slots_handed_on():
    model, clip = pipeline(), torch.rand(2, 3, 16, 16, 3)
    shown = model.still(clip).frame.unflatten(0, (2, 3))
    for instant, slots in enumerate(model.encoder(clip).unbind(1)):
        latents = model.join(torch.cat([slots, slots, slots], dim=-1))
        torch.testing.assert_close(shown[:, instant], model.decoder(latents).frame)


def test_places_and_colours_of_the_last_frame_reach_the_decoder_to_begin_with():
    model, past = pipeline(), torch.rand(1, 3, 16, 16, 3)
    slots = model.encoder(past)
    latents = model.join(torch.cat(slots.unbind(1), dim=-1))
    torch.testing.assert_close(model.decoder.position(latents), slots[:, -1, :, -5:-3])
    torch.testing.assert_close(model.decoder.colour(latents), slots[:, -1, :, -3:])


def test_equal_seeds_share_all_but_p():
    first, second, other = pipeline(1), pipeline(1), pipeline(2)
    second.processor = nn.Identity()
    own = {k: v for k, v in first.state_dict().items() if not k.startswith("processor.")}
    assert own.keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in own.items())
    assert not torch.equal(own["join.weight"], other.state_dict()["join.weight"])


def test_owners_agree_with_the_simulator():
    env = gym.make_vec("rmr/BouncingBalls-v0", num_envs=3, threads=1, resolution=32, masks=True)
    observation, info = env.reset(seed=0)
    env.close()
    found = owners(observation["state"], np.full(10, 0.15, np.float32), 32)
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
    data = frame_data(frames, [8])
    masks = torch.zeros(1, 2, 16, 16)
    masks[:, 0, :, :8] = masks[:, 1, :, 8:] = 1

    def copy(self, past):
        last = past[:, -1]
        shape = (len(last), -1, -1, -1)
        return Decoded(last, masks.expand(*shape), last[:, None].expand(-1, 2, -1, -1, -1))

    model = pipeline()
    monkeypatch.setattr(type(model), "forward", copy)
    truth = np.ones((5, 16, 16), np.uint8)
    truth[:, :, 8:] = 2
    scores = score_frames(model, data, np.arange(5), truth)
    assert scores.mse == scores.copy_mse == pytest.approx(2 / 16)
    assert scores.ratio_to_copy == scores.ari == 1
    truth[:, 8:] = 0
    assert score_frames(model, data, np.arange(5), truth).ari == 1, "the background does not count"
    truth[:, :, ::2] = 3
    assert score_frames(model, data, np.arange(5), truth).ari < 0.5
    assert np.isnan(score_frames(model, data, np.arange(5)).ari)


def test_rollouts_go_on_from_what_was_predicted():
    past = torch.rand(2, 3, 16, 16, 3)
    model = pipeline()
    frames, masks = imagine(model, past, 3)
    assert frames.shape == (2, 3, 16, 16, 3)
    assert masks.shape == (2, 3, 4, 16, 16)
    second = model(torch.cat([past[:, 1:], frames[:, :1]], dim=1)).frame.clamp(0, 1)
    torch.testing.assert_close(frames[:, 1], second)


def test_it_learns_one_batch():
    model = pipeline()
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
    abstract = abstract_pipeline(model, 1, 3)
    pixels = pixel_pipeline(SMALL, abstract.processor, 0, resolution=16, balls=3)
    before = deepcopy(pixels)
    align(pixels, abstract.state_dict(), 0)
    slots = torch.randn(2, 3, 4, pixels.encoder.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stills = [before.join(torch.cat([each] * 3, dim=-1)) for each in slots.unbind(1)]
        places = torch.stack([before.decoder.position(still) for still in stills], dim=1)
        latents = pixels.join(torch.cat(slots.unbind(1), dim=-1))
        for name, expected in {
            "position": abstract.decoder(abstract.encoder(places.transpose(1, 2).flatten(2))),
            "colour": before.decoder.colour(stills[-1]),
            "content": before.decoder.content(stills[-1]),
        }.items():
            read = getattr(pixels.decoder, name)(latents)
            assert torch.allclose(read, expected, atol=1e-4), name


def test_what_cannot_be_aligned_is_refused():
    narrow = replace(SMALL, processor=BallsModel(dim=15))
    abstract = abstract_pipeline(narrow.processor, 0, 3)
    pixels = pixel_pipeline(narrow, abstract.processor, 0, resolution=16, balls=3)
    with pytest.raises(RMRError, match="latents of 16 or more, found 15"):
        align(pixels, abstract.state_dict(), 0)
    other = replace(SMALL, decoder="broadcast")
    pixels = pixel_pipeline(other, abstract.processor, 0, resolution=16, balls=3)
    with pytest.raises(RMRError, match="found BroadcastDecoder"):
        align(pixels, abstract.state_dict(), 0)
