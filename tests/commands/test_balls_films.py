import pytest
from PIL import Image

from rmr_gym.commands.balls import app
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.config import PRESETS


def test_a_film_and_a_sheet_of_every_preset(tmp_path):
    app.cli(args=["films", "--out", str(tmp_path), "--frames", "3", "--size", "32"])
    for preset in PRESETS:
        with Image.open(tmp_path / f"{preset}.gif") as film:
            assert (film.n_frames, film.size) == (4, (32, 32))
        assert (tmp_path / f"{preset}.png").is_file()


def test_bad_input_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(RMRError, match="rnem-4"):
        app.cli(args=["films", "--out", str(tmp_path), "--presets", "rmr", "rnem-44"])
    with pytest.raises(RMRError, match="1 or more"):
        app.cli(args=["films", "--out", str(tmp_path), "--frames", "0"])
    assert not list(tmp_path.iterdir())
