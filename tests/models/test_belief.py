import copy
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.belief import (
    LEAST,
    CompactReader,
    Filter,
    Fusion,
    LatentCopy,
    LatentFilter,
    LatentGRU,
    LatentTransition,
    PixelReader,
    follow,
    hidden_bytes,
    log_odds,
    opened,
    predicted,
    remembered,
    unknown,
)
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, RamDecoder, RamEncoder, build_seeded
from rmr_gym.models.rmr.processors import make_processor

SLOTS, BITS = 3, 8


def bits_of(rows, seed=0):
    return (np.random.default_rng(seed).random((rows, SLOTS, BITS)) > 0.5).astype(np.float32)


def pipeline(dim=4):
    def make():
        processor = make_processor("mpnn", slots=SLOTS, actions=18, dim=dim)
        return EncodeProcessDecode(RamEncoder(SLOTS, BITS, dim), processor, RamDecoder(dim, BITS))

    return build_seeded(make, 0, "test")


def test_the_prior_writes_bytes_by_the_mask_and_keeps_the_belief_elsewhere():
    model = pipeline()
    belief, action = torch.from_numpy(bits_of(5)), torch.arange(5)
    logits = model(belief, action)
    mask = torch.sigmoid(logits.mask)[..., None]
    expected = mask * torch.sigmoid(logits.bits) + (1 - mask) * belief
    prior = predicted(model, belief, action, batch=2)
    torch.testing.assert_close(torch.sigmoid(prior), expected.clamp(LEAST, 1 - LEAST))


def test_controls_remember_or_know_nothing():
    belief, action = torch.from_numpy(bits_of(4)), torch.zeros(4, dtype=torch.long)
    assert ((remembered(belief, action) > 0) == (belief > 0)).all()
    assert not unknown(belief, action).any()


def test_no_bit_is_surer_than_it_may_be():
    assert log_odds(torch.tensor([0.0, 1.0]), 0.1).tolist() == pytest.approx(
        [-2.1972, 2.1972], 1e-4
    )


def test_the_fusion_is_the_logistic_regression_of_its_seven_terms():
    rng = np.random.default_rng(0)
    shape = (8000, SLOTS, BITS)
    prior, alone, evidence = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    age = rng.integers(1, 100, len(prior))
    young = np.where(age <= 64, np.exp((1 - age) / 16), 0)[:, None, None]
    wanted = 2 * prior + evidence + young * (3 * alone - prior)
    truth = (wanted + rng.logistic(size=shape) > 0.5).astype(np.float32)
    fusion = Fusion(SLOTS, BITS)
    given = map(torch.from_numpy, (prior, alone, evidence, truth, age))
    fusion.fit(*given)
    terms = [prior, evidence, np.abs(prior) * evidence, young * prior, young * evidence]
    terms = np.stack([*terms, young * alone], -1)[:, 1, 2]
    reference = LogisticRegression(C=1e6, tol=1e-8, max_iter=1000).fit(terms, truth[:, 1, 2])
    ours = fusion.weight[1, 2].numpy()
    np.testing.assert_allclose(np.delete(ours, 2), reference.coef_[0], rtol=0.03, atol=0.02)
    np.testing.assert_allclose(ours[2], reference.intercept_[0], rtol=0.03, atol=0.02)
    told = fusion(*(torch.from_numpy(part) for part in (prior, alone, evidence, age)))
    assert ((told > 0).numpy() == (wanted > 0.5)).mean() > 0.95


def test_bits_that_never_vary_leave_the_fit_finite():
    zeros = torch.zeros(20, SLOTS, BITS)
    fusion = Fusion(SLOTS, BITS)
    ages = torch.arange(20)
    fusion.fit(zeros - 9, zeros, zeros, zeros, ages)
    assert torch.isfinite(fusion.weight).all()
    assert torch.isfinite(fusion.trust).all()
    assert (fusion(zeros + 9, zeros + 9, zeros, ages) < 0).all()


