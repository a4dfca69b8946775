"""Measure recording: against the bare emulator, against Minari, and reading random batches.

Run `python benchmarks/recording.py` (about 5 minutes on 2 idle cores; `--quick` for a look). Rows
go to `results/recording.csv`; parts that are not run keep theirs. All sides of a comparison take
turns on the same steps; a ratio is the median of the ratios of the trials. Other programs
on the machine's cores spoil the figures; the load is written beside them. `--memory STEPS` records
so many steps and draws the resident memory.
"""

import argparse
import csv
import os
import platform
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from rmr_gym.agents.players.graded import select_players
from rmr_gym.agents.record import GamePlan, environment_of, record_round
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.reader import MEMORY, ColumnReader, read_info
from rmr_gym.data.schema import episode_path
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.envs.atari.games import find_game

ROOT = Path(__file__).parents[1]
GAMES = ("Pong", "Seaquest")
BYTES = {"Pong": 100, "Seaquest": 40}
Row = dict[str, object]


def plan_of(game: str, player: str = "uniform", max_steps: int | None = None) -> GamePlan:
    options = {"pixels": "palette", "frameskip": 4, "repeat_action_probability": 0.0}
    env_id = find_game(game).env_id
    return GamePlan(env_id, 0, max_steps, options, players=select_players(player))


class Recorder:
    """Records episode after episode of a plan into a folder that is thrown away."""

    def __init__(self, plan: GamePlan):
        self.plan, self.env = plan, environment_of(plan).env
        self.folder = Path(tempfile.mkdtemp(prefix="rmr-gym-recording-"))
        self.writer = DatasetWriter(self.folder, plan.manifest())

    def record(self, index: int) -> None:
        record_round(self.plan, [index], self.writer)

    def close(self) -> None:
        self.writer.close()
        shutil.rmtree(self.folder)


def bare_loop(env: PairedAtariEnv, plan: GamePlan, index: int) -> int:
    """Emulate an episode and read RAM and palette indices after each step; return its steps."""
    random, actions, act = plan_of(plan.env).policy_of(index), env.game.actions, env.ale.act
    ram, screen = np.empty(128, np.uint8), np.empty((210, 160), np.uint8)
    env.reset(seed=integer_seed(plan.seed, "episode", index))
    steps = 0
    while not env.ale.game_over() and steps != plan.max_steps:
        action = actions[random({})]
        for _ in range(4):
            act(action)
        env.ale.getRAM(ram)
        env.ale.getScreen(screen)
        steps += 1
    return steps


def recording(trials: int, player: str) -> Iterator[Row]:
    for game in GAMES:
        for name, goal in (("uniform", ">= 0.9"), (player, ">= 0.6")):
            try:
                recorder = Recorder(plan_of(game, name))
                recorder.record(trials)
            except RMRError as error:
                print(f"{game}, {name}: left out: {error}")
                continue
            yield from against_the_bare_loop(recorder, trials, goal)
            recorder.close()


def against_the_bare_loop(recorder: Recorder, trials: int, goal: str) -> Iterator[Row]:
    plan, env = recorder.plan, recorder.env
    speeds: dict[str, list[tuple[float, float]]] = {"bare": [], "recorded": []}
    for index in range(trials):
        for name, episode in (
            ("bare", lambda: bare_loop(env, plan, index)),  # noqa: B023
            ("recorded", lambda: recorder.record(index)),  # noqa: B023
        ):
            wall, cpu = time.perf_counter(), time.process_time()
            steps = episode()
            seconds = time.perf_counter() - wall, time.process_time() - cpu
            if steps is None:
                steps = read_info(episode_path(recorder.folder, index)).length
            speeds[name].append((steps / seconds[0], steps / seconds[1]))
    wall, cpu = (np.array(speeds["recorded"]) / np.array(speeds["bare"])).T
    what = f"{env.game.name}, {plan.players[0].name}"
    steps = sum(info.length for info in TransitionDataset(recorder.folder).episodes)
    note = f"{trials} episodes in turn, {steps} steps, to disk, fsync included"
    yield row("speed over the bare loop", what, float(np.median(wall)), goal, note)
    yield row("the same, CPU time", what, float(np.median(cpu)), "", note)
    fastest = max(speed for speed, _ in speeds["recorded"])
    yield row("steps a second", what, fastest, "", "best episode")


