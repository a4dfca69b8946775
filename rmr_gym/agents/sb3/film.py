"""A film of an agent: the game, and beside it how far each slot moves."""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Float, UInt8

from rmr_gym.agents.record import chooser
from rmr_gym.agents.sb3.train import load_agent
from rmr_gym.agents.sb3.worlds import make_games, read_config
from rmr_gym.core.seeding import integer_seed
from rmr_gym.report.pictures import check_film, write_film
from rmr_gym.wrappers.describe import Source
from rmr_gym.wrappers.features import FeatureStream, Options

FRAMES_A_SECOND = 15.0


def film(folder: Path, out: Path, *, steps: int = 500, seed: int = 0) -> int:
    """Write a film of an episode of a folder's most trained agent.

    The screen is at the left. If the agent sees slots, a cell for each is at the right, row by row:
    the brighter, the further the slot is from where it was a step ago, next to the largest
    movement of any slot so far.

    Args:
        folder: Of the agent.
        out: The film, a name that ends in .gif or .mp4.
        steps: At most so many steps.
        seed: Of the episode and of the agent's choices.

    Returns:
        The number of frames.

    Raises:
        RMRError: There is no agent in the folder, or the film cannot be written.
    """
    check_film(out)
    agent, config = load_agent(folder), read_config(folder)
    agent.set_random_seed(integer_seed(seed, "film", config.game))
    venv = make_games(config, copies=1, learning=False)
    venv.seed(integer_seed(seed, "evaluation", config.game))
    observation, choose = venv.reset(), chooser(agent)
    over, screens = False, [_screen(venv)]
    while not over and len(screens) <= steps:
        observation, _, (over,), _ = venv.step(choose(observation))
        if not over:
            screens.append(_screen(venv))
    venv.close()
    if config.encoder is not None:
        screens = beside(screens, movements(_slots_of(config.encoder, screens)))
    write_film(out, screens, FRAMES_A_SECOND)
    return len(screens)


def movements(slots: Float[np.ndarray, "time slots dim"]) -> Float[np.ndarray, "time slots"]:
    """Return how far each slot moved, from 0 to 1; 0 in the first frame."""
    moved = np.linalg.norm(np.diff(slots, axis=0, prepend=slots[:1]), axis=2)
    largest = np.maximum.accumulate(moved.max(axis=1, keepdims=True))
    return moved / np.where(largest > 0, largest, 1)


def beside(
    shown: list[UInt8[np.ndarray, "height width 3"]], moved: Float[np.ndarray, "time slots"]
) -> list[UInt8[np.ndarray, "height wide 3"]]:
    """Return screens with a cell a slot at their right, twice as many rows as columns or so."""
    slots, height = moved.shape[1], len(shown[0])
    columns = max(1, round((slots / 2) ** 0.5))
    rows = -(-slots // columns)
    cell = max(1, height // rows)
    pictures = []
    for screen, share in zip(shown, moved, strict=True):
        cells = np.pad((255 * share).astype(np.uint8), (0, rows * columns - slots))
        panel = np.kron(cells.reshape(rows, columns), np.ones((cell, cell), np.uint8))
        panel = np.pad(panel, ((0, max(0, height - len(panel))), (4, 0)))[:height]
        pictures.append(np.concatenate((screen, np.repeat(panel[..., None], 3, 2)), axis=1))
    return pictures


def _screen(venv: Any) -> np.ndarray:
    return np.asarray(venv.env_method("render")[0])


def _slots_of(
    encoder: str, screens: list[UInt8[np.ndarray, "height width 3"]]
) -> Float[np.ndarray, "time slots dim"]:
    """Return the slots of each screen of an episode."""
    source = Source(spaces.Box(0, 255, screens[0].shape, np.uint8))
    stream = FeatureStream(encoder, Options(), source)
    still, goes_on = np.zeros(1, np.int64), np.zeros(1, bool)
    first, *later = (screen[None] for screen in screens)
    slots: list[Any] = [
        stream.begin(first),
        *(stream.step(screen, still, goes_on) for screen in later),
    ]
    return np.concatenate(slots)