def test_a_young_belief_trusts_its_prior_and_an_old_one_the_frame():
    """The prior is true for two steps and noise afterwards; frames are right four times in five."""
    rng = np.random.default_rng(0)
    age = np.repeat(np.arange(1, 65), 50)
    truth = rng.integers(0, 2, (len(age), SLOTS, BITS))
    right, noise = np.where(truth, 3.0, -3.0), rng.choice([-3.0, 3.0], truth.shape)
    prior = np.where((age <= 2)[:, None, None], right, noise)
    evidence = np.where(rng.random(truth.shape) < 0.8, right, -right) / 6
    given = [torch.from_numpy(part).float() for part in (prior, 0 * prior, evidence, truth)]
    fusion = Fusion(SLOTS, BITS)
    fusion.fit(*given, torch.from_numpy(age))
    assert (fusion.trust[:2, 0] > 0.2).all()
    told = (fusion(*given[:3], torch.from_numpy(age)) > 0).numpy() == truth
    assert told[age <= 2].mean() > 0.99
    assert told[age > 2].mean() > 0.79


def test_an_age_that_was_not_met_is_joined_as_the_weights_say():
    fusion, rows = Fusion(SLOTS, BITS), torch.from_numpy(bits_of(40)) - 0.5
    fusion.fit(rows, rows, rows, (rows > 0).float(), torch.full((40,), 3))
    assert fusion.trust[0].tolist() == [0, 1]
    assert fusion.trust[2].tolist() != [0, 1]


def test_the_reader_is_ridge_regression():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (40, 6, 5), dtype=np.uint8)
    bits = bits_of(40)
    reader = PixelReader(6, 5, SLOTS, BITS).fit(
        torch.from_numpy(frames), torch.from_numpy(bits), 0.1
    )
    flat = frames.reshape(40, -1).astype(np.float64)
    scaled = (flat - flat.mean(0)) / 64
    strength = 0.1 * np.square(scaled).sum(1).mean()
    reference = Ridge(alpha=strength, fit_intercept=False)
    reference.fit(scaled, bits.reshape(40, -1) - bits.reshape(40, -1).mean(0))
    expected = reference.predict(scaled).reshape(40, SLOTS, BITS)
    np.testing.assert_allclose(reader(torch.from_numpy(frames), chunk=7), expected, atol=1e-4)


def test_a_reader_is_fitted_to_frames_that_hardly_differ():
    """Of few pictures again and again, single precision makes a matrix that has no factor."""
    rng = np.random.default_rng(0)
    few, picked = rng.integers(0, 256, (4, 20, 20), dtype=np.uint8), np.arange(300) % 4
    bits = bits_of(4)
    frames, truth = torch.from_numpy(few[picked]), torch.from_numpy(bits[picked])
    reader = PixelReader(20, 20, SLOTS, BITS).fit(frames, truth, 1e-9)
    read = reader(torch.from_numpy(few)) + reader.mean
    np.testing.assert_allclose(read, bits, atol=1e-3)


def test_a_filter_carries_its_own_belief_and_not_the_truth():
    """Prior: every bit flips. Evidence is silent; the last step's overrules it."""
    met = []

    def flip(belief, action):
        met.append((belief, action))
        return log_odds(1 - belief)

    start = torch.from_numpy(bits_of(2))
    silent = torch.zeros_like(start)
    loud = 100 * (torch.ones_like(start) - 0.5)
    actions = [torch.tensor([step, step]) for step in range(3)]
    unseen = [torch.zeros_like(start)] * 3
    _, beliefs = follow(flip, Fusion(SLOTS, BITS), start, actions, [silent, silent, loud], unseen)
    torch.testing.assert_close(met[1][0], 1 - start)
    torch.testing.assert_close(met[2][0], start)
    assert [int(action[0]) for _, action in met] == [0, 1, 2]
    assert (beliefs[2] > 0).all()


