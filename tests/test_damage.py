"""A part of what `benchmarks/damage.py` does, with a seed of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rmr_gym.agents.players.graded import SHIPPED, load_networks
from rmr_gym.core.errors import RMRError

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "damage.py"


def test_damage_ends_in_the_right_data_or_in_a_clear_error():
    """In a process of its own, where no types are checked, as with a user."""
    command = [sys.executable, str(SCRIPT), "--count", "90", "--seed", "7"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=SCRIPT.parents[1]
    )
    assert (done.returncode, "WRONG" in done.stdout) == (0, False), done.stdout
    assert done.stdout.count("told") == 4


def test_shipped_players_have_checksums(monkeypatch, tmp_path):
    for path in SHIPPED.glob("*.safetensors"):
        load_networks(path)
    (tmp_path / "sha256.json").write_bytes((SHIPPED / "sha256.json").read_bytes())
    content = bytearray((SHIPPED / "Pong.safetensors").read_bytes())
    content[int(np.random.default_rng(0).integers(5000, len(content)))] ^= 1
    (tmp_path / "Pong.safetensors").write_bytes(content)
    monkeypatch.setattr("rmr_gym.agents.players.graded.SHIPPED", tmp_path)
    with pytest.raises(RMRError, match=r"Pong\.safetensors is damaged"):
        load_networks(tmp_path / "Pong.safetensors")
