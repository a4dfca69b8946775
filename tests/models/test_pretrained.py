import json
import pickle
import shutil
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.core.errors import RMRError
from rmr_gym.domains.balls import BallsModel, PixelModel, make_balls_processor, pixel_pipeline
from rmr_gym.envs.atari.games import GAMES, find_game
from rmr_gym.models import pretrained as artifacts
from rmr_gym.models.objects import FrameStackEncoder
from rmr_gym.models.pretrained import (
    CARD,
    BallsEncoderConfig,
    EncoderConfig,
    PretrainedEncoder,
    shipped_encoders,
)
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.wrappers.features import RMRObservationWrapper

CONFIG = EncoderConfig("Pong", dim=4, core="mpnn")
PROVENANCE = {
    "data": {"fingerprint": "abc123"},
    "training": {"arm": "rmr", "step": 300},
    "metrics": [{"probe": "ridge", "micro_f1": 0.51234}],
}


def make(config=CONFIG, seed=0):
    generator = torch_generator(seed)
    encoder = build(config.encoder, generator)
    encoder.standardise_by(torch.rand(config.height, config.width, generator=generator), 40.0)
    processor = build(config.processor, generator) if config.core else None
    return PretrainedEncoder(config, encoder, processor, PROVENANCE)


@pytest.fixture
def folder(tmp_path):
    return make().save_pretrained(tmp_path / "mine")


@pytest.mark.parametrize("kept", ["processor", "core"])
def test_what_could_not_be_read_is_not_written(tmp_path, kept):
    made = make() if kept == "core" else replace(make(), config=replace(CONFIG, core=None))
    bare = replace(made, processor=None) if kept == "core" else made
    with pytest.raises(RMRError, match=r"expected (no|a) P, as the configuration has core="):
        bare.save_pretrained(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("core", ["mpnn", "deep_sets", "none", None])
def test_what_is_read_is_what_was_written(tmp_path, core):
    made = make(replace(CONFIG, core=core))
    read = PretrainedEncoder.from_pretrained(made.save_pretrained(tmp_path / "mine"))
    assert read.config == made.config
    assert parameter_hash(read.encoder) == parameter_hash(made.encoder)
    assert (read.processor is None) == (core is None)
    if read.processor and made.processor:
        assert parameter_hash(read.processor) == parameter_hash(made.processor)
    assert read.provenance["data"] == PROVENANCE["data"]
    frames = torch.randint(0, 256, (2, 84, 84), dtype=torch.uint8)
    assert torch.equal(read.encoder(frames), made.encoder(frames))


def test_reading_leaves_no_trace_in_the_random_numbers_of_others(folder):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    PretrainedEncoder.from_pretrained(folder)
    assert torch.equal(torch.rand(3), expected)


def test_the_card_tells_where_it_comes_from(folder):
    card = (folder / "README.md").read_text()
    for fact in ("license: mit", "Pong", "abc123", "| ridge | 0.5123 |", "torch:", "P (mpnn)"):
        assert fact in card


def test_existing_folders(folder, tmp_path):
    with pytest.raises(RMRError, match="exists already"):
        make().save_pretrained(folder)
    other = make(seed=1)
    other.save_pretrained(folder, overwrite=True)
    read = PretrainedEncoder.from_pretrained(folder)
    assert parameter_hash(read.encoder) == parameter_hash(other.encoder)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(RMRError, match=r"thesis\.tex"):
        make().save_pretrained(tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "mine"]


def test_shipped_encoders_are_found_by_any_spelling(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "SHIPPED", tmp_path)
    made = make(replace(CONFIG, game="MsPacman"))
    made.save_pretrained(tmp_path / "ms_pacman")
    make().save_pretrained(tmp_path / "pong")
    for name in ("ms_pacman", "MsPacman", "Ms. Pac-Man"):
        assert PretrainedEncoder.from_pretrained(name).config.game == "MsPacman"
    with pytest.raises(RMRError, match="did you mean 'pong'"):
        PretrainedEncoder.from_pretrained("Pogn")
    make().save_pretrained(tmp_path / "breakout")
    with pytest.raises(RMRError, match="at 'qbert': `rmr-gym encoder list` shows"):
        PretrainedEncoder.from_pretrained("qbert")
    make().save_pretrained(tmp_path / "pong_belief")
    with pytest.raises(RMRError, match=r"did you mean 'pong' or 'pong_belief'\? `rmr-gym enc"):
        PretrainedEncoder.from_pretrained("pong_belief2")
    with pytest.raises(RMRError, match=r"did you mean 'pong'\? `rmr-gym encoder list` shows"):
        PretrainedEncoder.from_pretrained(tmp_path / "Pong-rmr-0-300")


def test_nothing_is_shipped_or_found(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "SHIPPED", tmp_path / "none")
    for name in ("pong", tmp_path / "nowhere", "../pong", ""):
        with pytest.raises(RMRError, match=r"pretrained encoder|holds no"):
            PretrainedEncoder.from_pretrained(name)


def change(folder, **values):
    record = json.loads((folder / "config.json").read_text())
    for name, value in values.items():
        place = record if name in record else record["config"]
        place[name] = value
    (folder / "config.json").write_text(json.dumps(record))


def write_header(folder, header, rest=b""):
    text = json.dumps(header).encode()
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + rest)


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


