"""Natural training of many runs as one stack against one run after another, and what follows.

    python benchmarks/natural.py --device cuda --size 210x160 --runs 1 10 40

The first table compares a stack of so many runs with the sequential loop: the frozen P of so many
``--donors``, or ``--arm cswm`` for the trained P. The loop is timed on one run and multiplied, for
its runs follow each other. Loop and stacks are interleaved, so that a busy moment of the machine
hits all rows alike; figures are medians over the repetitions, ratios are taken within each before
their median. The frames are of Pong, recorded under ``--root`` where they are not there yet.

The second table is the cost of cells that follows from it: training of ``--steps`` steps and a
ridge probe, timed here too, at each of ``--checkpoints`` checkpoints. Recording, pretraining and
the other arms are not in it.

    python benchmarks/natural.py --parts                   # a minute, and a recording of Pong
    python benchmarks/table.py --only "natural step"       # the same, into results/benchmarks.csv

The parts of one step of the preset laptop, in CPU milliseconds of one thread: P frozen (rmr) and
trained (cswm), the pixel encoder in fp32 and in bf16, steps of all four in turn, medians.
"""

import argparse
import csv
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from rmr_gym.domains.atari import SLOTS, AtariModel, ProbeData, make_core, pixel_encoder
from rmr_gym.experiments.atari import recorded_folder
from rmr_gym.experiments.base import no_progress
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.runs.store import Room
from rmr_gym.stages.export import processor_artifact
from rmr_gym.stages.games import GameData, ProbeSets, natural_data
from rmr_gym.stages.natural import initial_pipeline, natural, natural_batch
from rmr_gym.stages.presets import OBJECTIVES, PRESETS, Natural, PredictedStep, Recording
from rmr_gym.stages.probe import Features, bit_rows, encode
from rmr_gym.stages.stacked import NaturalRun, train_natural_stack

SIZES = {
    "84x84": {"trunk": "nature", "height": 84, "width": 84},
    "210x160": {"trunk": "anand2019", "height": 210, "width": 160},
}
EPISODE, WARM_UP = 250, 3
TRAIN_ROWS, TARGETS = 6000, 20
"""Rows of the paper's probe, and predicted RAM cells of a middling game."""
ENCODER = ("encoder", "encoder backward")


class Watch:
    """Progress callback that takes the time between two steps, warm-up left out."""

    def __init__(self, device: torch.device, steps: int):
        self.device, self._last = device, WARM_UP + steps
        self._begin = self.seconds = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Note the time after a step."""
        if done not in (WARM_UP, self._last):
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self._begin
        self._begin = time.perf_counter()


def pong(root: Path) -> GameData:
    """Return a recording of Pong; it is made where it is not there."""
    recording = Recording(train_episodes=10, validation_episodes=2, max_steps=EPISODE)
    path = recorded_folder("Pong", recording, root / "data", 1, no_progress)
    return GameData.of("Pong", path, recording)


def chosen_runs(options: argparse.Namespace, model: AtariModel, count: int) -> list[NaturalRun]:
    """Return the runs of a stack: seeds within donors."""
    if options.arm != "rmr":
        return [NaturalRun(options.arm, seed) for seed in range(count)]
    donors = min(options.donors, count)
    processors = [make_core(model, model.core, 100 + donor) for donor in range(donors)]
    artifacts = [processor_artifact(processor) for processor in processors]
    return [NaturalRun("rmr", run // donors, artifacts[run % donors]) for run in range(count)]


def sequential(options: argparse.Namespace, model: AtariModel, data: GameData) -> float:
    """Seconds of the timed steps of one run alone."""
    (run,) = chosen_runs(options, model, 1)
    watch = Watch(torch.device(options.device), options.timed)
    room = Room(progress=watch)
    config = settings(options)
    natural.function(
        data, model, config, run.arm, run.seed, run.donor, device=options.device, room=room
    )
    return watch.seconds


def stacked(
    options: argparse.Namespace, model: AtariModel, data: GameData, count: int
) -> tuple[float, float]:
    """Seconds of the timed steps of a stack, and the peak of the GPU's memory in MB."""
    watch = Watch(torch.device(options.device), options.timed)
    on_gpu, config = watch.device.type == "cuda", settings(options, options.cnn)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    train_natural_stack(
        config,
        model,
        natural_data(data, model, config),
        chosen_runs(options, model, count),
        device=options.device,
        progress=watch,
    )
    return watch.seconds, torch.cuda.max_memory_allocated() / 2**20 if on_gpu else float("nan")


def settings(options: argparse.Namespace, cnn: str = "fp32") -> Natural:
    """Return a training of one checkpoint, right after the timed steps."""
    steps = WARM_UP + options.timed + 1
    objective, batch = options.objective, options.batch
    return Natural(objective=objective, checkpoints=(steps,), batch=batch, cnn=cnn)


