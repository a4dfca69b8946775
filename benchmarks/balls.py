"""Measure the bouncing-balls environment: energy, overlap, exactness, agreement of pictures, speed.

Run `python benchmarks/balls.py` (about 3 minutes on 2 cores; `--quick` for a look). Rows go to
`results/balls_environment.csv`; parts that are not run keep theirs. Every speed is the best of many
short, interleaved trials, because the machine may be shared; its load is written beside it. Where
other programs keep the cores busy, `chrt --rr 1 python benchmarks/balls.py --only speeds` takes
them for some seconds.
"""

import argparse
import csv
import importlib.util
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.config import BallsConfig, configure
from rmr_gym.envs.balls.env import BouncingBallsEnv, BouncingBallsVectorEnv
from rmr_gym.envs.balls.physics import (
    BallsPhysics,
    draw_start,
    kinetic_energy,
    load_mujoco,
    world_xml,
)
from rmr_gym.envs.balls.pictures import MujocoCamera, Rasterizer, choose_back_end

ROOT = Path(__file__).parents[1]
WORLDS = {
    **{f"rmr, {n} balls": configure("rmr", {"balls": n}) for n in range(1, 11)},
    "rnem-4": configure("rnem-4", {}),
    "rnem-6-8": configure("rnem-6-8", {}),
    "rnem-curtain": configure("rnem-curtain", {}),
    "s2rm-6": configure("s2rm-6", {}),
}
Row = dict[str, object]


def started(config: BallsConfig, worlds: int) -> BallsPhysics:
    physics = BallsPhysics(config, worlds)
    starts = [draw_start(config, np.random.default_rng(seed)) for seed in range(worlds)]
    physics.start(starts)
    return physics


