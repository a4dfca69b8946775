"""Fixtures shared by the tests: tiny recordings of real games, made once a session."""

import signal
from dataclasses import replace

import pytest

# A run that was started in the background ignores Ctrl-C, and so would what the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = {"train_episodes": 4, "validation_episodes": 2, "max_steps": 70}


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """Record a game once; the folder must not be changed."""
    from rmr_gym.agents.record import record

    folders = {}

    def recording_of(game):
        if game not in folders:
            folders[game] = tmp_path_factory.mktemp("data") / game
            record(
                game,
                folders[game],
                episodes=TINY["train_episodes"] + TINY["validation_episodes"],
                max_steps=TINY["max_steps"],
            )
        return folders[game]

    return recording_of


@pytest.fixture(scope="session")
def tiny_preset():
    """The smoke preset, shrunk until a whole chain takes seconds."""
    from rmr_gym.domains.atari import AtariModel
    from rmr_gym.protocol.config import PRESETS, Natural, Pretraining, Probing, Recording

    return replace(
        PRESETS["smoke"],
        name="tiny",
        model=AtariModel(dim=4, trunk="nature", height=84, width=84),
        recording=Recording(**TINY),
        pretraining=Pretraining(steps=6, batch=8, checkpoints=(3, 6), validation_rows=40),
        natural=Natural(checkpoints=(2, 4), batch=8),
        probing=Probing(train_rows=60, test_rows=40),
    )


@pytest.fixture
def task(recorded, tiny_preset, tmp_path):
    """The tiny chain on Pong with a store of its own."""
    from rmr_gym.protocol.stages import GameTask

    return GameTask("Pong", recorded("Pong"), tmp_path / "store", tiny_preset)
