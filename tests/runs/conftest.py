"""Stages that workers and other processes can import are in squares.py, which is on the path."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def store(tmp_path):
    from rmr_gym.runs.store import Store

    return Store(tmp_path / "store")
