import subprocess

import numpy as np
import pytest
from PIL import Image, ImageSequence

from rmr_gym.core.errors import RMRError
from rmr_gym.report import pictures
from rmr_gym.report.pictures import enlarged, write_film, write_sheet


def test_a_film_shows_the_frames_that_were_given(tmp_path):
    frames = [np.full((6, 8, 3), level, np.uint8) for level in (0, 120, 255)]
    path = write_film(tmp_path / "new" / "film.gif", frames, fps=10.0)
    with Image.open(path) as film:
        shown = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(film)]
        assert film.info["duration"] == 100
    assert len(shown) == 3
    for frame, seen in zip(frames, shown, strict=True):
        assert np.abs(frame.astype(int) - seen).max() <= 2


def test_mp4_shows_the_frames_and_pads_odd_sizes(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((33, 47, 3), level, np.uint8) for level in (0, 120, 255)]
    path = write_film(tmp_path / "film.mp4", frames, fps=10.0)
    assert ffmpeg.count_frames_and_secs(str(path)) == (3, pytest.approx(0.3, abs=0.02))
    command = [ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(3, 34, 48)
    for seen, level in zip(shown, (0, 120, 255), strict=True):
        assert np.abs(seen[:30, :44].astype(int) - level).max() <= 3


def test_mp4_without_ffmpeg_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(RMRError, match=r"pip install imageio\[ffmpeg\]"):
        write_film(tmp_path / "film.mp4", [np.zeros((2, 2, 3), np.uint8)])


def test_a_sheet_fills_its_last_row(tmp_path):
    frames = [np.full((4, 4, 1), level, np.uint8) for level in (10, 200, 30)]
    path = write_sheet(tmp_path / "sheet.png", frames, columns=2, times=3)
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (2 * 16, 2 * 16, 3)
    assert pixels[8, 24].tolist() == [200] * 3
    assert not pixels[16:, 16:].any()


def test_pixels_become_squares():
    assert enlarged(np.array([[[1], [2]]], np.uint8), 2)[..., 0].tolist() == [[1, 1, 2, 2]] * 2


def test_no_frames_and_mixed_sizes_are_refused(tmp_path):
    with pytest.raises(RMRError, match="0 frames"):
        write_film(tmp_path / "x.gif", [])
    mixed = [np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)]
    with pytest.raises(RMRError, match="of 2 sizes"):
        write_film(tmp_path / "x.gif", mixed)
    with pytest.raises(RMRError, match="at least one frame"):
        write_sheet(tmp_path / "x.png", [])
