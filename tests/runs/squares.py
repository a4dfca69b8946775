"""Stages that tell what they do: at work a file with their process's id, then a line each."""

import os
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

from rmr_gym.core.errors import RMRError
from rmr_gym.runs.store import Artifact, Place, stage


def note(place: Place, name: str, text: str) -> None:
    with (place.path / name).open("a") as file:
        file.write(f"{text}\n")


def lines(folder: Path, name: str = "computed") -> list[str]:
    path = folder / name
    return path.read_text().split() if path.exists() else []


@stage(version=1)
def square(value: int, place: Place, seconds: float = 0.0, after: Artifact | None = None):
    del after
    marker = place.path / f"running {value}"
    marker.write_text(str(os.getpid()))
    time.sleep(seconds)
    note(place, "computed", str(value))
    marker.unlink(missing_ok=True)
    threads = {"threads": torch.get_num_threads(), "blas": max(blas_threads(), default=1)}
    rows = {"rows": [{"square": value * value / 7}]}
    return Artifact(rows | threads, {"v": torch.ones(2) * value})


def blas_threads() -> list[int]:
    """Return the threads of each library; how many there are hangs on what the process loaded."""
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@stage(version=1)
def total(parts: list[Artifact]):
    return Artifact({"value": sum(part.record["rows"][0]["square"] for part in parts)})


@stage(version=1)
def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


@stage(version=1)
def die_once(place: Place):
    if not lines(place.path, "died"):
        note(place, "died", "once")
        os.kill(os.getpid(), signal.SIGKILL)
    return Artifact({"value": "alive"})


@stage(version=1)
def fail(message: str = "bad job", until: Place | None = None):
    """Fail; where a place is given, only the first time."""
    if until is None or not lines(until.path, "failed"):
        if until is not None:
            note(until, "failed", "once")
        raise RMRError(message)
    return Artifact({})


@stage(version=1)
def talk(*, warn: bool):
    sys.stdout.write("to stdout\n")
    sys.stderr.write("to stderr\n")
    if warn:
        warnings.warn("of something", stacklevel=1)
    return {}["nothing"]


@stage(version=1)
def interrupt():
    raise KeyboardInterrupt
