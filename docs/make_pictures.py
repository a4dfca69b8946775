"""Draw the pictures of the documentation from a committed run folder.

Run it as ``python docs/make_pictures.py results/laptop-cswm``, from the root of the repository.
"""

import sys
from pathlib import Path

import pandas as pd

from rmr_gym.analysis.figures import (
    checkpoint_curves,
    difference_dots,
    frames_beside_ram,
    save_figure,
)
from rmr_gym.analysis.policy_figure import policy_heat_map, policy_summary
from rmr_gym.analysis.tables import load_run

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
RETURNS = HERE.parent / "results" / "policies.csv"
REFERENCES = HERE.parent / "rmr_gym" / "agents" / "weights" / "references.csv"


def main(folder: str) -> None:
    """Draw every picture that the pages of Atari, the players and the stages show."""
    run, returns = load_run(folder), pd.read_csv(RETURNS)
    summary = policy_summary(returns, pd.read_csv(REFERENCES))
    summary.to_csv(HERE / "policies_summary.csv", index=False, lineterminator="\n")
    pictures = {
        "atari_frames": frames_beside_ram(run, "Pong"),
        "differences": difference_dots(run),
        "checkpoints": checkpoint_curves(run),
        "policies": policy_heat_map(returns),
    }
    for name, figure in pictures.items():
        save_figure(figure, PICTURES / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