def test_an_action_is_needed_before_each_frame():
    start = torch.from_numpy(bits_of(2))
    with pytest.raises(RMRError, match=r"got 0 actions and 1 frames"):
        follow(remembered, Fusion(SLOTS, BITS), start, [], [start], [])


def test_a_transition_alone_goes_on_from_its_own_bits_for_64_steps():
    start, steps = torch.from_numpy(bits_of(2)), 70
    flipped = opened(
        lambda bits, action: log_odds(1 - bits), start, [torch.zeros(2, dtype=torch.int)] * steps
    )
    assert len(flipped) == steps
    for ahead, found in enumerate(flipped, 1):
        if ahead <= 64:
            torch.testing.assert_close(torch.sigmoid(found).round(), (ahead % 2 - start).abs())
        else:
            assert not found.any()


def test_hidden_bytes_are_those_that_are_read_badly():
    bits = torch.from_numpy(bits_of(200))
    evidence = bits - 0.5
    evidence[:, 1] = torch.from_numpy(bits_of(200, seed=1))[:, 1] - 0.5
    hidden = hidden_bytes(evidence, torch.full((SLOTS, BITS), 0.5), bits, 0.9)
    assert hidden.tolist() == [False, True, False]


@torch.no_grad()
def test_a_compact_reader_keeps_to_the_evidence_of_the_other():
    """Two bits of 24 hang on pictures: two directions, more only where less may be lost."""
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (60, 6, 5), dtype=np.uint8))
    bits = torch.zeros(60, SLOTS, BITS)
    bits[:, 0, 0], bits[:, 1, 3] = (frames[:, y, 0].float() / 255 for y in (0, 1))
    reader = PixelReader(6, 5, SLOTS, BITS).fit(frames, bits, 1e-4)
    compact = CompactReader.of(reader, frames, 0.02)
    assert compact.pixels.shape == (30, 2)
    assert CompactReader.of(reader, frames, 0.9).pixels.shape == (30, 1)
    fresh = torch.from_numpy(rng.integers(0, 256, (9, 6, 5), dtype=np.uint8))
    torch.testing.assert_close(compact(fresh), reader(fresh), atol=0.01, rtol=0)
    torch.testing.assert_close(compact.mean, reader.mean)
    seen = compact(fresh)
    state = {name: tensor.clone() for name, tensor in compact.state_dict().items()}
    compact.pixels.neg_()
    assert not torch.equal(compact(fresh), seen)
    compact.load_state_dict(state)
    assert torch.equal(compact(fresh), seen)
    assert torch.equal(copy.deepcopy(compact)(fresh), seen)


@torch.no_grad()
def test_a_compact_reader_reads_a_screen_that_is_brighter_as_a_whole():
    """A game's first screen often is; what rounding does to single pixels must not add up."""
    rng = np.random.default_rng(0)
    bit = rng.integers(0, 2, 60)
    screens = 40 + rng.integers(0, 10, (60, 84, 84))
    screens[:, 40, 40] = 100 * bit
    frames, bits = torch.from_numpy(screens.astype(np.uint8)), torch.zeros(60, SLOTS, BITS)
    bits[:, 0, 0] = torch.from_numpy(bit).float()
    reader = PixelReader(84, 84, SLOTS, BITS).fit(frames, bits, 0.1)
    compact = CompactReader.of(reader, frames, 0.02)
    torch.testing.assert_close(compact(frames + 100), reader(frames + 100), atol=0.04, rtol=0)


