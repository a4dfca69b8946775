"""The ridge probe in single precision gives what a plain one in double precision gives."""

import numpy as np
import pytest
import torch

from rmr_gym.stages import probe as stages
from rmr_gym.stages.games import probe_sets
from rmr_gym.stages.natural import kept_encoder
from rmr_gym.stages.probe import PENALTIES, encode, fitting_rows, split_rows

OTHERS = 5000


def micro_f1(predicted, truth):
    hits = 2 * (predicted & (truth > 0.5)).sum()
    return float(hits / (predicted.sum() + (truth > 0.5).sum()))


def plain_ridge(train, bits, fit, test):
    """Solve for every penalty anew, in double precision and with products of rows."""

    def solved(gram, across, targets, penalty):
        mean = targets.mean(0).double()
        shifted = gram + penalty * torch.eye(len(gram), dtype=gram.dtype)
        return across @ torch.linalg.solve(shifted, targets.double() - mean) + mean > 0.5

    mean = train.double().mean(0)
    centred = train.double() - mean
    gram, across = centred @ centred.T, (test.double() - mean) @ centred.T
    rows, held = split_rows(fit, train.device)
    scale = float(gram.diagonal().mean()) or 1.0
    inside, between = gram[rows][:, rows], gram[held][:, rows]
    scores = [
        micro_f1(solved(inside, between, bits[rows], penalty * scale), bits[held])
        for penalty in PENALTIES
    ]
    return solved(gram, across, bits, PENALTIES[int(np.argmax(scores))] * scale)


def drawn(rows, width, rank, noise, loud=1.0):
    """Features of some rank, the first direction the loudest, and bits that they tell."""
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows + OTHERS, rank, generator=rng)
    mixing = torch.randn(rank, width, generator=rng) * torch.logspace(0, -2, rank)[:, None]
    mixing[0] *= loud
    features = hidden @ mixing + 1e-3 * torch.randn(rows + OTHERS, width, generator=rng)
    told = hidden @ torch.randn(rank, 24, generator=rng)
    bits = (told + noise * torch.randn(rows + OTHERS, 24, generator=rng) > 1).float()
    return features[:rows], bits[:rows], features[rows:], bits[rows:]


@pytest.mark.parametrize(
    ("sizes", "single"),
    [
        ((600, 900, 300, 0.0), True),
        ((600, 900, 300, 4.0), True),
        ((600, 900, 60, 4.0), False),  # of low rank: small penalties are nearly as good
        ((600, 900, 300, 4.0, 300.0), False),  # one direction drowns the others in rounding
        ((600, 40, 40, 4.0), False),  # fewer features than rows
    ],
)
def test_predictions_are_those_of_double_precision(sizes, single):
    train, bits, test, truth = drawn(*sizes)
    fit = fitting_rows(np.arange(len(train)) % 8, 0)
    predicted = stages._ridge(train, bits, fit, test, 0)
    expected = plain_ridge(train, bits, fit, test)
    assert micro_f1(predicted, truth) == pytest.approx(micro_f1(expected, truth), abs=1e-4)
    parts = (train, bits, *split_rows(fit, train.device), test)
    assert (stages._ridge_in(torch.float32, *parts) is not None) == single


def test_so_are_those_of_encoders(game, chain):
    sets = probe_sets(game.data, game.preset.model, game.preset.probing)
    artifact = chain.compute(game.trained("rmr", 0))
    encoder = kept_encoder(game.preset.model, artifact, 4)
    train, test = encode(encoder, sets.training.frames), encode(encoder, sets.test.frames)
    bits = torch.from_numpy(sets.training.bits).flatten(1).float()
    fit = fitting_rows(sets.training.episode, 0)
    expected = plain_ridge(train, bits, fit, test)
    assert torch.equal(stages._ridge(train, bits, fit, test, 0), expected)


def test_constant_features_predict_the_commoner_bit():
    bits = torch.tensor([[1.0, 0.0] * 4] * 9 + [[0.0, 1.0] * 4] * 3)
    fit = fitting_rows(np.arange(12) % 4, 0)
    for width in (3, 30):
        features = torch.ones(12, width)
        predicted = stages._ridge(features, bits, fit, features, 0)
        assert torch.equal(predicted, torch.tensor([[True, False] * 4]).expand(12, 8))