HUGE = {"encoder.project.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "weights.safetensors").unlink(), "holds no weights.safetensors"),
        (lambda f: change(f, version=2), "version 2, newer than this rmr-gym reads"),
        (lambda f: change(f, version="1"), "expected a version from 1"),
        (lambda f: change(f, version=True), "expected a version from 1"),
        (lambda f: change(f, format="gpt"), "not of a pretrained encoder"),
        (lambda f: change(f, dim=8), "does not fit"),
        (lambda f: change(f, dim=10**9), "expected dim from 1 to 4096"),
        (lambda f: change(f, dim=True), "expected dim from 1"),
        (lambda f: change(f, height=4), "too small for the trunk"),
        (lambda f: change(f, trunk="../../etc/passwd"), "unknown trunk"),
        (lambda f: change(f, trunk=["nature"]), "expected text for trunk"),
        (lambda f: change(f, core="os.system"), "unknown processor"),
        (lambda f: change(f, core=3), "expected text for core"),
        (lambda f: change(f, affine=1), "expected true or false for affine"),
        (lambda f: change(f, game="../../x"), "expected the name of a game"),
        (lambda f: change(f, config=[1]), "expected config with"),
        (lambda f: change(f, provenance=[1]), "expected provenance"),
        (lambda f: (f / "config.json").write_text("{"), "damaged"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "expected a JSON object"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "damaged"),
        (lambda f: (f / "config.json").write_text(" " * (2 << 20)), "at most"),
        (lambda f: (f / "weights.safetensors").write_bytes(b""), "damaged"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"\xff" * 64), "damaged"),
        (lambda f: write_header(f, HUGE), "damaged"),
        (lambda f: write_header(f, []), "damaged"),
        (lambda f: write_header(f, {"encoder.project.weight": 3}), "damaged"),
    ],
)
def test_damaged_and_hostile_folders(folder, spoil, message):
    spoil(folder)
    with pytest.raises(RMRError, match=message):
        PretrainedEncoder.from_pretrained(folder)


