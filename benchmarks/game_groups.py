"""What world models of a game's binary frames know: changed pixels, and which groups hold what.

    python benchmarks/game_groups.py --data SpaceInvaders --test SpaceInvaders-unseen \
        --models rnem rnnem memoryless --groups 4 --steps 1000 --csv rows.csv

Models are those that `rmr-gym run world-models` trained with the same options; none is trained
here. All frames of the test sequences are shown; the last predictions of each count.

Rows of kind "all" say of all pixels: F1 of those that are predicted to change (lit above .5 and
dark before, or the other way round) against those that do, with its precision and recall, and for
models with groups ``share``, that of the group with most of a lit pixel (1 / K where all groups are
alike), and the adjusted Rand index of the groups and the kinds on the lit pixels. Rows of kind "lit
anew" say the first three of the pixels that were dark. The other rows say of a kind, whose lit
pixels are those of a rectangle of the frame (`KINDS`): the best F1 that a group has as a detector
of the kind among all lit pixels, with its precision and recall, and as ``f1_whole`` the F1 of a
group that held all lit pixels; the group is chosen anew in each sequence.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rmr_gym.commands.console import progress_bars
from rmr_gym.core.metrics import foreground_ari
from rmr_gym.experiments.worlds import WorldOptions
from rmr_gym.models.world.frames import CUT
from rmr_gym.runs.store import Store
from rmr_gym.stages.world_model import SCORE_BATCH, RecordedFrames, batches, simulate

KINDS = {
    "SpaceInvaders": {
        "invaders": np.s_[:64, :], "shields": np.s_[64:75, :], "player": np.s_[78:, :],
    },
    "Breakout": {
        "bricks": np.s_[11:31, 4:80], "left wall": np.s_[:, :4], "right wall": np.s_[:, 80:],
        "paddle": np.s_[80:, 4:80],
    },
}  # fmt: skip
"""Rows and columns of the 84 x 84 frame by game and kind; what flies between is of no kind."""

COLUMNS = ("game", "model", "seed", "kind", "f1", "precision", "recall", "f1_whole", "ari", "share")


def detection(hits: Any, said: Any, true: Any) -> tuple[Any, ...]:
    """F1, precision and recall; 0 where nothing is said, or nothing is true."""
    parts = (2 * hits, said + true), (hits, said), (hits, true)
    return tuple(part / np.maximum(whole, 1) for part, whole in parts)


def changed(made: torch.Tensor, frames: torch.Tensor) -> np.ndarray:
    """How many pixels change as predicted, are predicted to, and do; and of those dark before."""
    before, after = frames[:, :-1] > CUT, frames[:, 1:] > CUT
    said, true = (made > CUT) != before, after != before
    parts = [(said & true, said, true), (said & true & ~before, said & ~before, true & ~before)]
    return np.array([[int(part.sum()) for part in row] for row in parts])


def score(network: Any, test: RecordedFrames, length: int, last: int, game: str) -> list[dict]:
    """Return the rows of a model."""
    clips, kinds = test.scored(length + 1, 200), list(KINDS.get(game, {}).values())
    place = np.zeros(clips.shape[:2], np.uint8)
    for number, where in enumerate(kinds, 1):
        place[where] = number
    counts, shares, indices, found = np.zeros((2, 3)), [], [], []
    for batch in batches(network, clips, SCORE_BATCH, "world model scores"):
        made, groups, *_ = simulate(network, batch)
        counts += changed(made[:, -last:], batch.frames[:, -last - 1 :])
        if groups is None:
            continue
        lit = batch.frames[:, :-1, ..., 0].numpy() > CUT
        shares.append(groups.amax(2).numpy()[:, -last:][lit[:, -last:]])
        if not kinds:
            continue
        kind = lit * place
        for truth, hard in zip(kind[:, -last:], groups[:, -last:].argmax(2).numpy(), strict=True):
            indices += [*foreground_ari(truth, hard)]
            slots = np.arange(groups.shape[2])[:, None, None, None]
            found.append(best_groups(truth, hard[None] == slots, len(kinds)))
    rows: list[dict[str, Any]] = [
        {"kind": name, **dict(zip(("f1", "precision", "recall"), detection(*row), strict=True))}
        for name, row in zip(("all", "lit anew"), counts, strict=True)
    ]
    if shares:
        rows[0]["share"] = np.concatenate(shares).mean()
    if indices:
        rows[0]["ari"] = np.nanmean(indices)
    for number, name in enumerate(KINDS.get(game, {}) if found else ()):
        scores = np.array([sequence[number] for sequence in found])
        means = scores[~np.isnan(scores[:, 0])].mean(axis=0).tolist()
        columns = ("f1", "precision", "recall", "f1_whole")
        rows.append({"kind": name, **dict(zip(columns, means, strict=True))})
    return rows


def best_groups(truth: np.ndarray, held: np.ndarray, kinds: int) -> list[list[float]]:
    """F1, precision and recall of the best group, and F1 of the whole, of each kind in a sequence.

    Args:
        truth: Kind of each lit pixel of each frame; 0 elsewhere.
        held: Which pixels each group holds.
        kinds: How many kinds there are; NaN for those that are not seen.
    """
    lit, rows = truth > 0, []
    for kind in range(1, kinds + 1):
        true = truth == kind
        scores = [detection((part & true).sum(), (part & lit).sum(), true.sum()) for part in held]
        whole = detection(true.sum(), lit.sum(), true.sum())[0]
        rows.append([*max(scores), whole] if true.any() else [np.nan] * 4)
    return rows


def main() -> None:
    """Score all models, print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--groups", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--set", nargs="+", default=[])
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--csv", type=Path, required=True)
    given = parser.parse_args()
    options = WorldOptions(
        data=given.data, root=given.root, steps=given.steps, overrides=(tuple(given.set),)
    )
    with progress_bars() as progress_for:
        models = options.planned(given.models, progress_for, given.groups)
    game, store, rows = given.data.name, Store(given.root / "store"), []
    for model in models:
        trained = store.find(model.trained(0))
        if trained is None:
            raise SystemExit(f"{model.label} is not trained with these options: run it first")
        scoring, test = model.preset.scoring, RecordedFrames(given.test)
        found = score(model.network(trained), test, scoring.length, scoring.last, game)
        names = {"game": game, "model": model.label, "seed": 0}
        rows += [names | row for row in found]
        print(*rows[-len(found) :], sep="\n", flush=True)
    with given.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            numbers = {name: f"{row[name]:.4f}" for name in COLUMNS[4:] if name in row}
            writer.writerow(row | numbers)


if __name__ == "__main__":
    main()
