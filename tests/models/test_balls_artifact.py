import json

import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.balls import BallsModel, PixelModel, make_balls_processor, pixel_pipeline
from rmr_gym.models.objects import FrameStackEncoder
from rmr_gym.models.pretrained import BallsEncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import parameter_hash

SIZES = {"resolution": 16, "slots": 3, "dim": 8, "slot_dim": 8, "channels": 4}
NO_ACTION = torch.zeros(2, dtype=torch.int64)


def make(core: str | None = "mpnn"):
    config, generator = BallsEncoderConfig("BouncingBalls", core=core, **SIZES), torch_generator(0)
    processor = build(config.processor, generator) if core else None
    facts = {"training": {"arm": "rmr"}, "metrics": [{"arm": "rmr", "mse": 0.0012345}]}
    return PretrainedEncoder(config, build(config.encoder, generator), processor, facts)


def some_frames():
    return torch.randint(0, 256, (2, 9, 16, 16), dtype=torch.uint8)


@pytest.mark.parametrize("core", ["mpnn", "interaction", "none", None])
def test_what_is_read_is_what_was_written(tmp_path, core):
    made, frames = make(core), some_frames()
    read = PretrainedEncoder.from_pretrained(made.save_pretrained(tmp_path / "balls"))
    assert read.config == made.config
    assert parameter_hash(read.encoder) == parameter_hash(made.encoder)
    slots = read.encoder(frames)
    assert slots.shape == (2, 3, 8)
    assert torch.equal(slots, made.encoder(frames))
    if core is None:
        assert read.processor is None
    else:
        expected = made.processor(slots)
        assert torch.equal(read.processor(slots, NO_ACTION), expected)
    card = (tmp_path / "balls" / "README.md").read_text()
    for fact in ("Slot encoder of BouncingBalls", "last 3 frames", "| rmr | 0.001234 |"):
        assert fact in card
    assert ("P is not included" in card) == (core is None)


@pytest.mark.parametrize("core", ["mpnn", "interaction"])
def test_it_is_what_the_video_model_has_before_its_decoder(core):
    model = PixelModel(BallsModel(dim=8, core=core), slot_dim=8, channels=4)
    processor = make_balls_processor(model.processor, 0, 2)
    pipeline = pixel_pipeline(model, processor, 0, resolution=16, balls=2)
    frames = some_frames()
    clip = frames.unflatten(1, (3, 3)).permute(0, 1, 3, 4, 2).float() / 255
    slots = FrameStackEncoder(pipeline.encoder.encoder, pipeline.encoder.join)(frames)
    decoded = pipeline.decoder(processor(slots, NO_ACTION))
    assert torch.equal(decoded.frame, pipeline(clip).frame)
    config = BallsEncoderConfig("BouncingBalls", core=core, **SIZES)
    assert parameter_hash(build(config.processor, torch_generator(0))) == parameter_hash(
        build(lambda: make_balls_processor(model.processor, 0, 2), torch_generator(0))
    )


def change(folder, **values):
    record = json.loads((folder / "config.json").read_text())
    for name, value in values.items():
        place = record if name in record else record["config"]
        place[name] = value
    (folder / "config.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": 10**9}, "expected slots from 1 to 64"),
        ({"dim": 16}, "does not fit"),
        ({"passes": 16}, "does not fit"),
        ({"resolution": 18}, "divide the resolution"),
        ({"cell": True}, "expected cell from 1"),
        ({"first_rounds": 0}, "expected first_rounds from 1"),
        ({"core": "os.system"}, "unknown processor"),
        ({"core": ["mpnn"]}, "expected text for core"),
        ({"game": "../x"}, "expected the name of a game"),
        ({"format": "rmr_gym encoder"}, "expected config with actions"),
        ({"format": ["rmr_gym balls encoder"]}, "not of a pretrained encoder"),
        ({"version": 2}, "newer than this rmr-gym reads"),
    ],
)
def test_hostile_configurations(tmp_path, changes, message):
    folder = make().save_pretrained(tmp_path / "balls")
    change(folder, **changes)
    with pytest.raises(RMRError, match=message):
        PretrainedEncoder.from_pretrained(folder)


def test_nothing_but_floats_of_the_right_names_is_loaded(tmp_path):
    folder = make().save_pretrained(tmp_path / "balls")
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(RMRError, match="damaged"):
        PretrainedEncoder.from_pretrained(folder)
    path.write_bytes(whole.replace(b'"encoder.join.bias"', b'"encoder.join.bizz"'))
    with pytest.raises(RMRError, match=r"expected \['F32', \[8\]\] as 'encoder.join.bias'"):
        PretrainedEncoder.from_pretrained(folder)
