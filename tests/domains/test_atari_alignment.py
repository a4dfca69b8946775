from itertools import product

import numpy as np
import torch

from rmr_gym.domains.atari import (
    AbstractData,
    AbstractLatents,
    AtariModel,
    NaturalData,
    abstract_latents,
    match_moments,
    pixel_encoder,
)
from rmr_gym.models.rmr.pipeline import RamEncoder, build, torch_generator

MODEL = AtariModel(dim=3, trunk="nature", height=84, width=84)


def made_latents(rows=400, dim=3):
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(128, dim, dim, generator=generator)
    z = torch.randn(rows, 128, dim, generator=generator) @ mixing.permute(0, 1, 2)[None, 0]
    z = z + torch.randn(128, dim, generator=generator)
    return AbstractLatents(z, z.roll(1, 0))


def test_the_encoder_gets_the_abstract_mean_and_covariance_of_every_slot():
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 255, (300, 84, 84), dtype=np.uint8))
    data = NaturalData(
        frames, torch.zeros(299, dtype=torch.int64), np.arange(299), np.zeros(299, int),
        frames.float().mean(0), 50.0,
    )  # fmt: skip
    encoder = pixel_encoder(MODEL, 0, affine=True)
    encoder.standardise_by(data.mean_frame, data.deviation)
    latents = made_latents()
    match_moments(encoder, data.frames, latents)
    with torch.no_grad():
        z = encoder(frames).double()
    target = latents.current.double()
    assert torch.allclose(z.mean(0), target.mean(0), atol=1e-3)
    for slot in (0, 17, 127):
        found, wanted = (torch.cov(each[:, slot].T, correction=0) for each in (z, target))
        assert torch.allclose(found, wanted, atol=0.05 * float(wanted.diagonal().mean()))


def test_cells_that_never_change_leave_their_slots_alive():
    latents = made_latents()
    latents.current[:, 5] = 1.0
    frames = torch.randint(0, 255, (200, 84, 84), dtype=torch.uint8)
    data = NaturalData(
        frames, torch.zeros(199, dtype=torch.int64), np.arange(199), np.zeros(199, int),
        frames.float().mean(0), 50.0,
    )  # fmt: skip
    encoder = pixel_encoder(MODEL, 0, affine=True)
    encoder.standardise_by(data.mean_frame, data.deviation)
    match_moments(encoder, data.frames, latents)
    with torch.no_grad():
        assert float(encoder(frames)[:, 5].var(0).sum()) > 1e-4


def test_abstract_latents_are_of_transitions_in_random_order():
    rows = list(product((0, 1), repeat=3))
    bits = np.zeros((len(rows), 128, 8), np.uint8)
    bits[:, 0, :3] = rows
    ram = np.zeros((len(rows), 128), np.uint8)
    data = AbstractData(bits, np.arange(7), np.arange(7), ram)
    encoder = build(lambda: RamEncoder(128, 8, 3), torch_generator(0))
    latents = abstract_latents(encoder, data, rows=5)
    with torch.no_grad():
        known = encoder(torch.from_numpy(bits).float())
    order = [int((known == row).all((1, 2)).nonzero()) for row in latents.current]
    assert len(set(order)) == 5
    assert order != sorted(order)
    assert torch.equal(latents.following, known[[row + 1 for row in order]])
