import math

import pytest
import torch

from rmr_gym.models.rmr.pipeline import (
    LatentDecoder,
    RamDecoder,
    RamLogits,
    build,
    energy,
    hinge_loss,
    info_nce_loss,
    predicted_bits,
    ram_loss,
    torch_generator,
)


def test_ram_loss_by_hand():
    bits = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    following = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])
    logits = RamLogits(
        mask=torch.tensor([[0.0, 0.0]]), bits=torch.tensor([[[0.0, 2.0], [9.0, 9.0]]])
    )
    written = (math.log(2) + math.log1p(math.exp(-2.0))) / 2
    torch.testing.assert_close(
        ram_loss(logits, bits, following), torch.tensor(math.log(2) + written)
    )


def test_unchanged_cells_teach_the_bits_nothing():
    bits = torch.randint(0, 2, (4, 3, 8)).float()
    logits = RamLogits(torch.zeros(4, 3), torch.randn(4, 3, 8, requires_grad=True))
    ram_loss(logits, bits, bits).backward()
    assert logits.bits.grad.abs().sum() == 0


def test_prediction_copies_outside_the_mask():
    bits = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    logits = RamLogits(torch.tensor([[-1.0, 1.0]]), torch.tensor([[[-5.0, 5.0], [-5.0, 5.0]]]))
    assert predicted_bits(logits, bits).tolist() == [[[True, False], [False, True]]]


def test_energy_by_hand():
    first, second = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    assert energy(first, second, sigma=0.5).item() == pytest.approx(0.5 / 0.25 * 3)


@pytest.mark.parametrize("negatives", ["paper", "code"])
def test_hinge_by_hand(negatives):
    current = torch.tensor([[[0.0]], [[0.1]]])
    following = torch.tensor([[[0.0]], [[0.2]]])
    predicted = torch.tensor([[[0.1]], [[0.2]]])
    terms = hinge_loss(predicted, current, following, torch.tensor([1, 0]), negatives=negatives)
    positive = 2.0 * (0.1**2 + 0.0) / 2
    paper = [2 * 0.1**2, 2 * 0.2**2]
    code = [2 * 0.1**2, 2 * 0.1**2]
    negative = paper if negatives == "paper" else code
    expected = positive + sum(max(0.0, 1 - value) for value in negative) / 2
    assert terms.loss.item() == pytest.approx(expected, rel=1e-5)
    assert terms.negative_energy.item() == pytest.approx(sum(negative) / 2, rel=1e-5)


def test_far_negatives_cost_nothing():
    z = torch.tensor([[[0.0]], [[100.0]]])
    terms = hinge_loss(z, z, z, torch.tensor([1, 0]))
    assert terms.loss.item() == 0


def test_info_nce_by_hand():
    predicted = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    terms = info_nce_loss(predicted, predicted, temperature=0.5)
    assert terms.loss.item() == pytest.approx(math.log1p(math.exp(-2.0)), rel=1e-6)


def test_info_nce_ignores_scale_and_is_log_batch_when_blind():
    z = torch.randn(5, 2, 3)
    first = info_nce_loss(z, z.flip(0)).loss
    torch.testing.assert_close(info_nce_loss(3 * z, 7 * z.flip(0)).loss, first)
    same = torch.ones(5, 2, 3)
    assert info_nce_loss(same, same).loss.item() == pytest.approx(math.log(5))


def test_info_nce_sends_gradients_to_both_sides():
    left, right = (torch.randn(4, 2, 3, requires_grad=True) for _ in range(2))
    info_nce_loss(left, right).loss.backward()
    assert left.grad.abs().sum() > 0
    assert right.grad.abs().sum() > 0


def test_decoders_have_the_published_shapes():
    z = torch.randn(2, 5, 4)
    logits = RamDecoder(dim=4, bits=8)(z)
    assert logits.mask.shape == (2, 5)
    assert logits.bits.shape == (2, 5, 8)
    assert LatentDecoder(4)(z).shape == z.shape


def test_ram_decoder_overfits_one_batch():
    decoder = build(lambda: RamDecoder(dim=32, bits=8), torch_generator(0))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 12, 32, generator=generator)
    bits = torch.randint(0, 2, (1, 12, 8), generator=generator).float()
    following = torch.where(torch.rand(1, 12, 1, generator=generator) < 0.5, 1 - bits, bits)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        ram_loss(decoder(z), bits, following).backward()
        optimizer.step()
    assert torch.equal(predicted_bits(decoder(z), bits), following > 0.5)
