"""Damage what was written, at random, and see whether reading it tells: no wrong data, no crash.

    python benchmarks/damage.py --count 1000 --seed 0

A small data set, a pretrained encoder with its P, a P alone and a file of players' networks are
written. A copy is damaged in one place (a bit flipped, bytes overwritten, a file cut short,
emptied, deleted or put in another's place, a value of a JSON file changed or removed) and read: it
must be what was written, or reading must end in an `RMRError`. A data set that has lost its last
episode is a shorter one. The exit status is 1 where anything else came out; `--only N` repeats
damage N and shows more.
"""

import argparse
import json
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from rmr_gym.agents.players.graded import SHIPPED, load_networks, save_networks
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset, find_problems
from rmr_gym.data.schema import ColumnSpec, Episode, Manifest, step_columns
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
from rmr_gym.runs.store import Artifact, read_artifact, write_artifact

OTHER_VALUES = (None, True, -1, 0, 7, 2.5, 1e400, "", "x", "uint8", [], [0], {}, {"a": 1}, 10**30)
CONFIG = EncoderConfig("Pong", height=36, width=36, slots=4, maps=1, dim=4, core="mpnn")
MANIFEST = Manifest(
    observations=(ColumnSpec("pixels", "uint8", (30, 24)), ColumnSpec("state", "float32", (3,))),
    steps=step_columns(spaces.Discrete(5)),
    env_id="rmr/Nowhere-v0",
    env_kwargs={"balls": 3},
    actions=5,
    heads=("tester", "other"),
    settings={"seed": 0, "max_steps": None},
    versions={"numpy": "2"},
)


class Target(NamedTuple):
    """What can be damaged."""

    write: Callable[[Path], None]
    require: Callable[[Path], None]
    """Reads it, and raises an AssertionError where it is not what was written."""


def episode(index: int, length: int) -> Episode:
    rng = np.random.default_rng(index)
    return Episode(
        index,
        seed=index,
        head="tester",
        observations={
            "pixels": rng.integers(0, 256, (length + 1, 30, 24), dtype=np.uint8),
            "state": rng.normal(size=(length + 1, 3)).astype(np.float32),
        },
        actions=rng.integers(0, 5, length),
        rewards=rng.normal(size=length),
        terminated=np.arange(length) == length - 1,
        truncated=np.zeros(length, bool),
    )


EPISODES = tuple(episode(index, length) for index, length in enumerate((40, 7, 12)))


def write_dataset(folder: Path) -> None:
    with DatasetWriter(folder, MANIFEST) as writer:
        for written in EPISODES:
            writer.write(written)


def require_dataset(folder: Path) -> None:
    """Read with and without comparing checksums of episodes; columns are right in both."""
    dataset = TransitionDataset(folder)
    for position, info in enumerate(dataset.episodes):
        found, written = dataset.episode(position), EPISODES[info.index]
        assert content(found) == content(written), "columns"
    if problems := find_problems(folder):
        raise RMRError(problems[0])
    for position in range(len(dataset.episodes)):
        assert repr(dataset.episode(position)) == repr(EPISODES[position]), "what is known of it"
    assert dataset.manifest == MANIFEST, "manifest"


def content(found: Episode) -> dict[str, bytes]:
    return {name: rows.tobytes() for name, rows in found.columns.items()}


def encoder() -> PretrainedEncoder:
    torch.manual_seed(0)
    return PretrainedEncoder(CONFIG, CONFIG.encoder(), CONFIG.processor(), {"data": {"seed": 1}})


def write_encoder(folder: Path) -> None:
    encoder().save_pretrained(folder)


def require_encoder(folder: Path) -> None:
    found, written = PretrainedEncoder.from_pretrained(folder), encoder()
    assert found.config == CONFIG, "configuration"
    assert found.provenance["data"] == {"seed": 1}, "provenance"
    for part in ("encoder", "processor"):
        weights = getattr(written, part).state_dict()
        for name, tensor in getattr(found, part).state_dict().items():
            assert torch.equal(tensor, weights[name]), "weights"


def players() -> tuple[Any, Any]:
    return load_networks(SHIPPED / "Pong.safetensors")


def write_players(folder: Path) -> None:
    folder.mkdir()
    save_networks(folder / "Pong.safetensors", *players())


def require_players(folder: Path) -> None:
    (found, notes), (written, about) = load_networks(folder / "Pong.safetensors"), players()
    assert notes == about, "notes"
    assert list(found) == list(written), "levels"
    for name, network in found.items():
        for layer, other in zip(network.layers, written[name].layers, strict=True):
            assert all(map(np.array_equal, layer, other)), "weights"


