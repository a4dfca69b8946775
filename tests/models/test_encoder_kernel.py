"""The compiled pixel encoder against PyTorch in float64."""

import shutil
from copy import deepcopy

import pytest
import torch
from torch import nn

from rmr_gym.models.rmr import kernels
from rmr_gym.models.rmr.kernels import encoder as compiled
from rmr_gym.models.rmr.pipeline import SlotCNN, build, torch_generator

engine = compiled.encoder_engine()
pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, kernels.COMPILERS)), reason="no C++ compiler here"
)

CASES = [
    ("nature", 84, 84, 128, 1, 64, 5),
    ("nature", 85, 91, 5, 3, 16, 3),
    ("nature", 36, 45, 7, 8, 33, 9),
    ("nature", 36, 36, 1, 1, 1, 1),
    ("anand2019", 130, 100, 40, 2, 40, 2),
]
"""Trunk, height, width, slots, maps, dim, frames."""


def an_encoder(trunk="nature", height=84, width=84, slots=6, maps=1, dim=8, **options) -> SlotCNN:
    """An encoder without zeros among its biases and statistics."""
    sizes = {"slots": slots, "maps": maps, "dim": dim, "trunk": trunk}
    encoder = build(lambda: SlotCNN(height, width, **sizes, **options), torch_generator(0))
    generator = torch_generator(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(-0.3, 0.3, generator=generator)
    mean = 50 + 100 * torch.rand(height, width, generator=generator)
    encoder.standardise_by(mean, 60.0)
    return encoder


def some_frames(count=4, height=84, width=84) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, height, width), generator=torch_generator(2), dtype=torch.uint8
    )


def run(encoder, frames) -> list[torch.Tensor]:
    """Latents, and gradients of a weighted sum of them."""
    encoder.zero_grad(set_to_none=True)
    latents = encoder(frames)
    weights = torch.randn(latents.shape, generator=torch_generator(3), dtype=torch.float64)
    (latents * weights.to(latents.dtype)).sum().backward()
    return [latents.detach(), *(parameter.grad for parameter in encoder.parameters())]


def half(encoder: SlotCNN) -> SlotCNN:
    encoder = deepcopy(encoder)
    encoder.precision = "bf16"
    return encoder


