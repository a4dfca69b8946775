import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rmr_objects
from PIL import Image

from rmr_gym.core.errors import RMRError

MODULE = "ocatari.ram.extract_ram_info"
BALL, OTHER = ("Ball", (10, 20, 2, 4), (0, 0, 0)), ("Ball", (50, 60, 2, 4), (0, 0, 0))


def moved(boxes, right, down):
    return [(name, (x + right, y + down, w, h), rgb) for name, (x, y, w, h), rgb in boxes]


def test_objects_are_paired_whatever_their_order():
    pairs = [*rmr_objects.distances([BALL, OTHER], moved([OTHER, BALL], 3, 4))]
    assert pairs == [("Ball", "pair", 5.0)] * 2


def test_what_is_missed_and_what_is_not_there_has_no_distance():
    assert [*rmr_objects.distances([BALL], [])] == [("Ball", "missed", np.inf)]
    assert [*rmr_objects.distances([], [BALL])] == [("Ball", "false", np.inf)]
    taken = [*rmr_objects.distances([BALL], moved([OTHER, BALL], 1, 0))]
    assert taken == [("Ball", "pair", 1.0), ("Ball", "false", np.inf)]


def test_scores():
    kinds = ["pair", "pair", "pair", "missed", "false"]
    rows = pd.DataFrame({"kind": kinds, "far": [0.0, 3.0, 9.0, np.inf, np.inf]})
    expected = {"count": 4, "exact": 0.25, "near": 0.5, "error": 4, "false": 0.5}
    assert dict(rmr_objects.scores(rows)) == expected


def test_labelled_bytes_are_compared_by_their_values():
    true = np.zeros((3, 128), np.uint8)
    believed = true.copy()
    believed[:, 49] = 200, 0, 2  # ball_x; the first instant counts for none
    far = {name: [] for name, *_ in rmr_objects.byte_rows("Pong", true, believed)}
    for name, _, gap in rmr_objects.byte_rows("Pong", true, believed):
        far[name].append(gap)
    assert far["byte: ball_x"] == [0, 2]
    assert far["byte: score_clock_lives_display"] == [0] * 4


def test_wrong_bits_are_counted_a_byte_after_the_first_instant():
    wrong = np.zeros((3, 128, 8), bool)
    wrong[0], wrong[1, 49, :3], wrong[2, 8, 0] = True, True, True
    labelled, others = "wrong bits: labelled", "wrong bits: others"
    expected = [(labelled, "pair", 3), (labelled, "pair", 0), (others, "pair", 0)]
    assert rmr_objects.bit_rows("Pong", wrong, [49, 8]) == [*expected, (others, "pair", 1)]


@pytest.fixture
def ball_only(monkeypatch):
    """Stand in for OCAtari: Pong's ball as it has it, and RAM that it cannot read."""

    def detect(objects, ram, game, hud):
        if ram[49] < 0 or ram[4] == 255:
            raise ValueError("the requested array has an inhomogeneous shape")
        place = (ram[49] - 49, ram[54] - 14, 2, 4)
        objects[0] = SimpleNamespace(category="Ball", xywh=place, rgb=(236, 236, 236))

    module = SimpleNamespace(init_objects=lambda game, hud: [None], detect_objects_ram=detect)
    monkeypatch.setitem(sys.modules, MODULE, module)


@pytest.mark.usefixtures("ball_only")
def test_differences_of_bytes_do_not_wrap_and_unreadable_ram_shows_nothing(capsys):
    ram = np.zeros((2, 128), np.uint8)
    ram[1, 4] = 255
    first, second = rmr_objects.seen("Pong", ram)
    assert first == [("Ball", (-49, -14, 2, 4), (236, 236, 236))]
    assert second == []
    assert capsys.readouterr().out.startswith("1 instants are RAM that OCAtari cannot read")


@pytest.mark.usefixtures("ball_only")
def test_table_and_film(tmp_path, capsys):
    film = tmp_path / "pong.gif"
    played = ["--game", "Pong", "--steps", "4", "--episodes", "2"]
    rmr_objects.main([*played, "--film", str(film)])
    printed = capsys.readouterr().out
    (ball,) = (line.split() for line in printed.splitlines() if line.startswith("Ball"))
    assert ball[1:3] == ["belief", "8"]
    assert "byte: player_y" in printed
    with Image.open(film) as shown:
        assert shown.n_frames >= 2  # equal frames are joined
        assert shown.size == (2 * 3 * 160, 30 + 3 * 210)


def test_real_positions_are_where_the_screen_shows_them(capsys):
    pytest.importorskip("ocatari", reason="OCAtari asks for an older NumPy: not among the extras")
    importlib.import_module(MODULE)
    rmr_objects.main(["--game", "Breakout", "--steps", "40", "--episodes", "1"])
    printed = capsys.readouterr().out
    assert float(printed.split("on the screen:")[1]) > 0.95
    (player,) = (line.split() for line in printed.splitlines() if line.startswith("Player"))
    assert float(player[4]) > 0.8


def test_without_ocatari_one_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(RMRError, match=r"expected OCAtari.*pip install --no-deps ocatari==2\.2\.1"):
        rmr_objects.main(["--game", "Pong"])


def test_a_game_that_ocatari_does_not_know_is_refused(monkeypatch):
    def init_objects(game, hud):
        raise KeyError(f"Game module does not exist: {game}")

    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(init_objects=init_objects))
    with pytest.raises(RMRError, match="expected a game that OCAtari knows, got Pongo"):
        rmr_objects.main(["--game", "Pongo"])
