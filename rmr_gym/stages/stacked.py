"""Many runs as one: trainings that differ in seed, donor, arm or game, as one stacked model.

A stack leaves in the store what its runs leave one by one, so that the jobs after it find their
result there. Batches, initial weights, Adam and the ends of collapsed runs are those of the runs
alone. Only the order of additions inside convolutions and products differs: in float64 gradients
agree to 1e-9 of their size, in float32 losses to about 1e-4 of theirs over the first steps; after
that rounding grows with training, as it does between two machines.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial, wraps
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError, limit
from rmr_gym.data.sampling import batch_indices
from rmr_gym.domains.atari import AbstractData, AtariModel, NaturalData, abstract_pipeline
from rmr_gym.models.rmr.pipeline import ContrastiveTerms, RamLogits, find_device, ram_loss
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.models.rmr.stacked import StackedPipeline
from rmr_gym.runs.store import Artifact, Store, Task, replace_tasks
from rmr_gym.runs.sweep import Job, traces_of
from rmr_gym.runs.training import CURVE_POINTS, Checkpoint, DivergedError, Trained, diverged
from rmr_gym.stages import natural as alone
from rmr_gym.stages.games import GameData, natural_data
from rmr_gym.stages.natural import NaturalRun
from rmr_gym.stages.presets import OBJECTIVES, Natural, PredictedStep, Pretraining

Terms = Mapping[str, Tensor]
Result = Artifact | DivergedError
"""What a run of a stack leaves, or the error that ended it."""

STACK = 40
"""Runs of a stack on a GPU, unless another number is asked for."""

DEATHS = 2
"""A stack that killed its process so often is tried no more: its runs train one by one."""

OTHERS_GO_ON = "the other runs of its stack went on without it"

_VARYING = {"natural": ("arm", "seed", "donor"), "pretrain": ("data", "seed")}
"""In which arguments the runs of a stack may differ, by stage."""

_log = logging.getLogger(__name__)


def stacking(store: Store, size: int | None) -> Callable[[Sequence[Job]], list[Job]]:
    """Return the function that puts trainings together which can run as one model.

    Args:
        store: Where the jobs' results go.
        size: At most so many runs train as one; None: `STACK` on a GPU, 1 elsewhere.

    Raises:
        RMRError: A size below 1.
    """
    limit("stack", size)
    return partial(_with_stacks, store=store, size=size)


def _with_stacks(jobs: Sequence[Job], store: Store, size: int | None) -> list[Job]:
    """Return the jobs, a stack before those that share what it trains."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if _may_stack(job.tasks[0]):
            (task,) = job.tasks
            groups.setdefault(task.key_without(*_VARYING[task.stage.name]), []).append(job)
    leaders: dict[str, Job] = {}
    for group in groups.values():
        for part in _parts(group, _size(group[0].tasks[0], size)):
            leader = _leader(part)
            if traces_of(store, leader).crashes < DEATHS:
                leaders |= dict.fromkeys((job.key for job in part), leader)
    ordered: dict[str, Job] = {}
    for job in jobs:
        leader = leaders.get(job.key)
        if leader:
            ordered.setdefault(leader.key, leader)
            job = job._replace(after=(*job.after, leader.key))  # noqa: PLW2901
        ordered[job.key] = job
    return list(ordered.values())


def _may_stack(task: Task) -> bool:
    arguments = task.arguments
    if task.stage is alone.natural:
        return can_stack(arguments["config"], arguments["model"])
    if task.stage is not alone.pretrain or not isinstance(arguments["data"], GameData):
        return False
    config = arguments["config"]
    return config.rollout == 1 and not config.noise and not config.warmup and config.end == 1


def can_stack(config: Natural, model: AtariModel) -> bool:
    """Tell whether natural runs of these settings can train as one stack."""
    objective = OBJECTIVES[config.objective]
    return objective.horizon == 1 and model.core != "interaction"


def _size(task: Task, size: int | None) -> int:
    if size is None:
        return STACK if torch.device(task.arguments["device"]).type == "cuda" else 1
    return size


