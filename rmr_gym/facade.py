"""The chain in few names: what `rmr-gym pretrain`, `train` and `probe` do, as functions of Python.

`rmr_gym.record`, `pretrain`, `train`, `probe` and `load_encoder` are imported when they are first
asked for. Everything is written to folders, and every function takes the folder that the one before
it wrote.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.core.files import AnyPath, require_free
from rmr_gym.core.options import overridden
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.atari import AtariModel
from rmr_gym.experiments.worlds import balls_world, is_of_balls
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder, find_artifact
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.runs.store import Artifact, Store, read_artifact, write_artifact
from rmr_gym.stages import export
from rmr_gym.stages.balls import BallsFolder, BallsPreset, given_balls
from rmr_gym.stages.chain import ENCODERS, UNTRAINED, GameTasks
from rmr_gym.stages.games import GameData
from rmr_gym.stages.natural import chosen_step
from rmr_gym.stages.presets import AtariPreset, Preset, as_json

AnyPreset = str | AtariPreset | BallsPreset
Settings = Mapping[str, Any]

KIND = "processor"


def pretrain(
    data: AnyPath,
    out: AnyPath,
    *,
    preset: AnyPreset = "laptop",
    settings: Settings | None = None,
    seed: int = 0,
    root: AnyPath = "runs",
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a processor P on a game's RAM, or on the positions of balls.

    Args:
        data: Folder of a recorded data set.
        out: Folder to write.
        preset: smoke, laptop or paper; of balls also quick.
        settings: Single settings that are changed, by the names that they have on the command line,
            for instance ``{"pretraining.steps": 500, "model.dim": 32}``.
        seed: Fixes initial weights and batches.
        root: Folder of finished stages; what is found there is not computed again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        overwrite: Replace what is in ``out``.
        progress: Called with (steps done, steps in all).

    Returns:
        The folder, whose record holds the scores of P and of what it must beat.

    Raises:
        RMRError: Bad options or data, or the folder exists.
    """
    given = Path(data)
    if is_of_balls(given):
        world = balls_world(given, _chosen(BallsPreset, preset, settings), device)
        target, store = require_free(out, overwrite), store_in(root)
        task = world.pretrained(seed)
        artifact = store.compute(task, progress)
        scored = [store.compute(part) for part in (world.rolled_out(), world.rolled_out(task))]
        rows = [row for part in scored for row in part.record["rows"]]
        facts = {"preset": world.preset.preset}
    else:
        game = game_of(given, _chosen(AtariPreset, preset, settings), device)
        target, store = require_free(out, overwrite), store_in(root)
        artifact = store.compute(game.pretrained(seed), progress)
        rows = artifact.record["copy"] + artifact.record["rows"]
        facts = {"kind": KIND, "game": game.name, "model": as_json(game.preset.model)}
    described = Artifact(artifact.record | facts | {"scores": rows}, artifact.tensors)
    return write_artifact(target, described, overwrite=overwrite)


