"""The stages in stacks: what the store lacks is trained as one and put where each run is sought."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.core.palette import PALETTE_GRAY
from rmr_gym.domains import atari
from rmr_gym.protocol import stages
from rmr_gym.protocol.arms import find_arm
from rmr_gym.protocol.feeding import Frames
from rmr_gym.protocol.stacked import NaturalRun, train_natural_stack
from rmr_gym.protocol.stacked_pretrain import AbstractRun, pretrain_stack
from rmr_gym.protocol.stages import PRETRAIN_SEED, GameTask
from rmr_gym.protocol.store import Artifact, Store, write_artifact
from rmr_gym.protocol.training import DivergedError
from rmr_gym.protocol.transfer_donors import Donor


class NaturalMember(NamedTuple):
    """A natural run that a cell needs.

    Attributes:
        task: The recipient.
        arm: A name in `rmr_gym.protocol.arms.ARMS`; other names are trained by the cell itself.
        seed: Shared by paired arms.
        donor: Whose P is used; None: the recipient's own.
    """

    task: GameTask
    arm: str
    seed: int
    donor: Donor | None = None

    def artifact(self) -> Artifact | None:
        """Return the pretrained pipeline that the run needs, or None."""
        if not find_arm(self.arm).pretrained:
            return None
        return self.donor.pretrained() if self.donor else stages.pretrained(self.task)


class AbstractMember(NamedTuple):
    """A pretraining that a cell needs.

    Attributes:
        task: The game.
        seed: Of initial weights and batches.
    """

    task: GameTask
    seed: int = PRETRAIN_SEED


def natural_stack(members: Sequence[NaturalMember]) -> dict[str, Any]:
    """Train as one the natural runs of one task that the store lacks.

    Returns:
        The seconds, and a note where it did not go as it was meant to.
    """
    return _told(_train_natural, members)


def abstract_stack(members: Sequence[AbstractMember]) -> dict[str, Any]:
    """Pretrain as one what the store lacks, for tasks that differ in their games alone."""
    return _told(_pretrain, members)


def _told(train: Any, members: Sequence[Any]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        note = train(members)
    except (RMRError, RuntimeError) as error:
        note = f"not trained as a stack, but one by one: {error}"
    return {"seconds": time.perf_counter() - started, "note": note}


def _train_natural(members: Sequence[NaturalMember]) -> str | None:
    task, missing = members[0].task, {}
    for member in members:
        donor = member.artifact()
        key = stages.natural_key(task, member.arm, member.seed, donor)
        folder = Store(task.store).folder("natural", key)
        weights = donor.part("processor") if donor else None
        if not folder.is_dir():
            missing[folder] = NaturalRun(member.arm, member.seed, weights)
    if not missing:
        return None
    left = train_natural_stack(
        task.preset.natural,
        task.preset.model,
        stages.natural_data(task),
        list(missing.values()),
        frames=resident_frames(task),
        device=task.device,
        cnn=task.cnn,
    )
    return _put(list(missing), left)


def _pretrain(members: Sequence[AbstractMember]) -> str | None:
    task, missing, data = members[0].task, {}, {}
    for member in members:
        folder = Store(task.store).folder("pretrain", stages.pretrain_key(*member))
        if folder.is_dir():
            continue
        if member.task not in data:
            episodes = stages.open_episodes(member.task)
            data[member.task] = AbstractRun(
                atari.load_abstract(episodes.dataset, episodes.training),
                atari.load_abstract(episodes.dataset, episodes.validation),
                episodes.slots,
                PRETRAIN_SEED,
            )
        missing[folder] = data[member.task]._replace(seed=member.seed)
    if not missing:
        return None
    left = pretrain_stack(
        task.preset.pretraining, task.preset.model, list(missing.values()), device=task.device
    )
    return _put(list(missing), left)


def _put(folders: Sequence[Path], left: Sequence[Artifact | DivergedError]) -> str | None:
    """Write what is there, and return a sentence where it is not all, or not from one stack."""
    trained = [each for each in left if isinstance(each, Artifact)]
    for folder, artifact in zip(folders, left, strict=True):
        if isinstance(artifact, Artifact) and not folder.is_dir():
            write_artifact(folder, artifact)
    meant, sizes = len(left), sorted({each.record["stacked"]["runs"] for each in trained})
    notes = []
    if len(trained) < meant:
        notes.append(f"the loss of {meant - len(trained)} of {meant} runs was no number")
    if sizes and sizes != [meant]:
        halves = ", ".join(map(str, sizes))
        notes.append(f"{meant} runs did not fit the device's memory: trained in stacks of {halves}")
    return "; ".join(notes) or None


def resident_frames(task: GameTask) -> Frames:
    """Put the frames of a game's natural training onto its device, one byte a pixel.

    Frames of the console's own size go there as palette indices, as they were recorded, and are
    decoded batch by batch; smaller ones are means of gray levels, which no palette holds.
    """
    data, model = stages.natural_data(task), task.preset.model
    full_size = (model.height, model.width) == (210, 160)
    if torch.device(task.device).type == "cpu" or not full_size:
        return Frames(data.frames).to(task.device)
    return palette_frames(task).to(task.device)


def palette_frames(task: GameTask) -> Frames:
    """Load the frames of a game's natural training as palette indices, with their gray levels."""
    episodes = stages.open_episodes(task)
    chosen = episodes.training[: task.preset.natural.episodes]
    pixels = episodes.dataset.load(columns=("pixels",), episodes=chosen)["pixels"]
    return Frames(torch.from_numpy(pixels), torch.tensor(PALETTE_GRAY))