def probe_seconds(options: argparse.Namespace, model: AtariModel) -> float:
    """Seconds of encoding and of the ridge probe, with rank and dead slots, of one checkpoint."""
    place = find_device(options.device)
    rng = np.random.default_rng(0)
    sets = []
    for rows in (options.probe_rows, max(1, options.probe_rows // 2)):
        frames = rng.integers(0, 256, (rows, model.height, model.width), np.uint8)
        bits = rng.integers(0, 2, (rows, TARGETS, 8), np.uint8)
        ram = np.zeros((rows, SLOTS), np.uint8)
        episode = np.arange(rows) * 24 // rows
        sets.append(ProbeData(torch.from_numpy(frames), bits, episode, ram, ram))
    encoder = pixel_encoder(model, 0).to(place)
    encoder.standardise_by(torch.full((model.height, model.width), 127.5), 74.0)
    begin = time.perf_counter()
    features = Features(*(encode(encoder, part.frames) for part in sets), SLOTS)
    bit_rows(features, ProbeSets(*sets, 0), ("ridge",))
    return time.perf_counter() - begin


def measure(
    options: argparse.Namespace, model: AtariModel, data: GameData
) -> list[dict[str, object]]:
    """Return the rows of the first table."""
    alone: list[float] = []
    times: dict[int, list[float]] = {count: [] for count in options.runs}
    memory = dict.fromkeys(options.runs, 0.0)
    for _ in range(options.repetitions):
        alone.append(sequential(options, model, data))
        for count in options.runs:
            seconds, memory[count] = stacked(options, model, data, count)
            times[count].append(seconds)
    rows = [row("sequential", 1, alone, alone, options.timed, float("nan"))]
    return rows + [
        row("stacked", count, times[count], alone, options.timed, memory[count])
        for count in options.runs
    ]


def row(
    how: str, runs: int, seconds: list[float], alone: list[float], steps: int, memory: float
) -> dict[str, object]:
    """Return one row of the first table."""
    shares = [each / (runs * one) for each, one in zip(seconds, alone, strict=True)]
    middle = statistics.median(seconds)
    return {
        "training": how,
        "runs": runs,
        "steps a second": round(steps / middle, 2),
        "ms a step and run": round(1e3 * middle / steps / runs, 3),
        "share of the sequential time": round(statistics.median(shares), 3),
        "times faster": round(1 / statistics.median(shares), 2),
        "GPU memory MB": round(memory, 1),
    }


def estimates(
    options: argparse.Namespace, rows: list[dict[str, object]], probe: float
) -> list[dict[str, object]]:
    """Return what tables cost at the speed of each row, in hours of this machine."""
    found = []
    for table, cells in (
        ("one cell", 1),
        ("Table 1 row: 20 seeds, rmr and cswm", 40),
        ("Table 1: 24 games", 24 * 40),
        ("24 x 24 x 20, baseline once a column", 24 * 20 * 25),
    ):
        for each in rows:
            training = options.steps * float(str(each["ms a step and run"])) / 1e3
            found.append(
                {
                    "table": table,
                    "training": f"{each['training']} {each['runs']}",
                    "training hours": f"{cells * training / 3600:.3g}",
                    "probe hours": f"{cells * options.checkpoints * probe / 3600:.3g}",
                }
            )
    return found


class Parts:
    """Steps of one arm, cut where a part ends, on the processor; see `step`."""

    def __init__(self, data: GameData, arm: str, cnn: str):
        self.model, self.config = PRESETS["laptop"].model, Natural(cnn=cnn)
        self.data = natural_data(data, self.model, self.config)
        donor = processor_artifact(make_core(self.model, self.model.core, 100))
        run = NaturalRun(arm, 0, donor)
        self.pipeline = initial_pipeline(self.data, self.model, self.config, run)
        trained = [weight for weight in self.pipeline.parameters() if weight.requires_grad]
        self.adam, self.steps = torch.optim.Adam(trained, lr=1e-3, fused=True), 0
        self.seconds: dict[str, list[float]] = {}

    def step(self) -> None:
        """Make a step as the stage does, its gradient taken part by part."""
        self.steps += 1
        self._begin = time.process_time()
        batch = natural_batch(self.config, self.data, 0, self.steps)
        self._ends("batch")
        latents = self.pipeline.encoder(torch.cat([batch.frames, batch.following]))
        self._ends("encoder")
        cut = latents.detach().requires_grad_()
        current, following = cut.chunk(2)
        processed = self.pipeline.processor(current, batch.action)
        self._ends("P")
        outcome = processed.detach().requires_grad_()
        predicted = self.pipeline.decoder(outcome)
        step = PredictedStep(predicted, current, following, batch.permutation)
        loss = OBJECTIVES[self.config.objective].terms(self.config, step).loss
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self._ends("decoder and objective")
        processed.backward(outcome.grad)
        self._ends("P backward")
        latents.backward(cut.grad)
        self._ends("encoder backward")
        self.adam.step()
        self._ends("Adam")

    def _ends(self, part: str) -> None:
        now = time.process_time()
        self.seconds.setdefault(part, []).append(now - self._begin)
        self._begin = time.process_time()

    def milliseconds(self) -> dict[str, float]:
        """Median of each part after the warm-up, and their sum."""
        parts = {
            name: 1e3 * statistics.median(values[WARM_UP:]) for name, values in self.seconds.items()
        }
        return parts | {"whole step": sum(parts.values())}


def parts(options: argparse.Namespace, data: GameData) -> list[dict[str, object]]:
    """Return what each part of a step costs, and how many times faster bf16 is."""
    cases = {
        (arm, cnn): Parts(data, arm, cnn) for arm in ("rmr", "cswm") for cnn in ("fp32", "bf16")
    }
    for _ in range(WARM_UP + options.timed):
        for case in cases.values():
            case.step()
    found = []
    for (arm, cnn), case in cases.items():
        for part, value in case.milliseconds().items():
            goal = "<= 50" if (part, cnn) == ("whole step", "bf16") else ""
            what = f"{arm}, encoder {cnn}, {part}"
            found.append({"what": what, "measure": "ms", "value": round(value, 3), "goal": goal})
    for arm in ("rmr", "cswm"):
        plain, fast = (cases[arm, cnn].milliseconds() for cnn in ("fp32", "bf16"))
        both = [sum(times[name] for name in ENCODER) for times in (plain, fast)]
        wholes = [times["whole step"] for times in (plain, fast)]
        for what, (before, after), goal in (("encoder", both, ">= 2"), ("whole step", wholes, "")):
            ratio = {"measure": "times faster in bf16", "value": round(before / after, 3)}
            found.append({"what": f"{arm}, {what}", **ratio, "goal": goal})
        limit = {"measure": "ms", "value": round(both[1], 3), "goal": "<= 15"}
        found.append({"what": f"{arm}, encoder bf16, forward and backward", **limit})
    return found


def print_table(rows: list[dict[str, object]]) -> None:
    """Print rows under their names."""
    names = list(rows[0])
    widths = [max(len(name), *(len(str(each[name])) for each in rows)) for name in names]
    print("\n" + " | ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True)))
    for each in rows:
        values = (str(each[name]) for name in names)
        print(" | ".join(f"{v:>{width}}" for v, width in zip(values, widths, strict=True)))


def hardware(device: torch.device) -> str:
    """Name what computes."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} thread(s)"


def main() -> None:
    """Print the tables, and write the first where ``--csv`` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default="84x84")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 10, 40])
    parser.add_argument("--arm", choices=("rmr", "cswm", "no_p"), default="rmr")
    parser.add_argument("--donors", type=int, default=2, help="different frozen P in a stack")
    parser.add_argument("--objective", default="cswm")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--core", default="mpnn")
    parser.add_argument("--precision", default="fp32", help="of the messages: fp32 or bf16")
    parser.add_argument("--cnn", default="fp32", help="of the stack's convolutions: fp32 or bf16")
    parser.add_argument("--timed", type=int, default=20, help="timed steps")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--probe-rows", type=int, default=TRAIN_ROWS)
    parser.add_argument("--steps", type=int, default=20000, help="of a cell, for the second table")
    parser.add_argument("--checkpoints", type=int, default=4, help="of a cell")
    parser.add_argument("--parts", action="store_true", help="the parts of one step instead")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = SIZES[options.size]
    model = AtariModel(
        options.dim,
        options.core,
        trunk=str(sizes["trunk"]),
        height=int(sizes["height"]),
        width=int(sizes["width"]),
        precision=options.precision,
    )
    if not options.parts:
        print(
            f"{options.size}, arm {options.arm}, {options.objective}, batch {options.batch}, "
            f"{SLOTS} slots x {options.dim}, messages {options.precision}, CNN {options.cnn}"
        )
    print(
        f"{hardware(torch.device(options.device))}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )
    data = pong(options.root)
    rows = parts(options, data) if options.parts else measure(options, model, data)
    print_table(rows)
    if not options.parts:
        probe = probe_seconds(options, model)
        print(f"\nridge probe of a checkpoint, {options.probe_rows} training rows: {probe:.2f} s")
        print_table(estimates(options, rows, probe))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
