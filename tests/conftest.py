"""Fixtures shared by the tests: tiny recordings of real games, made once a session."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

# The tests run side by side, a process a core: more threads in each would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run that was started in the background ignores Ctrl-C, and so would what the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def logs_of_agents(tmp_path_factory):
    """Let loggers of Stable-Baselines3, which make a folder each, make them where it is removed."""
    os.environ["SB3_LOGDIR"] = str(tmp_path_factory.mktemp("logs"))


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
    from rmr_gym.stages.presets import PRESETS, Natural, Pretraining, Probing, Recording

    return replace(
        PRESETS["smoke"],
        model=AtariModel(dim=4, trunk="nature", height=84, width=84),
        recording=Recording(**TINY),
        pretraining=Pretraining(steps=6, batch=8, checkpoints=(3, 6), validation_rows=40),
        natural=Natural(checkpoints=(2, 4), batch=8),
        probing=Probing(train_rows=60, test_rows=40),
    )


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """A store that all tests share: what one computed, the others find."""
    from rmr_gym.runs.store import Store

    return Store(tmp_path_factory.mktemp("chain") / "store")


@pytest.fixture
def tiny(chain, recorded, tiny_preset, tmp_path, monkeypatch):
    """Options of a tiny run of one seed on Pong, which finds what other tests computed."""
    from rmr_gym.stages.presets import PRESETS

    monkeypatch.setitem(PRESETS, "tiny", replace(tiny_preset, games=("Pong",), seeds=1))
    data = recorded("Pong").parent
    return {"root": chain.root.parent, "data": data, "workers": 1, "out": tmp_path / "out"}


@pytest.fixture(scope="session")
def forget_loaded():
    """Let go of all data that the stages have loaded in this process."""

    def forget():
        for name, module in list(sys.modules.items()):
            if name.startswith("rmr_gym.stages."):
                for value in vars(module).values():
                    getattr(value, "cache_clear", lambda: None)()

    return forget


@pytest.fixture
def two_games(recorded, tmp_path):
    """A folder of the data sets of two games, as experiments look for them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("Pong", "Breakout"):
        (folder / name).symlink_to(recorded(name))
    return folder


@pytest.fixture(scope="session")
def game(recorded, tiny_preset):
    """The tiny chain on Pong."""
    from rmr_gym.stages.chain import GameTasks
    from rmr_gym.stages.games import GameData

    return GameTasks(GameData.of("Pong", recorded("Pong"), tiny_preset.recording), tiny_preset)


EFFECT = {
    "rmr": 0.0,
    "cswm": 0.0,
    "random_p": -0.01,
    "shuffled_p": 0.002,
    "no_p": -0.03,
    "untrained": 0.04,
    "supervised": 0.08,
    "pca": 0.05,
}
REFERENCES = ("untrained", "pca")
INFO = {
    "command": "rmr-gym compare --games Pong Freeway --preset smoke",
    "preset": "smoke",
    "games": ["Pong", "Freeway"],
    "config": {"name": "smoke", "seeds": 3, "natural": {"objective": "cswm", "batch": 50}},
    "seeds": [0, 1, 2, 3, 4, 5],
    "objective": "cswm",
    "checkpoints": [300, 1000],
    "probes": ["ridge", "adam_raw"],
    "versions": {"rmr_gym": "0.1.0", "torch": "2.13.0"},
    "machine": {"cpu": "2 cores", "platform": "Linux <x86_64> & more"},
    "started": "2031-01-01T10:00:00",
    "finished": "2031-01-01T10:05:00",
    "seconds": 300.0,
    "datasets": {
        "Pong": {"fingerprint": "ab12" * 16, "episodes": 18, "transitions": 3600},
        "Freeway": {"fingerprint": "cd34" * 16, "episodes": 18, "transitions": 3600},
    },
    "slots": {"Pong": 40, "Freeway": 51},
}


def natural_rows(games, seeds, steps, probes, effect):
    """F1 that falls as training goes on; one seed's noise is shared by all arms but a little."""
    rng = np.random.default_rng(0)
    rows = []
    for game, seed, probe in product(games, range(seeds), probes):
        shared = rng.normal(0, 0.01)
        for arm, step in product(effect, steps):
            if arm in REFERENCES and step != steps[0]:
                continue
            own = effect[arm][game] if isinstance(effect[arm], dict) else effect[arm]
            f1 = 0.85 + shared + own + rng.normal(0, 0.001) - 4e-5 * step * (arm not in REFERENCES)
            rows.append(
                {
                    "game": game,
                    "objective": "cswm",
                    "arm": arm,
                    "seed": seed,
                    "step": 0 if arm in REFERENCES else step,
                    "probe": probe,
                    "micro_f1": f1 - 0.02 * (probe != "ridge"),
                    "macro_f1": f1 - 0.05,
                    "slot_accuracy": f1 - 0.3,
                    "effective_rank": 80.0 if arm in REFERENCES else 3000 / step + 30 * abs(own),
                    "dead_slots": 0,
                }
            )
    return pd.DataFrame(rows)