def assert_close(actual, expected, tolerance):
    for one, other in zip(actual, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() <= tolerance * other.norm()


@pytest.fixture
def float32_unit(monkeypatch):
    """Let the kernels multiply float32, whatever the processor has beside."""
    monkeypatch.setattr(engine, "unit", "float32")


@pytest.mark.parametrize(("trunk", "height", "width", "slots", "maps", "dim", "count"), CASES)
def test_float32_equals_pytorch_in_float64(
    trunk, height, width, slots, maps, dim, count, float32_unit
):
    encoder = an_encoder(trunk, height, width, slots, maps, dim)
    frames = some_frames(count, height, width)
    assert_close(run(half(encoder), frames), run(deepcopy(encoder).double(), frames), 5e-6)


class RoundedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.bfloat16().to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class RoundedBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.bfloat16().to(gradient.dtype)


def rounded_layer(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A layer whose product has operands rounded to bfloat16, forward and backward."""
    bias = layer.bias if isinstance(layer, nn.Linear) else layer.bias[:, None, None]
    plain = deepcopy(layer)
    weight = RoundedForward.apply(layer.weight)
    product = torch.func.functional_call(
        plain, {"weight": weight, "bias": torch.zeros_like(layer.bias)}, (RoundedForward.apply(x),)
    )
    return RoundedBackward.apply(product) + bias


class Rounded(nn.Module):
    """What the kernels mean to compute, in float64 but for the roundings."""

    def __init__(self, encoder: SlotCNN):
        super().__init__()
        self.encoder = deepcopy(encoder).double()

    def forward(self, frames):
        encoder = self.encoder
        x = ((frames.float() - encoder.mean_frame.float()) / encoder.deviation.float())[:, None]
        x = x.double()
        for layer in encoder.trunk:
            x = layer(x) if isinstance(layer, nn.ReLU) else rounded_layer(layer, x)
        maps = rounded_layer(encoder.slot_maps, x)
        return rounded_layer(
            encoder.project, maps.flatten(2).unflatten(1, (encoder.slots, -1)).flatten(2)
        )


@pytest.mark.skipif(engine is None or engine.unit == "float32", reason="no bfloat16 products here")
@pytest.mark.parametrize(("trunk", "height", "width", "slots", "maps", "dim", "count"), CASES)
def test_bfloat16_rounds_the_operands_and_nothing_else(
    trunk, height, width, slots, maps, dim, count
):
    encoder = an_encoder(trunk, height, width, slots, maps, dim)
    frames = some_frames(count, height, width)
    actual, expected = run(half(encoder), frames), run(Rounded(encoder), frames)
    assert_close(actual, expected, 3e-3)
    assert_close(actual[:1], run(encoder, frames)[:1], 2e-2)
    assert not torch.equal(actual[0], run(encoder, frames)[0])


def test_the_number_of_threads_changes_no_bit():
    encoder, frames, before = half(an_encoder()), some_frames(41), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(encoder, frames))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


def test_frames_may_lie_anywhere():
    encoder, frames = half(an_encoder()), some_frames(6)
    spread = torch.stack([frames, 255 - frames], dim=-1)[..., 0]
    assert not spread.is_contiguous()
    assert torch.equal(encoder(spread), encoder(frames))
    assert torch.equal(encoder(frames[1::2]), encoder(frames)[1::2])
    encoder.zero_grad()
    latents = encoder(frames)
    latents.transpose(0, 2).sum().backward()  # a gradient that is not contiguous


def test_no_frames_give_no_latents_and_gradients_of_zero():
    latents, *gradients = run(half(an_encoder()), some_frames(0))
    assert latents.shape == (0, 6, 8)
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


@pytest.mark.parametrize("name", ["trunk.0.weight", "trunk.2.bias", "slot_maps.weight"])
def test_nan_goes_where_it_goes_in_pytorch(name):
    encoder = an_encoder()
    with torch.no_grad():
        encoder.get_parameter(name)[3] = torch.nan
    plain, fast = encoder(some_frames()), half(encoder)(some_frames())
    assert fast.isnan().equal(plain.isnan())
    assert plain.isnan().any()


def test_a_map_of_each_slot_follows():
    encoder = an_encoder(affine=True)
    with torch.no_grad():
        encoder.affine.weight.mul_(3)
        encoder.affine.bias.add_(1)
    plain, fast = encoder(some_frames()), half(encoder)(some_frames())
    torch.testing.assert_close(fast, plain, rtol=0.05, atol=0.05)


def test_what_the_kernels_do_not_take_is_computed_by_pytorch():
    encoder, frames = an_encoder(), some_frames()
    double = deepcopy(encoder).double()
    assert torch.equal(half(double)(frames), double(frames))
    with pytest.raises(RuntimeError, match="must match"):
        half(encoder)(some_frames(2, 40, 40))


def test_without_kernels_pytorch_runs_and_says_so_once(monkeypatch, caplog):
    encoder, frames = an_encoder(), some_frames()
    monkeypatch.setenv(kernels.SWITCH, "0")
    kernels.cpu_engine.cache_clear()
    compiled.encoder_engine.cache_clear()
    try:
        for _ in range(2):
            assert torch.equal(half(encoder)(frames), encoder(frames))
    finally:
        kernels.cpu_engine.cache_clear()
        compiled.encoder_engine.cache_clear()
    assert len(caplog.records) == 1
    assert "RMR_GYM_KERNELS=0" in caplog.text


def test_a_source_that_does_not_compile_leaves_pytorch(monkeypatch, caplog):
    load = kernels.load_library

    def broken(source):
        if source.name == "encoder.cpp":
            raise kernels.KernelError("cannot compile this")
        return load(source)

    compiled.encoder_engine.cache_clear()
    monkeypatch.setattr(kernels, "load_library", broken)
    try:
        assert torch.equal(half(an_encoder())(some_frames()), an_encoder()(some_frames()))
    finally:
        compiled.encoder_engine.cache_clear()
    assert "cannot compile this" in caplog.text


@pytest.mark.parametrize("flag", ["-march=x86-64", "-march=haswell"])
def test_the_kernel_of_an_older_processor_computes_the_same(flag, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernels, "PROCESSOR_FLAGS", (flag,))
    old = compiled.EncoderEngine(
        kernels.library_of(kernels.HERE / "encoder.cpp", "nothing"), "float32"
    )
    monkeypatch.setattr("rmr_gym.models.rmr.pipeline.encoder_engine", lambda: old)
    encoder, frames = an_encoder(dim=9), some_frames()
    assert_close(run(half(encoder), frames), run(deepcopy(encoder).double(), frames), 5e-6)
