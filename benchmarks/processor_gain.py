"""How loud a P is: what its core makes of a difference between two states.

P returns its core's output plus its input. The frames of a game go through the encoder that was
never trained, and the core of each P maps the latents. Printed, and written as CSV: the size of
the core's output beside its input's, and the gain, the size of the difference between the outputs
for two frames over that of the inputs, for P that were pretrained, shuffled, random and amplified.

Run it after `rmr-gym sweep transfer` of the same games, whose data and P it finds under --root:
`python benchmarks/processor_gain.py --root runs --out results/processor_gain.csv`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.transfer_donors import (
    amplified_random_donor,
    random_dynamics_donor,
    read_donor,
)
from torch import Tensor

from rmr_gym.commands.tasks import game_tasks
from rmr_gym.models.rmr.processors import Processor
from rmr_gym.protocol import stages
from rmr_gym.stages.arms import arm_processor
from rmr_gym.stages.presets import find_preset

DONORS = ("Pong", "Breakout", "Freeway", "Seaquest", "Boxing", "MsPacman")
FRAMES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--games", nargs="+", default=["Freeway", "Pong", "Boxing"])
    parser.add_argument("--donors", nargs="+", default=list(DONORS))
    parser.add_argument("--balls", type=Path, help="artifact of `rmr-gym balls pretrain`")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, donors = [], tasks(options.donors, options.root)
    for task in tasks(options.games, options.root):
        frames = stages.probe_sets(task).test.frames
        chosen = torch.linspace(0, len(frames) - 1, FRAMES).long()
        with torch.no_grad():
            latents = stages.untrained_encoder(task, 0)(frames[chosen])
            for name, processor in processors(task, donors, options.balls):
                rows.append({"frames": task.game, "p": name, **loudness(processor, latents)})
                print(*(f"{value:.3f}" if isinstance(value, float) else f"{value:17}"
                        for value in rows[-1].values()), flush=True)  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.pivot_table(index="p", values=["output", "gain"], sort=False).round(3))
    if options.out:
        table.round(4).to_csv(options.out, index=False)


def tasks(games: list[str], root: Path) -> list[GameTask]:
    """Return tasks under the laptop preset; what is not recorded is recorded now."""
    return game_tasks(
        *(games, find_preset("laptop"), root),
        data=None,
        device="cpu",
        workers=1,
        progress_for=lambda title: None,
    )


def processors(
    task: GameTask, donors: list[GameTask], balls: Path | None
) -> Iterator[tuple[str, Processor]]:
    """Yield every P by name."""
    model = task.preset.model
    kept = {donor.game: stages.pretrained(donor) for donor in donors}
    kept |= {
        donor.name: donor.pretrained()
        for donor in (random_dynamics_donor(task), amplified_random_donor(task))
    }
    if balls is not None:
        kept["balls"] = read_donor("balls", balls, model)
    for name, artifact in kept.items():
        yield name, arm_processor("rmr", model, 0, artifact.part("processor"))
    own = stages.pretrained(task).part("processor")
    for arm in ("shuffled_p", "random_p"):
        yield arm, arm_processor(arm, model, 0, own)


def loudness(processor: Processor, latents: Tensor) -> dict[str, float]:
    """Return root mean squares of the core's output over its input's, and of their differences."""
    latents = latents + processor.action_encoder.weight[:, 0] + processor.action_encoder.bias
    outputs = processor.core(latents)
    inputs, changes = (part - part.roll(1, 0) for part in (latents, outputs))
    moved = inputs.square().sum(-1) > np.finfo(np.float32).eps
    return {
        "output": float(outputs.square().mean().div(latents.square().mean()).sqrt()),
        "gain": float(changes[moved].square().mean().div(inputs[moved].square().mean()).sqrt()),
    }


if __name__ == "__main__":
    main()
