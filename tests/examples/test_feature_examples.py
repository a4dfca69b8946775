import importlib.util
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator

FOLDER = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(f"{name}_example", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    config = EncoderConfig("Pong", dim=4)
    made = build(config.encoder, torch_generator(0))
    made.standardise_by(torch.full((84, 84), 90.0), 30.0)
    folder = tmp_path_factory.mktemp("encoder") / "pong"
    return str(PretrainedEncoder(config, made).save_pretrained(folder))


def test_wrapper(encoder, capsys):
    example("rmr_wrapper").main(["--encoder", encoder, "--steps", "5", "--worlds", "2"])
    printed = capsys.readouterr().out
    assert "slots (128, 4), 128 of them moved" in printed
    assert "'features': (2, 2, 512)" in printed
    assert "'ram': (2, 128)" in printed


def test_belief(tmp_path, capsys):
    film = tmp_path / "pong.gif"
    example("rmr_belief").main(["--game", "Pong", "--steps", "12", "--film", str(film)])
    printed = capsys.readouterr().out
    scores = [float(score) for score in re.findall(r"\d\.\d+", printed.split("step 12:")[1])]
    assert 0.5 < scores[0] <= 1
    assert scores[1] > scores[0]
    with Image.open(film) as shown:
        assert shown.n_frames == 13
        assert shown.size == (2 * 160 + 3 * 12 + 2 * 32 * 12, 420)


def test_planning(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rmr_gym.stages.planning.SETTLED", 0.2)
    film, found = tmp_path / "pong.gif", ["--root", str(tiny["root"]), "--data", str(tiny["data"])]
    sizes = ["--preset", "tiny", "--steps", "3", "--film", str(film)]
    example("rmr_planning").main(["--game", "Pong", *found, *sizes])
    assert "return of 3 steps" in capsys.readouterr().out
    with Image.open(film) as shown:
        assert shown.size == (243 + 2 * 320, 320)


def test_planning_with_pushed_balls(tiny, tmp_path, capsys):
    film, sizes = tmp_path / "bring.gif", ["--preset", "tiny", "--steps", "2"]
    found = ["--root", str(tiny["root"]), "--film", str(film)]
    example("rmr_planning").main(["--game", "bring", *found, *sizes])
    assert "return of 2 steps" in capsys.readouterr().out
    with Image.open(film) as shown:
        assert shown.size == (3 * 320, 320)


@pytest.mark.parametrize(("how", "agent"), [("frozen", "PPO"), ("fine_tuned", "DQN")])
def test_agent(encoder, how, agent, tmp_path, capsys):
    sizes = ["--steps", "64", "--copies", "2", "--out", str(tmp_path)]
    example("sb3_agent").main(["--encoder", encoder, "--how", how, *sizes])
    printed = capsys.readouterr().out
    assert f"{agent} learnt for 64 steps" in printed
    assert "it does the same: True" in printed


def test_recording(tmp_path, capsys):
    out = ["--out", str(tmp_path / "data")]
    for _ in range(2):
        example("record_dataset").main(["--episodes", "2", "--steps", "20", *out])
    printed = capsys.readouterr().out
    assert "episode 0: 20 steps" in printed
    assert "40 transitions" in printed