def curve_rows(games, names, seeds, steps, column):
    rng = np.random.default_rng(1)
    at = np.linspace(1, steps, 40).astype(int)
    parts = [
        pd.DataFrame(
            {
                "game": game,
                column: name,
                "seed": seed,
                "step": at,
                "loss": 0.1 + (index + 1) * 0.2 * np.exp(-at / 300) + rng.random(40) * 0.03,
            }
        )
        for game, (index, name), seed in product(games, enumerate(names), range(seeds))
    ]
    return pd.concat(parts)


def abstract_rows(games, seeds):
    scores = {"copy": 0.87, "mlp": 0.90, "deep_sets": 0.93, "mpnn": 0.95}
    return pd.DataFrame(
        {
            "game": game,
            "model": model,
            "seed": seed,
            "step": step,
            "slot_accuracy": f1 - 0.1,
            "bit_f1": f1 + 0.001 * seed - 0.02 * (step == 60 and model != "copy"),
            "bit_accuracy": f1 + 0.02,
            "mask_accuracy": np.nan if model == "copy" else 0.9,
            "loss": np.nan if model == "copy" else 1 - f1,
        }
        for game, seed, (model, f1), step in product(games, range(seeds), scores.items(), (60, 120))
    )


def frames(games):
    rng = np.random.default_rng(2)
    made = {}
    for game in games:
        rgb = np.zeros((3, 210, 160, 3), np.uint8) + np.uint8([144, 72, 17])
        rgb[:, 30:194] = [60, 30, 90]
        for index in range(3):
            rgb[index, 60 + 20 * index : 66 + 20 * index, 70:74] = 236
        made[f"{game}_rgb"] = rgb
        ram = np.repeat(rng.integers(0, 256, (1, 128), np.uint8), 3, 0)
        ram[1, [5, 60]] += 9
        ram[2, [5, 60, 61]] += 18
        made[f"{game}_ram"] = ram
    return made


@pytest.fixture
def make_run(tmp_path):
    """Write a run folder; `drop` leaves files out, `effect` moves an arm (for all or by game)."""

    def make(name="run", *, games=("Pong", "Freeway"), seeds=6, effect=None, drop=(), info=None):
        folder = tmp_path / name
        folder.mkdir()
        effect = EFFECT | (effect or {})
        trained = [arm for arm in effect if arm not in (*REFERENCES, "supervised")]
        natural_curves = curve_rows(games, trained, seeds, 1000, "arm").assign(
            objective="cswm",
            positive_energy=lambda frame: frame["loss"] / 2,
            negative_energy=lambda frame: 1 - frame["loss"] / 2,
        )
        tables = {
            "natural.csv": natural_rows(games, seeds, (300, 1000), ("ridge", "adam_raw"), effect),
            "natural_curves.csv": natural_curves,
            "abstract.csv": abstract_rows(games, seeds),
            "abstract_curves.csv": curve_rows(games, ("deep_sets", "mpnn"), seeds, 120, "model"),
            "timings.csv": pd.DataFrame(
                {"game": game, "stage": stage, "arm": "rmr", "seed": 0, "seconds": 12.5}
                for game, stage in product(games, ("record", "pretrain", "natural", "probe"))
            ),
        }
        for file, table in tables.items():
            if file not in drop:
                table.to_csv(folder / file, index=False)
        if "run.json" not in drop:
            (folder / "run.json").write_text(json.dumps(INFO | {"games": games} | (info or {})))
        if "frames.npz" not in drop:
            np.savez(folder / "frames.npz", **frames(games))
        return folder

    return make


GAMES = (
    *("Pong", "Breakout", "Freeway", "Seaquest", "SpaceInvaders", "Skiing", "Asteroids"),
    *("BattleZone", "Berzerk", "Bowling", "Boxing", "DemonAttack", "Frostbite", "Hero"),
    *("MontezumaRevenge", "MsPacman", "Pitfall", "PrivateEye", "Qbert", "Riverraid", "Tennis"),
    *("Venture", "VideoPinball", "YarsRevenge"),
)


def scored(f1, **names):
    return names | {
        "objective": "cswm",
        "probe": "ridge",
        "micro_f1": f1,
        "macro_f1": f1 - 0.05,
        "slot_accuracy": f1 - 0.2,
        "effective_rank": 50.0,
        "dead_slots": 0,
    }


def write_sweep(folder, kind, rows, info):
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / f"{kind}.csv", index=False)
    (folder / "run.json").write_text(json.dumps({"kind": kind} | info))
    return folder