def test_truncated_weights_and_extra_bytes(folder):
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"x", whole[: len(whole) // 2], whole[:20]):
        path.write_bytes(content)
        with pytest.raises(RMRError, match="damaged"):
            PretrainedEncoder.from_pretrained(folder)


def test_pickles_are_never_read(folder, tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "executed"))
    (folder / "pytorch_model.bin").write_bytes(bomb)
    PretrainedEncoder.from_pretrained(folder)
    (folder / "weights.safetensors").write_bytes(bomb)
    with pytest.raises(RMRError, match="damaged"):
        PretrainedEncoder.from_pretrained(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(RMRError, match=r"pytorch_model\.bin can run code and is never read"):
        PretrainedEncoder.from_pretrained(folder)
    assert not (tmp_path / "executed").exists()


def test_other_tensors_types_and_numbers(folder):
    path = folder / "weights.safetensors"
    tensors = artifacts._together(make().encoder, make().processor).state_dict()
    save_file({**tensors, "extra": torch.zeros(1)}, path)
    with pytest.raises(RMRError, match=r"found torch\.float32\[1\]"):
        PretrainedEncoder.from_pretrained(folder)
    path.write_bytes(save({name: tensor.half() for name, tensor in tensors.items()}))
    with pytest.raises(RMRError, match=r"torch\.float16"):
        PretrainedEncoder.from_pretrained(folder)
    tensors["encoder.project.bias"][0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(RMRError, match=r"not finite, in encoder\.project\.bias"):
        PretrainedEncoder.from_pretrained(folder)


def test_overlapping_tensors(folder):
    """Every shape is right, and so is the size; only the places in the file are not."""
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    biases = sorted(name for name in header if name.endswith("project.bias"))
    header[biases[0]]["data_offsets"] = [0, 16]
    write_header(folder, header, content[8 + length :])
    with pytest.raises(RMRError, match="damaged"):
        PretrainedEncoder.from_pretrained(folder)


def test_a_flipped_bit_anywhere_in_the_weights_is_noticed(folder):
    path = folder / "weights.safetensors"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.choice(len(content), size=25, replace=False):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(RMRError, match=r"damaged|does not fit|not finite"):
            PretrainedEncoder.from_pretrained(folder)
    path.write_bytes(content)
    change(folder, weights_sha256="0" * 64)
    with pytest.raises(RMRError, match=r"its sha256 is not the one in config\.json"):
        PretrainedEncoder.from_pretrained(folder)


def state(artifact):
    tensors = artifacts._together(artifact.encoder, artifact.processor).state_dict()
    return artifact.config, artifact.provenance, {n: t.tolist() for n, t in tensors.items()}


@pytest.mark.parametrize("kind", ["game", "balls", "shipped"])
def test_a_damaged_artifact_is_refused_or_what_it_was(tmp_path, kind):
    """A bit, a byte, a stretch or the end of a file is altered; nothing but an RMRError comes."""
    if kind == "shipped":
        folder = Path(shutil.copytree(shipped_encoders()["pong"], tmp_path / "mine"))
    else:
        folder = (make() if kind == "game" else balls()).save_pretrained(tmp_path / "mine")
    whole, rng, refused = (
        state(PretrainedEncoder.from_pretrained(folder)),
        np.random.default_rng(1),
        0,
    )
    for number in range(150):
        path = folder / ("config.json", "weights.safetensors")[number % 2]
        content = path.read_bytes()
        at, to = sorted(rng.integers(0, len(content), 2))
        changed = bytearray(content)
        match number % 5:
            case 0 | 1:
                changed[at] ^= 1 << rng.integers(8)
            case 2:
                changed[at] = rng.integers(256)
            case 3:
                changed[at : min(to, at + 40)] = bytes(rng.integers(0, 256, 7, dtype=np.uint8))
            case 4:
                del changed[at:]
        path.write_bytes(changed)
        try:
            assert state(PretrainedEncoder.from_pretrained(folder)) == whole
        except RMRError:
            refused += 1
        path.write_bytes(content)
    assert refused > 120


SIZES = {"resolution": 16, "slots": 3, "dim": 8, "slot_dim": 8, "channels": 4}
NO_ACTION = torch.zeros(2, dtype=torch.int64)


def balls(core: str | None = "mpnn"):
    config, generator = BallsEncoderConfig("BouncingBalls", core=core, **SIZES), torch_generator(0)
    processor = build(config.processor, generator) if core else None
    facts = {"training": {"arm": "rmr"}, "metrics": [{"arm": "rmr", "mse": 0.0012345}]}
    return PretrainedEncoder(config, build(config.encoder, generator), processor, facts)


def some_frames():
    return torch.randint(0, 256, (2, 9, 16, 16), dtype=torch.uint8)


@pytest.mark.parametrize("core", ["mpnn", "interaction", "none", None])
def test_balls_that_are_read_are_those_that_were_written(tmp_path, core):
    made, frames = balls(core), some_frames()
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
    ],
)
def test_hostile_configurations(tmp_path, changes, message):
    folder = balls().save_pretrained(tmp_path / "balls")
    change(folder, **changes)
    with pytest.raises(RMRError, match=message):
        PretrainedEncoder.from_pretrained(folder)