def processor() -> Artifact:
    return Artifact({"processor_hash": "f", "rows": [{"step": 1}]}, encoder().encoder.state_dict())


def write_processor(folder: Path) -> None:
    write_artifact(folder, processor())


def require_processor(folder: Path) -> None:
    found, written = read_artifact(folder), processor()
    assert found.record == written.record, "record"
    assert list(found.tensors) == sorted(written.tensors), "names"
    for name, tensor in written.tensors.items():
        assert torch.equal(found.tensors[name], tensor), "weights"


TARGETS = {
    "data set": Target(write_dataset, require_dataset),
    "encoder": Target(write_encoder, require_encoder),
    "processor": Target(write_processor, require_processor),
    "players": Target(write_players, require_players),
}


def damage(folder: Path, rng: np.random.Generator) -> str:
    """Damage one file of a folder; return what was done."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    path = paths[rng.integers(len(paths))]
    kinds = [flip, overwrite, cut, empty, delete, exchange]
    kind = change_value if path.suffix == ".json" and rng.random() < 0.7 else rng.choice(kinds)
    return f"{path.relative_to(folder)}: {kind(path, rng)}"


def flip(path: Path, rng: np.random.Generator) -> str:
    """Flip a bit, half of the time among the first 4,096 bytes, where the structure is."""
    written = bytearray(path.read_bytes())
    at = int(rng.integers(min(len(written), rng.choice([4096, len(written)]))))
    written[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(written)
    return f"a bit of byte {at} flipped"


def overwrite(path: Path, rng: np.random.Generator) -> str:
    written, count = bytearray(path.read_bytes()), int(rng.integers(1, 200))
    at = int(rng.integers(len(written)))
    written[at : at + count] = rng.choice([b"\0", b"\xff", b"7"]) * len(written[at : at + count])
    path.write_bytes(written)
    return f"{count} bytes from {at} overwritten"


def cut(path: Path, rng: np.random.Generator) -> str:
    length = int(rng.integers(path.stat().st_size))
    path.write_bytes(path.read_bytes()[:length])
    return f"cut to {length} bytes"


def empty(path: Path, rng: np.random.Generator) -> str:
    path.write_bytes(b"")
    return "emptied"


def delete(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    return "deleted"


def exchange(path: Path, rng: np.random.Generator) -> str:
    others = sorted(other for other in path.parent.iterdir() if other.is_file())
    other = others[rng.integers(len(others))]
    path.write_bytes(other.read_bytes())
    return f"replaced by {other.name}"


def change_value(path: Path, rng: np.random.Generator) -> str:
    record = json.loads(path.read_text())
    places = list(places_in(record))
    parent, key = places[rng.integers(len(places))]
    before = parent[key]
    if rng.random() < 0.2:
        del parent[key]
        change = "removed"
    else:
        parent[key] = OTHER_VALUES[rng.integers(len(OTHER_VALUES))]
        change = f"now {parent[key]!r}"
    path.write_text(json.dumps(record))
    return f"{key} was {before!r}, {change}"


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a JSON value, as what holds it and where."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield value, key
        yield from places_in(value[key])


def outcomes(count: int, seed: int, only: int | None = None) -> Iterator[tuple[str, str, str]]:
    """Yield, for each damage, its target, what was done and what came of it."""
    with tempfile.TemporaryDirectory() as name:
        whole, copy = Path(name) / "whole", Path(name) / "copy"
        whole.mkdir()
        for target, (write, require) in TARGETS.items():
            write(whole / target)
            require(whole / target)
        for number in range(count) if only is None else [only]:
            rng = np.random.default_rng([seed, number])
            target = list(TARGETS)[number % len(TARGETS)]
            shutil.copytree(whole / target, copy)
            done = damage(copy, rng)
            yield target, done, outcome(TARGETS[target], copy, loud=only is not None)
            shutil.rmtree(copy)


def outcome(target: Target, folder: Path, *, loud: bool) -> str:
    try:
        target.require(folder)
    except RMRError as error:
        if loud:
            print(error)
        return "told"
    except Exception as error:
        if loud:
            traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return "right"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of one damage, to see what it comes to")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    wrong = 0
    for number, (target, done, came) in enumerate(outcomes(**vars(options))):
        counts[target, came if came in ("told", "right") else "WRONG"] += 1
        if came not in ("told", "right"):
            wrong += 1
            print(f"{number if options.only is None else options.only} {target}, {done}: {came}")
    for (target, came), many in sorted(counts.items()):
        print(f"{target:>10} {came:>6} {many}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