def _parts(group: Sequence[Job], size: int) -> list[Sequence[Job]]:
    """Cut a group into stacks of 2 to ``size`` runs that are as equal as can be.

    Runs of one arm and donor are neighbours, since seeds of one P pass their messages together.
    """
    if size < 2 or len(group) < 2:
        return []
    group = sorted(group, key=_neighbours)
    count = -(-len(group) // size)
    bounds = [index * len(group) // count for index in range(count + 1)]
    parts = (group[first:last] for first, last in pairwise(bounds))
    return [part for part in parts if len(part) > 1]


def _neighbours(job: Job) -> tuple[str, ...]:
    arguments = job.tasks[0].arguments
    donor = arguments.get("donor")
    return arguments.get("arm", ""), donor.key if donor else "", job.title


def _leader(part: Sequence[Job]) -> Job:
    """Return the job that trains a stack; the same runs give it the same name."""
    tasks = tuple(task for job in part for task in job.tasks)
    digest = hashlib.sha256(" ".join(task.key for task in tasks).encode()).hexdigest()[:20]
    after = tuple(dict.fromkeys(need for job in part for need in job.after))
    title = f"stack of {len(tasks)} {tasks[0].stage.name}"
    return Job(digest, title, tasks, after, train_together)


def train_together(store: Store, tasks: Sequence[Task]) -> str | None:
    """Train as one what the store lacks of some tasks, and keep what comes of each.

    Returns:
        A sentence where it did not go as it was meant to.
    """
    missing = [task for task in tasks if not store.has(task)]
    try:
        arguments = [replace_tasks(task.arguments, store.compute) for task in missing]
        train = natural_stack if tasks[0].stage is alone.natural else _pretrain_stack
        results = train(arguments) if missing else []
    except (RMRError, RuntimeError) as error:
        return f"not trained as a stack, but one by one: {error}"
    for task, result in zip(missing, results, strict=True):
        if isinstance(result, Artifact):
            store.keep(task, result)
    return _note(results)


def _note(results: Sequence[Result]) -> str | None:
    """Return a sentence where not all runs left something, or not from one stack."""
    artifacts = [result for result in results if isinstance(result, Artifact)]
    meant, sizes = len(results), sorted({a.record["stacked"]["runs"] for a in artifacts})
    notes = []
    if len(artifacts) < meant:
        notes.append(f"the loss of {meant - len(artifacts)} of {meant} runs was no number")
    if sizes and sizes != [meant]:
        halves = ", ".join(map(str, sizes))
        notes.append(f"{meant} runs did not fit the device's memory: trained in stacks of {halves}")
    return "; ".join(notes) or None


def in_halves(train: Callable[..., list[Result]]) -> Callable[..., list[Result]]:
    """Train the runs, its last argument, as two halves where the device's memory does not hold all.

    Args:
        train: Trains a stack from its beginning; may run out of GPU memory.

    Raises:
        RMRError: Not even one run fits.
    """

    @wraps(train)
    def halved(*given: Any, **options: Any) -> list[Result]:
        try:
            return train(*given, **options)
        except torch.OutOfMemoryError as error:
            *others, runs = given
            if len(runs) == 1:
                raise RMRError(
                    f"the device's memory does not hold a single run ({error}): choose a smaller "
                    "batch, smaller frames or another device"
                ) from error
        torch.cuda.empty_cache()
        half = (len(runs) + 1) // 2
        _log.warning(
            "a stack of %d runs does not fit the device's memory: they train in stacks of %d and "
            "%d",
            *(len(runs), half, len(runs) - half),
        )
        parts = (halved(*others, part, **options) for part in (runs[:half], runs[half:]))
        return [result for part in parts for result in part]

    return halved


def natural_stack(arguments: Sequence[Mapping[str, Any]]) -> list[Result]:
    """Train natural runs as one, each given by the arguments of the stage."""
    names = ("data", "model", "config", "device")
    data, model, config, device = (arguments[0][name] for name in names)
    runs = [NaturalRun(given["arm"], given["seed"], given["donor"]) for given in arguments]
    loaded = natural_data(data, model, config)
    return train_natural_stack(config, model, loaded, runs, device=device)


@in_halves
def train_natural_stack(
    config: Natural,
    model: AtariModel,
    data: NaturalData,
    runs: Sequence[NaturalRun],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Result]:
    """Train many natural runs as one and return of each what the stage ``natural`` returns.

    A stack that the device's memory does not hold trains in halves; ``stacked`` in the record says
    how many runs trained together, and their seconds.

    Args:
        config: Objective, checkpoints, batch, rate, precision of the convolutions.
        model: Sizes.
        data: Frames and actions of the recipient.
        runs: Arms, seeds and donors.
        device: Where to train.
        progress: Called after every step of a stack.

    Returns:
        One artifact a run, in the order of ``runs``; the error of a run whose loss was no number.

    Raises:
        RMRError: No run, unknown arm, missing or misfitting donor, settings that cannot be
            stacked, not even one run fits the device.
    """
    if not runs or not can_stack(config, model):
        raise RMRError(
            f"a stack needs one run or more of an objective that can be stacked, got {len(runs)} "
            f"of {config.objective!r} with core {model.core!r}: train such runs one by one"
        )
    objective, place = OBJECTIVES[config.objective], find_device(device)
    pipelines = [alone.initial_pipeline(data, model, config, run).to(place) for run in runs]
    before = [parameter_hash(pipeline.processor) for pipeline in pipelines]
    stack = StackedPipeline(pipelines, config.cnn)
    rows_at = natural_rows(config, data, [run.seed for run in runs])
    actions, frames = data.action.to(place), data.frames.to(place)

    def terms_of(*latents: Tensor) -> ContrastiveTerms:
        return objective.terms(config, PredictedStep(*latents))

    def terms_at(step: int) -> Terms:
        rows, action, permutation = (part[stack.runs].to(place) for part in rows_at(step))
        both = torch.cat([rows, rows + 1], dim=1)
        latents = stack.encoder(frames[both.T].transpose(0, 1))
        current, following = latents.chunk(2, dim=1)
        predicted = stack.decoder(stack.process(current, actions[action]))
        return torch.vmap(terms_of)(predicted, current, following, permutation)._asdict()

    def checkpoint_at(step: int, run: int) -> Checkpoint:
        return alone.natural_checkpoint(pipelines[run], data, step)

    def finish(run: int, trained: Trained) -> Artifact:
        return alone.natural_artifact(runs[run].arm, pipelines[run], before[run], trained)

    training = StackTraining(stack, config, terms_at, checkpoint_at, finish, rows_at)
    return train_stack(training, progress)


class StackTraining(NamedTuple):
    """A stack, and how it trains.

    Attributes:
        stack: Its frozen weights stay out of the optimizer.
        config: Its checkpoints, at the last of which training ends, and the rate of Adam.
        terms_at: Gives the "loss" of each run that is still there and the figures to log, [runs].
        checkpoint_at: Called with step and run after the run's weights were written back.
        finish: Makes what a run leaves, from its number and what training left.
        prepare: Called with the next step while the device is busy with this one.
    """

    stack: StackedPipeline
    config: Natural | Pretraining
    terms_at: Callable[[int], Terms]
    checkpoint_at: Callable[[int, int], Checkpoint]
    finish: Callable[[int, Trained], Artifact]
    prepare: Callable[[int], object]


class AbstractRun(NamedTuple):
    """One run of a stack of RAM pipelines; see `rmr_gym.stages.natural.pretrain`."""

    training: AbstractData
    validation: AbstractData
    scored_bytes: np.ndarray
    seed: int = 0


def _pretrain_stack(arguments: Sequence[Mapping[str, Any]]) -> list[Result]:
    loaded = {
        data: AbstractRun(data.abstract("training"), data.abstract("validation"), data.scored_bytes)
        for data in {given["data"] for given in arguments}
    }
    runs = [loaded[given["data"]]._replace(seed=given["seed"]) for given in arguments]
    config, model, device = (arguments[0][name] for name in ("config", "model", "device"))
    return pretrain_stack(config, model, runs, device=device)


@in_halves
def pretrain_stack(
    config: Pretraining, model: AtariModel, runs: Sequence[AbstractRun], *, device: str = "cpu"
) -> list[Result]:
    """Pretrain many RAM pipelines as one; see `train_natural_stack`."""
    if not runs:
        raise RMRError("a stack needs one run or more, got none")
    place = find_device(device)
    pipelines = [abstract_pipeline(model, run.seed).to(place) for run in runs]
    held_out = [
        alone.rows_to_score(run.validation, config.validation_rows, run.seed) for run in runs
    ]
    stack, (all_bits, rows_at) = StackedPipeline(pipelines), _abstract_rows(config, runs, place)

    def loss(mask: Tensor, written: Tensor, bits: Tensor, following: Tensor) -> Tensor:
        return ram_loss(RamLogits(mask, written), bits, following)

    def terms_at(step: int) -> Terms:
        rows, action = (part[stack.runs].to(place) for part in rows_at(step))
        bits, following = (all_bits[at].float() for at in (rows, rows + 1))
        mask, written = stack.decoder(stack.process(stack.encoder(bits), action))
        return {"loss": torch.vmap(loss)(mask, written, bits, following)}

    def checkpoint_at(step: int, run: int) -> Checkpoint:
        scored = runs[run].scored_bytes
        return alone.pretrain_checkpoint(pipelines[run], held_out[run], scored, model.core, step)

    def finish(run: int, trained: Trained) -> Artifact:
        copied = alone.copy_scores(held_out[run], runs[run].scored_bytes)
        return alone.pretrain_artifact(pipelines[run], trained, copied)

    training = StackTraining(stack, config, terms_at, checkpoint_at, finish, rows_at)
    return train_stack(training)


def natural_rows(
    config: Natural, data: NaturalData, seeds: Sequence[int]
) -> Callable[[int], tuple[Int[Tensor, "runs batch"], ...]]:
    """Return what gives the rows of a step's `rmr_gym.stages.natural.natural_batch` of many runs.

    These are rows of frames, numbers of transitions and partners.

    Args:
        config: Objective and batch size.
        data: Frames (in the processor's memory) and actions.
        seeds: One a run; equal ones are drawn once.
    """
    distinct, places = np.unique(seeds, return_inverse=True)
    uniform = OBJECTIVES[config.objective].sampling == "uniform"
    names = None if uniform else frame_names(data.frames)

    @lru_cache(maxsize=2)
    def rows_at(step: int) -> tuple[Tensor, ...]:
        drawn = [alone.drawn_transitions(config, data, int(s), step, names) for s in distinct]
        index, partners = (np.stack(part)[places] for part in zip(*drawn, strict=True))
        return tuple(map(torch.from_numpy, (data.current[index], index, partners)))

    return rows_at


def frame_names(frames: UInt8[Tensor, "rows height width"]) -> UInt8[np.ndarray, "rows 16"]:
    """Return a short name of each frame: equal frames, and no others, have equal names."""
    names = (hashlib.blake2b(frame.numpy().tobytes(), digest_size=16).digest() for frame in frames)
    return np.frombuffer(b"".join(names), np.uint8).reshape(-1, 16)


def _abstract_rows(
    config: Pretraining, runs: Sequence[AbstractRun], place: torch.device
) -> tuple[Tensor, Callable[[int], tuple[Tensor, Tensor]]]:
    """Return the bits of all games, and what gives each run's rows and actions of a step."""
    games = list({id(run.training): run.training for run in runs}.values())
    bits = [torch.from_numpy(game.bits) for game in games]
    starts = dict(zip(map(id, games), np.cumsum([0, *map(len, bits)][:-1]).tolist(), strict=True))

    @lru_cache(maxsize=2)
    def rows_at(step: int) -> tuple[Tensor, Tensor]:
        rows, actions = [], []
        for run in runs:
            data = run.training
            index = batch_indices(data, config.batch, run.seed, "pretrain", step)
            rows.append(data.current[index] + starts[id(data)])
            actions.append(data.action[index])
        return torch.from_numpy(np.stack(rows)), torch.from_numpy(np.stack(actions))

    return torch.cat(bits).to(place), rows_at


def train_stack(training: StackTraining, progress: Progress | None = None) -> list[Result]:
    """Train every run of a stack with its own batches, its own Adam state and its own end.

    A run whose checkpoint says stop, or whose loss is no number, leaves the stack; the others do
    not notice. What a run leaves equals what it leaves alone, within rounding; it is said to have
    taken its share of the time.

    Args:
        training: The stack, and how it trains.
        progress: Called after every step.
    """
    started, stack, config = time.perf_counter(), training.stack, training.config
    optimizer = torch.optim.Adam(stack.trainable(), lr=config.learning_rate, fused=True)
    results: list[Any] = [Trained() for _ in stack.runs]
    steps = config.checkpoints[-1]
    log_every = max(1, steps // CURVE_POINTS)
    for step in range(1, steps + 1):
        terms = _gradients(training, optimizer, results, step)
        if not stack.runs:
            break
        optimizer.step()
        going = [results[run] for run in stack.runs]
        if step % log_every == 0 or step == 1:
            values = [(name, term.tolist()) for name, term in terms.items()]
            for row, trained in enumerate(going):
                logged = {name: column[row] for name, column in values}
                trained.curve.append({"step": step} | logged)
        if step in config.checkpoints:
            stack.write_back()
            for run, trained in zip(stack.runs, going, strict=True):
                trained.add(training.checkpoint_at(step, run), "all")
            _keep(stack, [not trained.stopped for trained in going], optimizer)
        if progress:
            progress(step, steps)
    shared = {"seconds": time.perf_counter() - started, "runs": len(results)}
    for run, result in enumerate(results):
        if isinstance(result, Trained):
            results[run] = training.finish(run, result)
            results[run].record.update(seconds=shared["seconds"] / len(results), stacked=shared)
    return results


def _gradients(
    training: StackTraining, optimizer: torch.optim.Optimizer, results: list[Any], step: int
) -> Terms:
    """Leave the gradients of a step; runs whose loss is no number fall out, and it is repeated."""
    stack = training.stack
    while stack.runs:
        terms = training.terms_at(step)
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].sum().backward()
        training.prepare(step + 1)
        errors = [diverged(loss, step, OTHERS_GO_ON) for loss in terms["loss"].tolist()]
        if not any(errors):
            return terms
        for run, error in zip(stack.runs, errors, strict=True):
            results[run] = error or results[run]
        _keep(stack, [error is None for error in errors], optimizer)
    return {}


def _keep(stack: StackedPipeline, going: Sequence[bool], optimizer: torch.optim.Optimizer) -> None:
    if not all(going):
        stack.keep([row for row, goes in enumerate(going) if goes], optimizer)
