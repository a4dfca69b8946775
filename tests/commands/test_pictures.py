from dataclasses import replace

import matplotlib.image
import pytest
from PIL import Image

from rmr_gym.agents.record import record
from rmr_gym.commands.console import carry_out
from rmr_gym.commands.pictures import PICTURES
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.config import PRESETS
from rmr_gym.stages import balls, world_model


def pictures(arguments):
    carry_out(PICTURES, arguments, "rmr-gym pictures")


def test_a_film_and_a_sheet_of_every_preset(tmp_path):
    pictures(["films", "--out", str(tmp_path), "--frames", "3", "--size", "32"])
    for preset in PRESETS:
        with Image.open(tmp_path / f"{preset}.gif") as film:
            assert (film.n_frames, film.size) == (4, (32, 32))
        assert (tmp_path / f"{preset}.png").is_file()


def test_bad_input_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(RMRError, match="rnem-4"):
        pictures(["films", "--out", str(tmp_path), "--presets", "rmr", "rnem-44"])
    with pytest.raises(RMRError, match="1 or more"):
        pictures(["films", "--out", str(tmp_path), "--frames", "0"])
    assert not list(tmp_path.iterdir())


def test_rollouts_are_drawn_of_what_was_trained(tmp_path, monkeypatch):
    smoke = balls.BALLS_PRESETS["smoke"]
    phase = (balls.Phase(1, batch=2),)
    short = {"warm_start": balls.WarmStart(phase), "prediction": balls.Prediction(phase)}
    monkeypatch.setitem(balls.BALLS_PRESETS, "smoke", replace(smoke, **short))
    options = {"balls": 3, "resolution": 16, "max_episode_steps": 14}
    record("rmr/BouncingBalls-v0", tmp_path / "data", episodes=2, **options)
    places = ("--data", tmp_path / "data", "--root", tmp_path / "runs", "--out", tmp_path / "out")
    counts = ("--rollouts", 1, "--steps", 2, "--arm", "no_p")
    pictures(["rollouts", "--preset", "smoke", *map(str, (*places, *counts))])
    assert (tmp_path / "out" / "rollout_no_p_0.gif").is_file()
    for name in ("rollout_no_p_0.png", "masks_no_p.png"):
        assert matplotlib.image.imread(tmp_path / "out" / name).std() > 0


def world_model_pictures(frames_of, tmp_path, *arguments):
    places = ("--data", frames_of("four"), "--root", tmp_path, "--out", tmp_path / "out")
    counts = ("--preset", "smoke", "--steps", 2, "--seen", 3, "--ahead", 2, "--sequences", 1)
    pictures(["world-model", *map(str, (*places, *counts, *arguments))])


def test_a_world_model_is_trained_once_and_drawn(frames_of, tmp_path, capsys, monkeypatch):
    overrides = ("--model", "rnn", "--set", "sizes.dim=6", "--set", "training.batch=2")
    world_model_pictures(frames_of, tmp_path, *overrides)
    assert "rnn, seed 0: 2/2" in capsys.readouterr().err
    monkeypatch.setattr(world_model, "train_phase", None)
    world_model_pictures(frames_of, tmp_path, *overrides, "--test", frames_of("other"))
    assert matplotlib.image.imread(tmp_path / "out" / "rnn_0.png").ndim == 3
    with Image.open(tmp_path / "out" / "rnn_0.gif") as film:
        assert film.n_frames == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seed", -2), "a seed of 0 or more, found -2"),
        (("--ahead", 20), "23 frames or more"),
        (("--model", "rnn", "--test-groups", 3), "2 groups or more"),
        (("--out", "rollout.csv"), "expected a folder for --out, .*rollout.csv"),
    ],
)
def test_what_cannot_be_drawn_is_not_trained(frames_of, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(world_model, "train_phase", None)
    with pytest.raises(RMRError, match=message):
        world_model_pictures(frames_of, tmp_path, *arguments)