def two_processes(trials: int, episodes: int = 3) -> Iterator[Row]:
    for game in GAMES:
        context, pairs = get_context("spawn"), []
        for _ in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=record_on_demand, args=(theirs, game))
            process.start()
            pairs.append((process, ours))
        first, second = (connection for _, connection in pairs)
        record_in(first), record_in(second)
        ratios = []
        for _ in range(trials):
            one = record_in(first, episodes=episodes)
            both = record_in(first, second, episodes=episodes)
            ratios.append(both / one)
        for process, connection in pairs:
            connection.send(0)
            process.join()
        note = f"steps a second, {trials} trials of {episodes} episodes a process in turn"
        yield row("two processes over one", game, float(np.median(ratios)), ">= 1.9", note)


def record_on_demand(connection: Connection, game: str) -> None:
    recorder, first = Recorder(plan_of(game, max_steps=500)), 0
    while count := connection.recv():
        indices = range(first, first + count)
        for index in indices:
            recorder.record(index)
        paths = [episode_path(recorder.folder, index) for index in indices]
        connection.send(sum(read_info(path).length for path in paths))
        first += count
    recorder.close()


def record_in(*connections: Any, episodes: int = 1) -> float:
    """Return the steps a second of processes that each record so many episodes."""
    begin = time.perf_counter()
    for connection in connections:
        connection.send(episodes)
    steps = sum(connection.recv() for connection in connections)
    return steps / (time.perf_counter() - begin)


def minari(trials: int) -> Iterator[Row]:
    if find_spec("minari") is None:
        print("minari is not installed: left out")
        return
    os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp(prefix="rmr-gym-minari-")
    warnings.filterwarnings("ignore", module="minari")
    for game in GAMES:
        recorder = Recorder(plan_of(game, max_steps=500))
        rgb = PairedAtariEnv(game, pixels="rgb")
        times = []
        for index in range(trials + 1):
            arms = (
                lambda: bare_loop(recorder.env, recorder.plan, index),  # noqa: B023
                lambda: recorder.record(index),  # noqa: B023
                lambda: record_with_minari(recorder.env, recorder.plan, index),  # noqa: B023
                lambda: record_with_minari(rgb, recorder.plan, index),  # noqa: B023
            )
            times.append([seconds(arm) for arm in arms])
        recorder.close()
        bare, ours, *theirs = np.array(times[1:]).T
        note = "lossless, EpisodeBuffer and create_dataset_from_buffers; 500 steps at most"
        for stored, its in zip(("palette", "RGB"), theirs, strict=True):
            what, beyond = f"{game}, {stored}", np.median(its - bare) / np.median(ours - bare)
            yield row("speed over Minari", what, float(np.median(its / ours)), ">= 4", note)
            yield row("the same, beyond emulation", what, float(beyond), "", "less the bare loop")
    shutil.rmtree(os.environ["MINARI_DATASETS_PATH"])


def record_with_minari(env: PairedAtariEnv, plan: GamePlan, index: int) -> None:
    from minari import create_dataset_from_buffers  # noqa: PLC0415
    from minari.data_collector import EpisodeBuffer  # noqa: PLC0415

    policy = plan.policy_of(index)
    observation, _ = env.reset(seed=integer_seed(plan.seed, "episode", index))
    seen: dict[str, list[Any]] = {name: [value] for name, value in observation.items()}
    steps: list[tuple[Any, ...]] = []
    over = False
    while not over:
        action = policy(observation)
        observation, *result, _ = env.step(action)
        for name, value in observation.items():
            seen[name].append(value)
        steps.append((action, *result))
        over = result[1] or result[2] or len(steps) == plan.max_steps
    actions, rewards, terminations, truncations = map(list, zip(*steps, strict=True))
    buffer = EpisodeBuffer(
        observations=seen,
        actions=actions,
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
    )
    create_dataset_from_buffers(
        f"bench/episode{uuid.uuid4().hex}-v0",
        [buffer],
        observation_space=env.observation_space,
        action_space=env.action_space,
        jpeg_encoding=False,
        algorithm_name="random",
        author="-",
        author_email="-",
        code_permalink="-",
        description="-",
    )


