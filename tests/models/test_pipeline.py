import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import TRUNKS, RamEncoder, SlotCNN, build, torch_generator


def test_ram_encoder_is_the_linear_layer_over_bits_and_one_hot():
    encoder = build(lambda: RamEncoder(slots=5, bits=8, dim=3), torch_generator(0))
    bits = torch.randint(0, 2, (2, 5, 8)).float()
    with_names = torch.cat([bits, torch.eye(5).expand(2, 5, 5)], dim=-1)
    weight = torch.cat([encoder.content.weight, encoder.slot.T], dim=1)
    expected = with_names @ weight.T + encoder.content.bias
    torch.testing.assert_close(encoder(bits), expected)


@pytest.mark.parametrize(
    ("trunk", "height", "width", "features"),
    [("anand2019", 210, 160, 54), ("nature", 84, 84, 49), ("anand2019", 84, 84, 1)],
)
@pytest.mark.parametrize("maps", [1, 2])
def test_slot_cnn_gives_each_slot_its_own_maps(trunk, height, width, features, maps):
    encoder = SlotCNN(height, width, slots=6, maps=maps, dim=4, trunk=trunk)
    assert encoder.project.in_features == features * maps
    frames = torch.zeros(2, height, width, dtype=torch.uint8)
    assert encoder(frames).shape == (2, 6, 4)


def test_slot_reads_its_own_maps_only():
    encoder = build(
        lambda: SlotCNN(84, 84, slots=4, maps=2, dim=3, trunk="nature"), torch_generator(0)
    )
    frames = torch.randint(0, 256, (1, 84, 84), dtype=torch.uint8)
    before = encoder(frames)
    with torch.no_grad():
        encoder.slot_maps.weight[2:4] += 1
    after = encoder(frames)
    changed = (before != after).any(-1)[0]
    assert changed.tolist() == [False, True, False, False]


def test_standardisation_removes_the_mean_frame_and_scales():
    encoder = build(lambda: SlotCNN(84, 84, slots=2, dim=3, trunk="nature"), torch_generator(0))
    frames = torch.randint(0, 256, (3, 84, 84), dtype=torch.uint8)
    mean = frames.float().mean(0)
    encoder.standardise_by(mean, 12.0)
    plain = build(lambda: SlotCNN(84, 84, slots=2, dim=3, trunk="nature"), torch_generator(0))
    inputs = ((frames.float() - mean) / 12.0)[:, None]
    expected = plain.project(plain.slot_maps(plain.trunk(inputs)).flatten(2))
    torch.testing.assert_close(encoder(frames), expected)


def test_gradients_reach_every_parameter():
    encoder = build(lambda: SlotCNN(84, 84, slots=3, dim=2, trunk="nature"), torch_generator(0))
    encoder(torch.randint(0, 256, (2, 84, 84), dtype=torch.uint8)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_too_small_a_frame_is_refused():
    with pytest.raises(RMRError, match="too small"):
        SlotCNN(40, 40, trunk="anand2019")


def test_unknown_trunk_names_the_nearest():
    with pytest.raises(RMRError, match="did you mean 'nature'"):
        SlotCNN(84, 84, trunk="natur")


def test_trunk_of_the_paper_has_the_published_layers():
    assert TRUNKS["anand2019"] == ((32, 8, 4), (64, 4, 2), (128, 4, 2), (64, 3, 1))


def test_building_is_a_function_of_the_generator_and_leaves_the_global_one_alone():
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first = build(lambda: SlotCNN(84, 84, slots=2, dim=3, trunk="nature"), torch_generator(5))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(8)
    second = build(lambda: SlotCNN(84, 84, slots=2, dim=3, trunk="nature"), torch_generator(5))
    for name, tensor in first.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), second.state_dict()[name].numpy())