def oracle() -> ModuleType:
    """Return the module of the tests that holds the event-driven simulator."""
    path = ROOT / "tests" / "envs" / "balls" / "test_physics.py"
    spec: Any = importlib.util.spec_from_file_location("balls_oracle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def energy_and_overlap(worlds: int, frames: int) -> Iterator[Row]:
    deepest_overlap = oracle().deepest_overlap
    for name, config in WORLDS.items():
        physics = started(config, worlds)
        before = kinetic_energy(physics.velocities, physics.masses)
        error = deepest = 0.0
        for _ in range(frames):
            motion = physics.mover()()
            after = kinetic_energy(physics.velocities, physics.masses)
            error = max(error, float(np.abs(after / before - 1).max()))
            depth = deepest_overlap(
                motion.positions, physics.radii, physics.presence, config.fixed_ball or 0.0
            )
            deepest = max(deepest, float(depth))
        note = f"{worlds} worlds x {frames} frames"
        yield row("largest relative error of the kinetic energy", name, error, "<= 1e-3", note)
        yield row("deepest overlap", name, deepest, "<= 0.03", note)


def exactness(worlds: int, frames: int = 10) -> Iterator[Row]:
    event_driven = oracle().event_driven
    for name, config in {
        "rmr, 4 balls": WORLDS["rmr, 4 balls"],
        "rnem-4": WORLDS["rnem-4"],
        "rmr, 10 balls": WORLDS["rmr, 10 balls"],
    }.items():
        physics = started(config, worlds)
        x, v = physics.positions.copy(), physics.velocities.copy()
        for _ in range(frames):
            physics.mover()()
        seconds = frames / config.fps
        exact = [
            event_driven(*world, seconds)[0]
            for world in zip(x, v, physics.radii, physics.masses, strict=True)
        ]
        error = float(np.sqrt(((physics.positions - exact) ** 2).sum(axis=-1).mean()))
        bound = "<= 0.02" if "4" in name else ""
        note = f"{worlds} worlds, after {frames} frames"
        yield row("RMS distance from the event-driven simulator", name, error, bound, note)


def pictures(frames: int) -> Iterator[Row]:
    drawn, shot = BouncingBallsEnv(), BouncingBallsEnv(renderer="mujoco")
    errors = []
    for seed in range(frames):
        first, second = (env.reset(seed=seed)[0]["pixels"].astype(float) for env in (drawn, shot))
        errors.append(np.mean((first - second) ** 2))
    shot.close()
    for name, error in {"mean": np.mean(errors), "worst": np.max(errors)}.items():
        decibel = float(10 * np.log10(255**2 / error))
        yield row(f"PSNR of rasteriser and MuJoCo, {name}", "rmr", decibel, ">= 33", f"{frames}")


def speeds(trials: int) -> Iterator[Row]:
    arms: dict[str, tuple[Callable[[], None], int]] = {}
    for threads in (1, 2):
        arms[f"vector of 64, {threads} thread(s)"] = (stepping(64, threads, 10), 640)
    arms["single environment"] = (stepping_one(20), 20)
    arms["rasteriser, batch of 32"] = (drawing(32), 32)
    arms["rasteriser, one frame"] = (drawing(1), 1)
    arms["physics, batch of 32"] = (moving(32), 32)
    try:
        arms["Python loop, MuJoCo GL, its defaults"] = (gl_loop("", flags=True), 1)
        arms["Python loop, MuJoCo GL, cheapest"] = (gl_loop(CHEAPEST, flags=False), 1)
        arms["MujocoCamera, one frame"] = (shooting(), 1)
    except RMRError as error:
        print(f"no OpenGL, so no loop to compare with: {error}")
    best = interleaved(arms, trials)
    for name, seconds in best.items():
        yield row("microseconds a frame", name, seconds * 1e6, "", f"best of {trials} trials")
    one, two = best["vector of 64, 1 thread(s)"], best["vector of 64, 2 thread(s)"]
    yield row("speed-up of 2 threads", "vector of 64", one / two, ">= 1.8", "best trials")
    for name in [name for name in best if name.startswith("Python loop")]:
        yield row(f"speed-up over: {name}", "vector of 64", best[name] / two, ">= 5", "2 threads")


CHEAPEST = '<visual><quality offsamples="0" shadowsize="0" numslices="12" numstacks="8"/></visual>'


def stepping_one(frames: int) -> Callable[[], None]:
    env = BouncingBallsEnv()
    env.reset(seed=0)

    def step() -> None:
        for _ in range(frames):
            env.step(0)

    return step


def stepping(worlds: int, threads: int, frames: int) -> Callable[[], None]:
    """Return several steps: one alone would not count what is computed ahead."""
    envs = BouncingBallsVectorEnv(worlds, threads=threads)
    envs.reset(seed=0)
    actions = np.zeros(worlds, np.int64)

    def step() -> None:
        for _ in range(frames):
            envs.step(actions)

    return step


def moving(worlds: int) -> Callable[[], None]:
    physics = started(WORLDS["rmr, 10 balls"], worlds)
    return lambda: physics.mover()() and None


def drawing(worlds: int) -> Callable[[], None]:
    config = WORLDS["rmr, 10 balls"]
    physics = started(config, worlds)
    painter = Rasterizer(64, config.largest_radius)
    out = np.empty((worlds, 64, 64, 3), np.uint8)
    colors = config.palette()[:-1]
    return lambda: painter.rgb(physics.positions, physics.radii, colors, out)


def shooting() -> Callable[[], None]:
    config = WORLDS["rmr, 10 balls"]
    physics, camera = started(config, 1), MujocoCamera(config, 64)
    out = np.empty((1, 64, 64, 3), np.uint8)
    colors = config.palette()[:-1]
    return lambda: camera.rgb(physics.positions, physics.radii, colors, out)


def gl_loop(visual: str, *, flags: bool) -> Callable[[], None]:
    """Return the step of the loop that people write: mj_step, then mujoco.Renderer, one world."""
    mujoco, config = load_mujoco(), WORLDS["rmr, 10 balls"]
    model = mujoco.MjModel.from_xml_string(
        world_xml(config, 64).replace("<worldbody>", f"{visual}<worldbody>", 1)
    )
    data = mujoco.MjData(model)
    start = draw_start(config, np.random.default_rng(0))
    data.qpos[:], data.qvel[:] = start.positions.ravel(), start.velocities.ravel()
    model.geom_size[4:, 0] = config.largest_radius
    renderer = mujoco.Renderer(model, 64, 64)
    if not flags:
        renderer.scene.flags[:] = 0

    def step() -> None:
        mujoco.mj_step(model, data, nstep=config.substeps)
        renderer.update_scene(data, camera="above")
        renderer.render()

    return step


def interleaved(arms: dict[str, tuple[Callable[[], None], int]], trials: int) -> dict[str, float]:
    """Return the best seconds a frame of every arm, the arms taking turns."""
    best = dict.fromkeys(arms, np.inf)
    for step, _ in arms.values():
        step()
    for _ in range(trials):
        for name, (step, frames) in arms.items():
            begin = time.perf_counter()
            step()
            best[name] = min(best[name], (time.perf_counter() - begin) / frames)
    return best


def row(measure: str, what: str, value: float, goal: str, note: str) -> Row:
    print(f"{measure:55} {what:42} {value:10.4g}  {goal:8} {note}", flush=True)
    return {
        "measure": measure,
        "what": what,
        "value": f"{value:.6g}",
        "goal": goal,
        "note": note,
        "mujoco": version("mujoco"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few worlds, frames and trials")
    parser.add_argument("--only", nargs="+", choices=["energy", "exactness", "pictures", "speeds"])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "balls_environment.csv")
    options = parser.parse_args()
    quick = options.quick
    try:
        os.environ["MUJOCO_GL"] = choose_back_end()
    except RMRError as error:
        print(f"no OpenGL: {error}")
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "energy": lambda: energy_and_overlap(4 if quick else 32, 100 if quick else 1000),
        "exactness": lambda: exactness(16 if quick else 256),
        "pictures": lambda: pictures(8 if quick else 64),
        "speeds": lambda: speeds(10 if quick else 150),
    }
    rows = kept(options.out, set(parts) - set(options.only or parts))
    for name, part in parts.items():
        if options.only is None or name in options.only:
            try:
                rows += [{"part": name, **found} for found in part()]
            except RMRError as error:
                print(f"{name}: left out: {error}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def kept(path: Path, parts: set[str]) -> list[Row]:
    """Return the rows of these parts that an earlier run wrote."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [dict(line) for line in csv.DictReader(file) if line["part"] in parts]


if __name__ == "__main__":
    main()