def test_a_filter_step_by_step_is_the_track():
    model, rng = pipeline(), np.random.default_rng(0)
    fusion = Fusion(SLOTS, BITS)
    fusion.weight.copy_(torch.from_numpy(rng.normal(size=(SLOTS, BITS, 7))))
    fusion.trust.copy_(torch.from_numpy(rng.normal(size=fusion.trust.shape)))
    carried = Filter(model.processor, SLOTS, BITS, 4)
    carried.pipeline, carried.fusion = model, fusion
    start = torch.from_numpy(bits_of(2))
    actions = [torch.tensor([step % 18, 17 - step % 18]) for step in range(66)]
    seen = [torch.from_numpy(bits_of(2, seed)) - 0.5 for seed in range(66)]
    predict = partial(predicted, model)
    alone = opened(predict, start, actions)
    _, beliefs = follow(predict, fusion, start, actions, seen, alone)
    belief = unseen = start - 0.5
    steps = zip(actions, seen, beliefs, strict=True)
    for age, (action, evidence, expected) in enumerate(steps, 1):
        belief, unseen = carried(belief, unseen, action, evidence, torch.tensor([age, age]))
        torch.testing.assert_close(belief, expected)


def test_a_latent_transition_of_bits_is_the_transition_of_bits_encoded():
    model, action = pipeline(dim=12), torch.arange(5)
    bits = torch.from_numpy(bits_of(5))
    found = LatentTransition(model)(model.encoder(bits), action)
    expected = model.encoder(torch.sigmoid(predicted(model, bits, action)))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
    unsure = model.encoder(0.3 + 0.4 * bits).detach().requires_grad_()
    again = LatentTransition(model)(unsure, action)
    torch.testing.assert_close(again, expected, atol=2e-3, rtol=2e-3)
    again.square().sum().backward()
    assert unsure.grad.abs().sum() > 0


class Looked(torch.nn.Module):
    """An encoder whose latents are the frame's first pixels."""

    def forward(self, frames):
        return frames.flatten(1)[:, : SLOTS * 4].float().unflatten(1, (SLOTS, 4))


def latent_filter(transition):
    return LatentFilter(Looked(), transition, torch.zeros(SLOTS, 4), 1.0)


def test_a_gate_a_slot_joins_what_is_predicted_and_what_is_seen():
    carried = latent_filter(LatentCopy())
    with torch.no_grad():
        carried.offset.copy_(torch.tensor([-50.0, 0.0, 50.0]))
    prior, seen = torch.zeros(2, SLOTS, 4), torch.ones(2, SLOTS, 4)
    expected = torch.tensor([0.0, 0.5, 1.0])[:, None].expand(2, SLOTS, 4)
    torch.testing.assert_close(carried.correct(prior, seen), expected)


def test_the_loss_is_small_where_the_frame_that_comes_is_foreseen_and_large_for_copies():
    """Frames count upwards by an action's number, which a copy does not."""

    class Counts(torch.nn.Module):
        def forward(self, belief, action):
            return belief + 9.0 * action[:, None, None]

    step = torch.ones(5, 2, dtype=torch.int64)
    height = torch.arange(6)[:, None] * 9 + torch.tensor([0, 120])
    frames = height.to(torch.uint8)[..., None, None].expand(6, 2, 4, 4)
    start = height[0].float()[:, None, None].expand(2, SLOTS, 4)
    foreseen, belief = latent_filter(Counts())(start, step, frames, 3)
    copied, _ = latent_filter(LatentCopy())(start, step, frames, 3)
    assert foreseen < 1e-3
    assert copied > 100
    torch.testing.assert_close(belief, height[5].float()[:, None, None].expand(2, SLOTS, 4))
    one, _ = latent_filter(Counts())(start, step, frames[:, :, :1].expand(6, 2, 4, 4), 1)
    assert one < 1e-3


def test_every_weight_of_a_filter_learns():
    gru = build_seeded(lambda: LatentGRU(18, 4), 0, "test")
    carried = latent_filter(gru)
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (4, 2, 4, 4), np.uint8))
    loss, _ = carried(carried.begin(frames[0]), torch.ones(3, 2, dtype=torch.int64), frames, 2)
    loss.backward()
    for name, weight in carried.named_parameters():
        assert weight.grad.abs().sum() > 0, name
