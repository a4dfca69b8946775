"""Every registered environment has a film in the gallery."""

import re
from pathlib import Path

import gymnasium as gym
import pytest
from PIL import Image

import rmr_gym  # noqa: F401  (registers the environments)

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = re.findall(r"!\[([^]]*)\]\((pictures/gallery/[^)]*)\)", (DOCS / "gallery.md").read_text())


def test_all_that_is_registered_is_shown_and_every_film_is_used():
    assert {name for name in gym.registry if name.startswith("rmr/")} <= {name for name, _ in SHOWN}
    films = {str(path.relative_to(DOCS)) for path in (DOCS / "pictures" / "gallery").iterdir()}
    assert films == {path for _, path in SHOWN}


@pytest.mark.parametrize("path", [path for _, path in SHOWN])
def test_films_are_small_and_move(path):
    assert (DOCS / path).stat().st_size < 100_000
    with Image.open(DOCS / path) as film:
        assert film.n_frames >= 29
