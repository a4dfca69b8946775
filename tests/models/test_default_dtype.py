"""Nothing depends on the type of numbers that a process has chosen for torch."""

import warnings
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import pytest
import torch

import rmr_gym  # noqa: F401
from rmr_gym.domains import atari, balls
from rmr_gym.models.pretrained import BallsEncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.message_passing import describe_backend
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.frames import unroll
from rmr_gym.models.world.rims import LSTMSizes, RIMSizes, SequenceLSTM, SequenceRIMs
from rmr_gym.stages.measures import predict_labels
from rmr_gym.stages.world_model import WORLD_MODELS
from rmr_gym.wrappers.features import RMRObservationWrapper

SHAPE = (12, 12, 1)
CLIPS = (torch.rand(2, 5, *SHAPE, generator=torch.Generator().manual_seed(0)) > 0.5).float()
FRAMES = torch.randint(0, 256, (3, 84, 84), generator=torch_generator(0), dtype=torch.uint8)
ACTIONS = torch.tensor([0, 3, 17])


@contextmanager
def doubles():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def check(compute):
    """Compare all that is computed, values and types, and that the process keeps its choice."""
    expected = compute()
    with doubles():
        found = compute()
        assert torch.get_default_dtype() == torch.float64
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def learned(model, loss):
    """Return the loss and what follows from it for all weights."""
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return [loss.detach(), *model.state_dict().values(), *grads]


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_world_models(name):
    entry = WORLD_MODELS[name]

    def compute():
        model = build(lambda: entry.make(SHAPE, entry.sizes["smoke"], 0), torch_generator(0))
        *_, state = unroll(model, CLIPS, None, torch_generator(1), seen=3)
        loss = model.losses(CLIPS, None, torch_generator(1)).mean()
        return learned(model, loss + model.decode(state).frame.mean())

    check(compute)


@pytest.mark.parametrize(
    "make", [lambda: SequenceRIMs(5, 5, 6, RIMSizes()), lambda: SequenceLSTM(5, 5, 6, LSTMSizes(4))]
)
def test_models_of_tokens(make):
    def compute():
        model = build(make, torch_generator(0))
        return learned(model, model(ACTIONS[None] % 5, torch_generator(1)).outputs.square().mean())

    check(compute)


@pytest.mark.parametrize("core", ["mpnn", "deep_sets", "mlp", "none"])
def test_pipelines_of_games(core):
    sizes = atari.AtariModel(dim=4, core=core, trunk="nature", height=84, width=84)

    def natural():
        processor = atari.make_core(sizes, core, 0)
        pipeline = atari.natural_pipeline(sizes, processor, 0)
        pipeline.encoder.standardise_by(*atari.frame_statistics(FRAMES))
        return learned(pipeline, pipeline(FRAMES, ACTIONS).square().mean())

    def abstract():
        pipeline = atari.abstract_pipeline(sizes, 0)
        bits = (torch.arange(3 * 128 * 8).view(3, 128, 8) % 3 == 0).float()
        return learned(pipeline, pipeline(bits, ACTIONS).bits.square().mean())

    check(natural)
    check(abstract)


@pytest.mark.parametrize("decoder", ["object", "broadcast"])
def test_pipelines_of_balls(decoder):
    model = balls.PixelModel(balls.BallsModel(dim=24), 8, decoder=decoder, decoder_channels=4)

    def positions():
        pipeline = balls.abstract_pipeline(model.processor, 0, 3)
        return learned(pipeline, balls.next_positions(pipeline, CLIPS[:, :3, :3, :2, 0]).mean())

    def pixels():
        processor = balls.make_balls_processor(model.processor, 0, 3)
        pipeline = balls.pixel_pipeline(model, processor, 0, resolution=16, balls=2)
        if decoder == "object":
            abstract = balls.abstract_pipeline(model.processor, 0, 3).state_dict()
            balls.align(pipeline, abstract, 0)
        clip = CLIPS.repeat(1, 1, 2, 2, 3)[:, :3, :16, :16]
        return learned(pipeline, pipeline(clip).frame.square().mean())

    check(positions)
    check(pixels)


def test_artifacts(tmp_path):
    def compute():
        read = PretrainedEncoder.from_pretrained("pong")
        latents = read.encoder(FRAMES)
        return [latents, read.processor(latents, ACTIONS), *read.encoder.state_dict().values()]

    def of_balls():
        config = BallsEncoderConfig("BouncingBalls", resolution=16, dim=8, slot_dim=8)
        made = PretrainedEncoder(config, build(config.encoder, torch_generator(0)))
        folder = made.save_pretrained(tmp_path / "balls", overwrite=True)
        read = PretrainedEncoder.from_pretrained(folder)
        frames = FRAMES[:, None, :16, :16].expand(-1, 9, -1, -1)
        return [read.encoder(frames)]

    check(compute)
    check(of_balls)


def test_read_outs_of_labels():
    features, labels = FRAMES.flatten(1)[:, :60].T.float(), np.arange(120, dtype=np.uint8) % 2

    def compute():
        fit = np.arange(60) % 3 > 0
        found = predict_labels(features, labels.reshape(60, 2), fit, features[:5])
        return [torch.from_numpy(found)]

    check(compute)


def test_what_wrappers_show():
    def compute():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env = RMRObservationWrapper(gym.make("rmr/Pong-v0"), "pong", output="processed")
        first, _ = env.reset(seed=0)
        second = env.step(2)[0]
        env.close()
        assert env.observation_space.dtype == np.float32
        return [torch.from_numpy(first), torch.from_numpy(second)]

    check(compute)


def test_the_back_end_is_what_it_is():
    with doubles():
        found = describe_backend("cpu", "bf16")
    assert found == describe_backend("cpu", "bf16")
