"""The gain of P: what its core makes of a difference between two states.

P returns its core's output plus its input. The frames of a game go through the encoder that was
never trained, and the core of each P maps the latents. Printed, and written as CSV: the size of
the core's output beside its input's, and the gain, the size of the difference between the outputs
for two frames over that of the inputs, for P that were pretrained, shuffled, random and amplified.

Run it after `rmr-gym run transfer` of the same games, whose data and P it finds under --root:
`python benchmarks/processor_gain.py --root runs --out results/processor_gain.csv`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rmr_gym.experiments.atari import AtariExperiment
from rmr_gym.experiments.base import no_progress
from rmr_gym.models.rmr.processors import Processor
from rmr_gym.runs.store import Store
from rmr_gym.stages.chain import UNTRAINED, GameTasks
from rmr_gym.stages.export import amplified_random, dynamics_donor, folder_donor
from rmr_gym.stages.games import probe_sets
from rmr_gym.stages.natural import kept_encoder
from rmr_gym.stages.presets import arm_processor

DONORS = ("Pong", "Breakout", "Freeway", "Seaquest", "Boxing", "MsPacman")
FRAMES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--games", nargs="+", default=["Freeway", "Pong", "Boxing"])
    parser.add_argument("--donors", nargs="+", default=list(DONORS))
    parser.add_argument("--balls", type=Path, help="artifact of `rmr-gym pretrain` on balls")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, store = [], Store(options.root / "store")
    laptop = AtariExperiment(root=options.root, workers=1)
    donors = laptop.recorded(no_progress, options.donors)
    for game in laptop.recorded(no_progress, options.games):
        preset = game.preset
        frames = probe_sets(game.data, preset.model, preset.probing).test.frames
        chosen = torch.linspace(0, len(frames) - 1, FRAMES).long()
        encoder = kept_encoder(preset.model, store.compute(game.trained(UNTRAINED, 0)), 0)
        with torch.no_grad():
            latents = encoder(frames[chosen])
            for name, processor in processors(game, donors, options.balls, store):
                rows.append({"frames": game.name, "p": name, **gain_of(processor, latents)})
                print(*(f"{value:.3f}" if isinstance(value, float) else f"{value:17}"
                        for value in rows[-1].values()), flush=True)  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.pivot_table(index="p", values=["output", "gain"], sort=False).round(3))
    if options.out:
        table.round(4).to_csv(options.out, index=False)


def processors(
    game: GameTasks, donors: list[GameTasks], balls: Path | None, store: Store
) -> Iterator[tuple[str, Processor]]:
    """Yield every P by name."""
    model = game.preset.model
    tasks = {donor.name: donor.pretrained() for donor in donors}
    tasks["random_dynamics"] = dynamics_donor("random_dynamics", game.preset)
    tasks["amplified_random"] = amplified_random(model)
    if balls is not None:
        tasks["balls"] = folder_donor("balls", balls, model)
    for name, task in tasks.items():
        weights = store.compute(task).part("processor")
        yield name, arm_processor("rmr", model, 0, weights)
    own = store.compute(game.pretrained()).part("processor")
    for arm in ("shuffled_p", "random_p"):
        yield arm, arm_processor(arm, model, 0, own)


def gain_of(processor: Processor, latents: Tensor) -> dict[str, float]:
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
