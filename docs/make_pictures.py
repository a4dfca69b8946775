"""Draw the pictures of the documentation from a committed run folder.

Run it as ``python docs/make_pictures.py results/laptop-cswm``.
"""

import sys
from pathlib import Path

from rmr_gym.analysis.figures import (
    checkpoint_curves,
    difference_dots,
    frames_beside_ram,
    save_figure,
)
from rmr_gym.analysis.tables import load_run

PICTURES = Path(__file__).parent / "pictures"


def main(folder: str) -> None:
    """Draw every picture that the pages of Atari and of the stages show."""
    run = load_run(folder)
    pictures = {
        "atari_frames": frames_beside_ram(run, "Pong"),
        "differences": difference_dots(run),
        "checkpoints": checkpoint_curves(run),
    }
    for name, figure in pictures.items():
        save_figure(figure, PICTURES / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
