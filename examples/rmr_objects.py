"""Where objects are on the screen, known from pixels and actions, beside where they truly are.

Run it: `python examples/rmr_objects.py --game Breakout --film breakout.gif`.

OCAtari (Delfosse et al. 2024) turns RAM into objects with positions and sizes. It is given the true
RAM, the belief of it, and what the belief's reader of frames makes of it without memory. The state
variables of Anand et al. 2019 are compared in the same way. In the film true objects are green,
those of a reader red.
"""

import argparse
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from demo.grid import PLAYER, READERS, UNSEEN, track
from scipy.optimize import linear_sum_assignment

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import label_values, ram_labels
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.report.pictures import enlarged, write_film

NEAR = 3
"""An object is found where one of its category is believed at most so many pixels away."""

FAULTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What OCAtari raises on RAM that the game never has; then nothing is seen at that instant."""

Boxes = list[tuple[str, Any, Any]]
"""Objects of one instant: category, (x, y, width, height) and colour."""

Row = tuple[str, str, float]
"""What it is, kind of the comparison, and how far apart true and believed are."""


def seen(game: str, ram: np.ndarray) -> list[Boxes]:
    """Return what OCAtari sees at each instant of an episode, without scores and lives.

    Raises:
        RMRError: OCAtari is missing, or does not know the game.
    """
    try:
        ocatari = import_module("ocatari.ram.extract_ram_info")
        objects = ocatari.init_objects(game, False)
    except ImportError as error:
        raise RMRError(
            f"expected OCAtari, which finds objects in RAM, but {error.name} is missing: `pip "
            "install --no-deps ocatari==2.2.1`, then `pip install termcolor pygame-ce scikit-image`"
        ) from error
    except KeyError as error:
        raise RMRError(f"expected a game that OCAtari knows, got {game}") from error
    instants, faults = [], 0
    for row in ram.astype(int):  # of bytes, its differences would wrap
        try:
            ocatari.detect_objects_ram(objects, row, game, False)
            instants.append([(one.category, one.xywh, one.rgb) for one in objects if one])
        except FAULTS:
            faults += 1
            instants.append([])
    if faults:
        print(f"{faults} instants are RAM that OCAtari cannot read: no object is seen there")
    return instants


def distances(true: Boxes, believed: Boxes) -> Iterator[Row]:
    """Yield category, kind and distance of centres, of pairs and of what is left without one.

    Objects of a category are paired so that the sum of their distances is least. Kinds: "pair",
    "missed", "false".
    """
    for category in sorted({name for name, *_ in [*true, *believed]}):
        sides = [[box for name, box, _ in side if name == category] for side in (true, believed)]
        corners = [np.array(boxes, float).reshape(-1, 2, 2) for boxes in sides]
        here, there = (boxes[:, 0] + boxes[:, 1] / 2 for boxes in corners)
        apart = np.linalg.norm(here[:, None] - there, axis=-1)
        paired = apart[linear_sum_assignment(apart)].tolist()
        yield from ((category, "pair", far) for far in paired)
        yield from [(category, "missed", np.inf)] * (len(here) - len(paired))
        yield from [(category, "false", np.inf)] * (len(there) - len(paired))


def object_rows(true: Sequence[Boxes], believed: Sequence[Boxes]) -> list[Row]:
    """Return a row an object and instant of an episode, without its first instant."""
    return [row for pair in [*zip(true, believed, strict=True)][1:] for row in distances(*pair)]


def byte_rows(game: str, true: np.ndarray, believed: np.ndarray) -> list[Row]:
    """Return the same of labelled bytes; those that are no place are named by their category."""
    labels = ram_labels(game)
    values = [label_values(ram[1:], labels).astype(int) for ram in (true, believed)]
    names = [one.name if "local" in one.category else one.category for one in labels]
    gaps = zip(names, abs(values[0] - values[1]).T.tolist(), strict=True)
    return [(f"byte: {name}", "pair", float(gap)) for name, column in gaps for gap in column]


def bit_rows(game: str, wrong: np.ndarray, scored: Sequence[int]) -> list[Row]:
    """Return how many bits of a scored byte are wrong, of bytes with and without a label."""
    labelled = {label.ram for label in ram_labels(game)}
    kinds = ["wrong bits: labelled" if at in labelled else "wrong bits: others" for at in scored]
    counts = wrong[1:, scored].sum(-1).T.tolist()
    return [(kind, "pair", float(n)) for kind, of in zip(kinds, counts, strict=True) for n in of]


def scores(rows: pd.DataFrame) -> pd.Series:
    """Return how well objects of a category, or a label, are known.

    Of those that are there: ``count``, shares that are ``exact`` and ``near``; of those that are
    there and believed: mean ``error``; of those that are believed: the share that is ``false``,
    with none near.
    """
    true, believed = (rows["far"][rows["kind"] != kind] for kind in ("false", "missed"))
    pairs = rows["far"][rows["kind"] == "pair"]
    shares = {"exact": (true == 0).mean(), "near": (true <= NEAR).mean(), "error": pairs.mean()}
    return pd.Series({"count": len(true), **shares, "false": (believed > NEAR).mean()})


def drawn(boxes: Sequence[Boxes], screens: Sequence[np.ndarray]) -> float:
    """Return the share of objects of whose colour there is something in their box."""
    found = [
        (screen[max(y, 0) : y + height, max(x, 0) : x + width] == colour).all(-1).any()
        for instant, screen in zip(boxes, screens, strict=True)
        for _, (x, y, width, height), colour in instant
    ]
    return float(np.mean(found))


def boxed(screen: np.ndarray, true: Boxes, believed: Boxes, title: str) -> np.ndarray:
    """Return a dark screen with boxes around true objects in green and believed ones in red."""
    large = enlarged(screen // 2, 3)
    for boxes, colour, wide in ((believed, (255, 60, 60), 3), (true, (60, 255, 60), 1)):
        for _, (x, y, width, height), _ in boxes:
            corner = int(3 * (x + width)) + wide, int(3 * (y + height)) + wide
            cv2.rectangle(large, (int(3 * x) - wide, int(3 * y) - wide), corner, colour, 2)
    above = np.zeros((30, large.shape[1], 3), np.uint8)
    cv2.putText(above, title, (6, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255))
    return np.vstack([above & 0xE0, large])  # a GIF frame of more than 256 colours is dithered


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of objects and labels by reader, and in how many episodes each is ahead."""
    by, measured = ["what", "reader"], ["kind", "far"]
    table = rows.groupby(by)[measured].apply(scores)
    near = rows.groupby([*by, "seed"])[measured].apply(scores)["near"].unstack("reader")
    for first, second in (READERS, READERS[::-1]):
        for what, episodes in (near[first] > near[second]).groupby("what").sum().items():
            table.loc[(what, first), "ahead"] = episodes
    return table.round(3).astype({"count": int, "ahead": int})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--game", default="Breakout")
    parser.add_argument("--belief", help="folder or shipped name; default: the game's shipped one")
    parser.add_argument("--start", default="known", choices=["known", "unknown"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--player", default=PLAYER)
    parser.add_argument("--film", help="of the first episode; a name that ends in .gif")
    options = parser.parse_args(arguments)
    game = options.game
    seen(game, np.zeros((0, 128)))  # OCAtari is there, before anything is played
    belief = PretrainedEncoder.from_pretrained(options.belief or f"{game}_belief")
    scored = belief.provenance["data"]["scored"]
    tables, shares, film = [], [], []
    for seed in range(UNSEEN, UNSEEN + options.episodes):
        met = track(game, belief, options.steps, options.start, options.player, seed)
        ram = {name: np.packbits(met[name], axis=-1)[..., 0] for name in ("truth", *READERS)}
        boxes = {name: seen(game, rows) for name, rows in ram.items()}
        for name in READERS:
            rows = [
                *object_rows(boxes["truth"], boxes[name]),
                *byte_rows(game, ram["truth"], ram[name]),
                *bit_rows(game, met["truth"] != met[name], scored),
            ]
            table = pd.DataFrame(rows, columns=["what", "kind", "far"])
            tables.append(table.assign(reader=name, seed=seed))
        shares.append(drawn(boxes["truth"][1:], met["screens"][1:]))
        if options.film and not film:
            for now, screen in enumerate(met["screens"]):
                parts = (boxed(screen, boxes["truth"][now], boxes[n][now], n) for n in READERS)
                film.append(np.hstack([*parts]))
    print(summary(pd.concat(tables)).to_string())
    print(f"share of true objects that are drawn on the screen: {np.mean(shares):.3f}")
    if film:
        print(f"written: {write_film(Path(options.film), film, fps=10.0)}")


if __name__ == "__main__":
    main()