def test_weights_of_balls_have_the_right_names(tmp_path):
    folder = balls().save_pretrained(tmp_path / "balls")
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"encoder.join.bias"', b'"encoder.join.bizz"'))
    with pytest.raises(RMRError, match=r"expected torch.float32\[8\] as 'encoder.join.bias'"):
        PretrainedEncoder.from_pretrained(folder)


PAGE = Path(__file__).parents[2] / "docs" / "wrappers.md"
BALLS = {
    "pushed_balls": {},
    "three_balls": {"balls": 3, "radii": 0.25, "colors": "distinct", "fps": 10},
}
SHIPPED = sorted(
    name for name in shipped_encoders() if not name.endswith("_belief") and name not in BALLS
)


def test_all_games_are_shipped_in_a_few_megabytes():
    files = [file for folder in shipped_encoders().values() for file in folder.iterdir()]
    assert {find_game(name).name for name in SHIPPED} == set(GAMES)
    assert {"pong_belief", "breakout_belief"} <= set(shipped_encoders())
    assert sum(file.stat().st_size for file in files) < 25e6


@pytest.mark.parametrize("name", BALLS)
def test_shipped_encoders_of_balls_show_where_the_distinct_balls_are(name):
    """A linear read-out of the slots, fitted on 20 episodes, has R2 above .98 on 10 others."""
    read = PretrainedEncoder.from_pretrained(name)
    world = gym.make(f"rmr/{read.config.game}-v0", **BALLS[name])
    given = None if name == "pushed_balls" else name  # the environment finds its own
    env = RMRObservationWrapper(world, given, output="flat", keep=("state",), strict=True)
    env.action_space.seed(0)
    rows, states = [], []
    for episode in range(30):
        seen, _ = env.reset(seed=episode)
        for _ in range(42):
            seen = env.step(env.action_space.sample())[0]
            rows.append(np.append(seen["features"], 1))
            states.append(seen["state"].ravel()[: 4 if name == "pushed_balls" else None])
    features, true = np.array(rows), np.array(states)
    fitted, others = slice(20 * 42), slice(20 * 42, None)
    gram = features[fitted].T @ features[fitted] + 1e-2 * np.eye(features.shape[1])
    read_out = np.linalg.solve(gram, features[fitted].T @ true[fitted])
    error = ((features[others] @ read_out - true[others]) ** 2).mean(0)
    assert (1 - error / true[others].var(0)).min() > 0.98
    env.close()


@pytest.mark.parametrize("name", SHIPPED)
def test_one_line_gives_features_of_the_game(name):
    game = find_game(name).name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = RMRObservationWrapper(gym.make(f"rmr/{game}-v0"), name, output="processed")
    env.action_space.seed(0)
    first, _ = env.reset(seed=0)
    for _ in range(20):
        last = env.step(env.action_space.sample())[0]
    assert first.shape == (128, 64)
    assert np.isfinite(last).all()
    assert np.abs(last - first).max() > 0
    env.close()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_shows_what_the_encoder_must_beat(name):
    read = PretrainedEncoder.from_pretrained(name)
    scores = {row["features"]: row["micro_f1"] for row in read.provenance["metrics"]}
    assert {"this encoder", "untrained encoder", "pixels through PCA"} == set(scores)
    assert read.processor is not None
    card = (shipped_encoders()[name] / CARD).read_text()
    assert all(f" {score:.4g} |" in card for score in scores.values())
    row = " | ".join(f"{score:.4f}"[1:] for score in scores.values())
    assert f"| `{name}` | {row} |" in PAGE.read_text(), "the table of docs shows the card's figures"
    assert "license: mit" in card