def batches(steps: int, trials: int, pairs: int = 50) -> Iterator[Row]:
    for game in GAMES:
        recorder = Recorder(plan_of(game, max_steps=500))
        for index in range(-(-steps // 500)):
            recorder.record(index)
        dataset = TransitionDataset(recorder.folder)
        spec, infos = dataset.manifest.columns["pixels"], dataset.episodes
        paths = [episode_path(recorder.folder, info.index) for info in infos]
        loaded = dataset.load(("pixels",))
        raw = recorder.folder / "raw.bin"
        loaded["pixels"].tofile(raw)
        shape, current = loaded["pixels"].shape, loaded.current
        del loaded
        memmap = np.memmap(raw, np.uint8, "r", shape=shape)
        lengths = [info.length + 1 for info in infos]
        reader, plain = (ColumnReader(paths, spec, lengths, kept) for kept in (MEMORY, 0))
        stored = sum(path.stat().st_size for path in paths) / shape[0]
        share = memmap[0].nbytes / stored
        note = f"{shape[0]} frames, uniform; the whole file, RAM and all, over the raw frames"
        yield row("bytes of raw frames over stored", game, share, f">= {BYTES[game]}", note)
        np.fromfile(raw, np.uint8).max()
        before = resident()
        for rows in np.array_split(np.arange(shape[0]), shape[0] // 100):
            reader.read(rows)
        kept, times = resident() - before, []
        rng = np.random.default_rng(0)
        for _ in range(trials):
            first = current[rng.choice(len(current), pairs)]
            rows = np.concatenate([first, first + 1])
            sides = (lambda: memmap[rows], lambda: reader.read(rows), lambda: plain.read(rows))  # noqa: B023
            times.append([seconds(side) for side in sides])
        raw_times, ours, cold = np.array(times)[trials // 5 :].T
        note = f"{pairs} pairs, warm, {trials} batches in turn; medians in ms: "
        note += f"{1e3 * np.median(raw_times):.2f} memmap, {1e3 * np.median(ours):.2f} ours; "
        note += f"ours keeps {kept:.0f} MiB, the memmap {memmap.nbytes / 2**20:.0f} MiB of memory"
        value = float(np.median(ours / raw_times))
        yield row("time of a random batch over a raw memmap", game, value, "<= 1.5", note)
        note = f"{1e3 * np.median(cold):.2f} ms: every chunk is decompressed"
        value = float(np.median(cold / raw_times))
        yield row("the same, nothing kept in memory", game, value, "", note)
        recorder.close()


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def memory(steps: int, csv_path: Path) -> Iterator[Row]:
    """Record so many steps; note the resident memory every 10,000."""
    recorder, curve, done, index = Recorder(plan_of("Seaquest")), [], 0, 0
    while done < steps:
        recorder.record(index)
        path = episode_path(recorder.folder, index)
        done += read_info(path).length
        path.unlink()
        index += 1
        if done // 10_000 > len(curve):
            curve.append((done, resident()))
    recorder.close()
    with csv_path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("steps", "resident_mib"), *curve])
    draw(curve, csv_path.with_suffix(".png"))
    growth = max(later for _, later in curve) - curve[0][1]
    note = f"{done} steps, {index} episodes of Seaquest, from step {curve[0][0]} to the highest"
    yield row("growth of resident memory, MiB", "Seaquest", growth, "<= 50", note)


def resident() -> float:
    """Return this process's resident memory in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)


def draw(curve: list[tuple[int, float]], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve, strict=True))
    axes.set(xlabel="steps recorded", ylabel="resident memory (MiB)")
    axes.set_ylim(0, None)
    figure.savefig(path, dpi=150)


def row(measure: str, what: str, value: float, goal: str, note: str) -> Row:
    print(f"{measure:42} {what:22} {value:10.4g}  {goal:7} {note}", flush=True)
    packages = ("ale-py", "h5py", "zstandard", "xxhash", "numpy")
    return {
        "measure": measure,
        "what": what,
        "value": f"{value:.6g}",
        "goal": goal,
        "note": note,
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps and trials")
    parser.add_argument("--only", nargs="+", choices=["recording", "processes", "minari", "batch"])
    parser.add_argument("--memory", type=int, metavar="STEPS", help="record so many steps instead")
    parser.add_argument("--player", default="high-e05-h00", help="the skilled one")
    parser.add_argument("--csv", type=Path, default=ROOT / "results" / "recording.csv")
    options = parser.parse_args()
    quick = options.quick
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "recording": lambda: recording(3 if quick else 30, options.player),
        "processes": lambda: two_processes(2 if quick else 15),
        "minari": lambda: minari(2 if quick else 10),
        "batch": lambda: batches(2000 if quick else 20_000, 50 if quick else 500),
    }
    chosen = set(options.only or parts)
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    if options.memory:
        curve = options.csv.with_name("recording_memory.csv")
        parts, chosen = {"memory": lambda: memory(options.memory, curve)}, {"memory"}
    rows = kept(options.csv, chosen)
    for name in parts:
        if name in chosen:
            rows += [{"part": name, **found} for found in parts[name]()]
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def kept(path: Path, measured_again: set[str]) -> list[Row]:
    """Return the rows of the other parts that an earlier run wrote."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [dict(line) for line in csv.DictReader(file) if line["part"] not in measured_again]


if __name__ == "__main__":
    main()
