import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

import rmr_gym  # noqa: F401  (registers the environments)

PATH = Path(__file__).parents[2] / "examples" / "bouncing_balls.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("bouncing_balls_example", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("preset", ["rmr", "rnem-curtain"])
def test_it_runs_and_writes_what_it_says(example, preset, tmp_path, capsys):
    sizes = ["--frames", "20", "--size", "64", "--worlds", "3"]
    example.main(["--preset", preset, *sizes, "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "equal: True" in printed
    with Image.open(tmp_path / f"{preset}.gif") as film:
        assert film.n_frames == 21
        frames = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(film)]
    assert frames[0].shape == (64, 64, 3)
    assert not np.array_equal(frames[0], frames[-1])
    with Image.open(tmp_path / f"{preset}.png") as sheet:
        assert sheet.size == (8 * (64 * 3 + 4), 2 * (64 * 3 + 4))