def train(
    data: AnyPath,
    out: AnyPath | None = None,
    *,
    arm: str = "rmr",
    processor: AnyPath | None = None,
    step: int | None = None,
    preset: AnyPreset = "laptop",
    settings: Settings | None = None,
    seed: int = 0,
    root: AnyPath = "runs",
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train an encoder of frames through P, and write it as a folder that wrappers and agents read.

    Args:
        data: Folder of a recorded data set.
        out: Folder to write; None: ROOT/encoders/NAME-ARM-SEED-STEP.
        arm: rmr, cswm, random_p, shuffled_p, no_p, supervised or untrained; of balls those of
            `rmr_gym.stages.balls.BALLS_ARMS` or untrained.
        processor: Folder of `pretrain`; None: where the arm needs one, P is pretrained now.
        step: Checkpoint to write, of a game; None: the last.
        preset: As for `pretrain`, like all that follow.
        settings: Single settings that are changed.
        seed: Fixes initial weights and batches.
        root: Folder of finished stages.
        device: Where to compute.
        overwrite: Replace what is in ``out``.
        progress: Called with (steps done, steps in all).

    Returns:
        The folder.

    Raises:
        RMRError: Bad options or data, the folder exists, or the encoder collapsed.
    """
    given = Path(data)
    folder = None if processor is None else Path(processor)
    if is_of_balls(given):
        if step is not None:
            raise RMRError(f"expected no step for balls, of which the last is kept, got {step}")
        world = balls_world(given, _chosen(BallsPreset, preset, settings), device)
        phases = () if arm == UNTRAINED else world.preset.prediction.phases
        name = f"{world.data.label}-{arm}-{seed}-{sum(phase.steps for phase in phases)}"
        donor = given_balls(BallsFolder(folder)) if folder else None
        make = partial(export.pretrained_balls_encoder, world, arm, seed, donor=donor)
    else:
        chosen = _chosen(AtariPreset, preset, settings)
        chosen = replace(chosen, model=_model_of(folder)) if folder else chosen
        game = game_of(given, chosen, device)
        step = checkpoint_of(game.preset, arm, step)
        name = f"{game.name}-{arm}-{seed}-{step}"
        donor = export.folder_donor(str(folder), folder, game.preset.model) if folder else None
        make = partial(export.pretrained_encoder, game, arm, seed, donor=donor, step=step)
    target = require_free(out or Path(root) / "encoders" / name, overwrite)
    encoder = make(store=store_in(root), progress=progress)
    return encoder.save_pretrained(target, overwrite=overwrite)


def probe(
    data: AnyPath,
    encoder: AnyPath,
    *,
    strict: bool = False,
    preset: AnyPreset = "laptop",
    settings: Settings | None = None,
    root: AnyPath = "runs",
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Read RAM bits linearly off a frozen encoder.

    Args:
        data: Folder of a recorded data set of a game.
        encoder: Folder of a pretrained encoder, or the name of a shipped one.
        strict: Refuse an encoder of another game, which is otherwise only warned of.
        preset: As for `pretrain`, like all that follow.
        settings: Single settings that are changed.
        root: Folder of finished stages.
        device: Where to compute.
        progress: Called with (steps done, steps in all).

    Returns:
        A row a probe, with its scores.

    Raises:
        RMRError: Bad options or data, no such encoder, or one of another game with ``strict``.
    """
    folder = find_artifact(encoder)
    config = PretrainedEncoder.of(folder).config
    if not isinstance(config, EncoderConfig):
        raise RMRError(f"{folder} holds an encoder of balls: expected one of a game")
    chosen = _chosen(AtariPreset, preset, settings)
    sizes = {"height": config.height, "width": config.width, "dim": config.dim}
    game = game_of(Path(data), replace(chosen, model=replace(chosen.model, **sizes)), device)
    task = game.probed(export.encoder_features(folder, game, strict=strict))
    return store_in(root).compute(task, progress).record["rows"]


def load_encoder(encoder: AnyPath) -> PretrainedEncoder:
    """Return a pretrained encoder with its P; see `PretrainedEncoder.from_pretrained`.

    Args:
        encoder: Its folder, or the name of a shipped one ("pong").

    Raises:
        RMRError: There is none, or it is damaged.
    """
    return PretrainedEncoder.from_pretrained(encoder)


def store_in(root: AnyPath) -> Store:
    """Return where finished stages are."""
    return Store(Path(root) / "store")


def game_of(data: Path, preset: AtariPreset, device: str = "cpu") -> GameTasks:
    """Return the game of a data set under a preset.

    Raises:
        RMRError: The data are missing or of no game, or there is no such device.
    """
    find_device(device)
    name = TransitionDataset(data).manifest.game
    if name is None:
        raise RMRError(
            f"{data} is not of an Atari game: record one with `rmr-gym record --game NAME`"
        )
    return GameTasks(GameData.of(name, data, preset.recording), preset.chosen, device)


def checkpoint_of(preset: Preset, arm: str, step: int | None = None) -> int:
    """Return the checkpoint of an arm that is meant, before anything is trained.

    Raises:
        RMRError: Unknown arm, or a step at which nothing is kept.
    """
    known_name("arm", arm, ENCODERS)
    kept = [0] if arm == UNTRAINED else [*preset.natural.checkpoints]
    return chosen_step(kept, step)


def _chosen(kind: Any, preset: AnyPreset, settings: Settings | None) -> Any:
    options = kind(**kind.proposals(preset)) if isinstance(preset, str) else preset
    return overridden(options, settings or {})


def _model_of(folder: Path) -> AtariModel:
    """Return the sizes of a pretrained P.

    Raises:
        RMRError: The folder holds something else.
    """
    try:
        return AtariModel(**read_artifact(folder).record["model"])
    except (KeyError, TypeError) as error:
        raise RMRError(
            f"{folder} holds no processor of a game: expected a folder from `rmr-gym pretrain` on "
            "the data set of one"
        ) from error