@pytest.fixture
def make_transfer(tmp_path):
    """Write a transfer folder; `gain(donor, recipient)` is what a donor's P adds to C-SWM's F1."""

    def make(
        name="transfer",
        *,
        games=6,
        seeds=5,
        others=("balls",),
        gain=lambda donor, recipient: 0.0,
        controls=None,
        missing=(),
        steps=(100, 300),
        noise=0.002,
    ):
        rng = np.random.default_rng(0)
        names, rows = GAMES[:games], []
        arms = dict.fromkeys(("cswm", "random_p", "shuffled_p", "untrained"), 0.0)
        arms = arms if controls is None else controls
        for recipient, seed in product(names, range(seeds)):
            shared = 0.75 + rng.normal(0, 0.01)
            for step in steps:
                place = {"recipient": recipient, "seed": seed, "step": step}
                for arm, more in arms.items():
                    f1 = shared + more + rng.normal(0, noise)
                    if arm != "untrained" or step == steps[0]:
                        at = place | {"step": 0 if arm == "untrained" else step}
                        rows.append(scored(f1, **at, arm=arm, donor=""))
                for donor in (*names, *others):
                    f1 = shared + gain(donor, recipient) + rng.normal(0, noise)
                    if (donor, recipient) not in missing:
                        rows.append(scored(f1, **place, arm="rmr", donor=donor))
        info = {"games": list(names), "donors": [*names, *others], "command": "rmr-gym transfer"}
        return write_sweep(tmp_path / name, "transfer", rows, info)

    return make


@pytest.fixture
def make_bottleneck(tmp_path):
    """Write a bottleneck folder; `fall[arm]` is what the F1 of an arm loses at dim 1."""

    def make(
        name="bottleneck", *, games=2, seeds=6, dims=(2, 8, 64), fall=None, missing=(), noise=0.002
    ):
        rng = np.random.default_rng(0)
        names, rows = GAMES[:games], []
        lost = {"rmr": 0.4, "cswm": 0.2, "untrained": 0.2} if fall is None else fall
        for game, dim, seed in product(names, dims, range(seeds)):
            shared = 0.8 + rng.normal(0, 0.001)
            for arm, most in lost.items():
                step = 0 if arm == "untrained" else 300
                f1 = shared - most / dim + rng.normal(0, noise)
                if (game, dim) not in missing:
                    rows.append(scored(f1, game=game, dim=dim, arm=arm, seed=seed, step=step))
        info = {"games": list(names), "dims": list(dims), "command": "rmr-gym bottleneck"}
        folder = write_sweep(tmp_path / name, "bottleneck", rows, info)
        pd.DataFrame(
            {
                "game": game,
                "dim": dim,
                "step": step,
                "slot_accuracy": 0.8,
                "bit_f1": 0.95 - 0.1 / dim - 0.2 * (step == 100),
                "bit_accuracy": 0.96,
                "mask_accuracy": 0.9,
                "loss": 0.1,
            }
            for game, dim, step in product(names, dims, (100, 500))
        ).to_csv(folder / "bottleneck_abstract.csv", index=False)
        return folder

    return make


FRAMES = {
    "four": ("rmr/RNEMBalls4-v0", 5, 11, {"observe": ["radii", "velocities"]}),
    "crowd": ("rmr/RNEMBalls6to8-v0", 2, 11, {"observe": ["radii", "velocities"]}),
    "balls3": ("rmr/S2RMBalls3-v0", 4, 11, {}),
    "balls5": ("rmr/S2RMBalls5-v0", 2, 11, {}),
    "more": ("rmr/RNEMBalls4-v0", 6, 11, {"observe": ["radii", "velocities"]}),
    "other": ("rmr/RNEMBalls4-v0", 2, 11, {"seed": 1}),
    "wide": ("rmr/RNEMBalls4-v0", 2, 11, {"seed": 1, "resolution": 32}),
    "short": ("rmr/RNEMBalls4-v0", 4, 6, {"seed": 1}),
    "pushed": ("rmr/PushedBalls-v0", 2, 11, {"frames": "binary"}),
    "one": ("rmr/RNEMBalls4-v0", 1, 11, {}),
}
"""Environment, episodes, steps and options of data sets for world models."""


@pytest.fixture(scope="session")
def frames_of(tmp_path_factory):
    """Record frames of balls once; the folder must not be changed."""
    from rmr_gym.agents.record import record

    root = tmp_path_factory.mktemp("frames")

    def recording_of(name):
        if not (root / name).exists():
            env, episodes, steps, options = FRAMES[name]
            options = {"resolution": 16} | options
            record(env, root / name, episodes=episodes, max_steps=steps, **options)
        return root / name

    return recording_of


@pytest.fixture(scope="session")
def donor_of_balls(tmp_path_factory):
    """A folder with an abstract pipeline of balls; it must not be changed."""
    from rmr_gym.agents.record import record
    from rmr_gym.domains.balls import BallsModel
    from rmr_gym.runs.store import write_artifact
    from rmr_gym.runs.training import Phase
    from rmr_gym.stages.balls import RecordedBalls, pretrain_balls

    root = tmp_path_factory.mktemp("donor")
    options = {"episodes": 4, "max_steps": 11, "resolution": 16}
    record("rmr/BouncingBalls-v0", root / "bouncing", **options)
    data, sizes = RecordedBalls("balls", root / "bouncing", 0.4), BallsModel(dim=8, passes=1)
    return write_artifact(root / "p", pretrain_balls.function(data, sizes, (Phase(2, batch=4),)))


@pytest.fixture(scope="session")
def browser():
    """The words that start Chromium without a window; what its console says goes to stderr."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    options = ("headless", "no-sandbox", "disable-gpu", "enable-logging=stderr")
    return [found, *(f"--{option}" for option in options), "--virtual-time-budget=5000"]
