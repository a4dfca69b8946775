"""`rmr-gym encoder`: make and look at pretrained encoders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import out_console, print_rows, progress_bars
from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.envs.atari.games import find_game

if TYPE_CHECKING:
    from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
    from rmr_gym.protocol.stages import GameTask

app = SubcommandApp()
Preset_ = Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")]
Positional = tyro.conf.Positional


@app.command
def export(
    game: str,
    arm: str = "rmr",
    seed: int = 0,
    step: int | None = None,
    out: Path | None = None,
    ship: bool = False,
    preset: Preset_ = "laptop",
    objective: str | None = None,
    data: Path | None = None,
    root: Path = Path("runs"),
    device: str = "cpu",
    force: bool = False,
) -> None:
    """Write an encoder of `rmr-gym compare`, with its P, as a folder that wrappers and agents read.

    What the comparison left in ROOT/store is found there; what it did not is trained now.

    Args:
        game: Name of the game, for instance Pong.
        arm: rmr, cswm, random_p, shuffled_p, no_p, supervised or untrained.
        seed: Seed of the comparison.
        step: Checkpoint; default: the last.
        out: Folder to write; default: ROOT/encoders/GAME-ARM-SEED-STEP.
        ship: Write into the installed package instead, to be found by the game's name.
        preset: Sizes and steps of the comparison.
        objective: cswm or infonce; default: the preset's.
        data: Folder of the data set; default: where the comparison recorded it.
        root: Folder of data sets and finished stages.
        device: Where the comparison computed: cpu, cuda, cuda:1 ...
        force: Overwrite an encoder that is there.
    """
    from rmr_gym.models.pretrained import SHIPPED  # noqa: PLC0415

    if ship and out is not None:
        raise RMRError("expected either --out or --ship, found both")
    row = find_game(game)
    task = _task(row.name, data, preset, objective, root, device)
    with progress_bars() as progress_for:
        title = f"training the {arm} encoder on {task.game} pixels"
        pretrained = make_encoder(task, arm, seed, step, progress_for(title))
    reached = pretrained.provenance["training"]["step"]
    folder = out or root / "encoders" / f"{row.name}-{arm}-{seed}-{reached}"
    written = pretrained.save_pretrained(SHIPPED / row.rom if ship else folder, overwrite=force)
    out_console.print(f"written: {written}", markup=False, soft_wrap=True)


@app.command
def show(encoder: Positional[str]) -> None:
    """Print the card of an encoder.

    Args:
        encoder: Its folder, or the name of a shipped one.
    """
    from rmr_gym.models.pretrained import PretrainedEncoder  # noqa: PLC0415

    text = PretrainedEncoder.from_pretrained(encoder).card()
    out_console.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command(name="list")
def list_() -> None:
    """List the encoders that come with the package."""
    from rmr_gym.models.pretrained import PretrainedEncoder, shipped_encoders  # noqa: PLC0415

    rows = []
    for name, folder in shipped_encoders().items():
        read = PretrainedEncoder.from_pretrained(folder)
        training = read.provenance.get("training", {})
        rows.append(
            {
                "name": name,
                "arm": training.get("arm", "?"),
                "step": training.get("step", "?"),
                "dim": read.config.dim,
                "P": read.config.core or "-",
            }
        )
    print_rows(rows, ("name", "arm", "step", "dim", "P"))


def make_encoder(
    task: "GameTask", arm: str, seed: int, step: int | None = None, progress: Any = None
) -> "PretrainedEncoder":
    """Return an encoder of a comparison, with the facts for its card and what it must beat.

    P comes with it where it was frozen; one that learnt is not kept by a comparison.

    Args:
        task: The game.
        arm: An arm of the comparison, "supervised" or "untrained".
        seed: Seed of the comparison.
        step: Checkpoint; None for the last.
        progress: Called after every step, where it has to be trained.

    Raises:
        RMRError: Unknown arm, or a checkpoint that the preset does not have.
    """
    from rmr_gym.models.pretrained import PretrainedEncoder  # noqa: PLC0415
    from rmr_gym.protocol import stages  # noqa: PLC0415
    from rmr_gym.protocol.arms import ARMS, arm_processor  # noqa: PLC0415

    if arm not in (*ARMS, "supervised", "untrained"):
        raise unknown_name("arm", arm, (*ARMS, "supervised", "untrained"))
    if arm == "untrained":
        encoder, step = stages.untrained_encoder(task, seed), 0
    else:
        encoders = stages.trained_encoders(task, arm, seed, progress=progress)
        kept = stages.kept_steps(encoders)
        step = kept[-1] if step is None else step
        if step not in kept:
            raise RMRError(f"expected a checkpoint of {kept} as step, found {step}")
        encoder = stages.kept_encoder(task, seed, encoders, step)
    probed = {"this encoder": stages.probed(task, encoder)}
    if arm != "untrained":
        probed["untrained encoder"] = stages.probed(task, stages.untrained_encoder(task, seed))
    probed["pixels through PCA"] = stages.probed_pixels(task)
    processor = None
    if arm in ARMS and ARMS[arm].frozen:
        donor = stages.pretrained(task).part("processor") if ARMS[arm].pretrained else None
        processor = arm_processor(arm, task.preset.model, seed, donor).cpu()
    provenance = _provenance(task, {"arm": arm, "seed": seed, "step": step})
    provenance["metrics"] = [
        {"features": features} | {name: row[name] for name in _METRICS if name in row}
        for features, scores in probed.items()
        for row in scores.record["rows"]
    ]
    config = _config(task, encoder.affine is not None, processor is not None)
    return PretrainedEncoder(config, encoder.cpu(), processor, provenance)


_METRICS = (
    "probe", "micro_f1", "macro_f1", "slot_accuracy", "effective_rank", "dead_slots",
)  # fmt: skip


def _config(task: "GameTask", affine: bool, with_processor: bool) -> "EncoderConfig":
    from rmr_gym.domains.atari import ACTIONS, SLOTS  # noqa: PLC0415
    from rmr_gym.models.pretrained import EncoderConfig  # noqa: PLC0415

    model = task.preset.model
    return EncoderConfig(
        game=task.game,
        height=model.height,
        width=model.width,
        slots=SLOTS,
        maps=model.maps,
        dim=model.dim,
        trunk=model.trunk,
        core=model.core if with_processor else None,
        aggregation=model.aggregation,
        precision=model.precision,
        actions=ACTIONS,
        affine=affine,
    )


def _provenance(task: "GameTask", training: dict[str, Any]) -> dict[str, Any]:
    from rmr_gym.protocol.stages import open_episodes  # noqa: PLC0415

    episodes = open_episodes(task)
    recording = task.preset.recording
    return {
        "data": {
            "fingerprint": episodes.dataset.fingerprint,
            "episodes": len(episodes.dataset.episodes),
            "training_episodes": len(episodes.training),
            "transitions": len(episodes.dataset),
            "frameskip": recording.frameskip,
            "repeat_action_probability": recording.repeat_action_probability,
            "scored_ram_cells": len(episodes.slots),
        },
        "training": {
            "objective": task.preset.natural.objective,
            "preset": task.preset.name,
            **training,
        },
    }


def _task(
    game: str, data: Path | None, preset: str, objective: str | None, root: Path, device: str
) -> "GameTask":
    from rmr_gym.data.dataset import TransitionDataset  # noqa: PLC0415
    from rmr_gym.models.rmr.pipeline import find_device  # noqa: PLC0415
    from rmr_gym.protocol.config import find_preset  # noqa: PLC0415
    from rmr_gym.protocol.stages import GameTask  # noqa: PLC0415
    from rmr_gym.protocol.store import Store  # noqa: PLC0415

    chosen = find_preset(preset).with_objective(objective)
    recording = chosen.recording
    count = recording.train_episodes + recording.validation_episodes
    data = data or root / "data" / f"{game}-{count}x{recording.max_steps}"
    find_device(device)
    TransitionDataset(data).require_game(game)
    return GameTask(game, data, Store(root / "store").root, chosen, device)
