"""What is made sure of data before a world model is trained or scored on them."""

from collections.abc import Iterable
from pathlib import Path

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import read_manifest
from rmr_gym.domains.clips import frames_of
from rmr_gym.protocol.world_models import WorldTask
from rmr_gym.stages.balls import BallsEpisodes, open_balls


def check_test(task: WorldTask, test: Path) -> None:
    """Make sure that a test set is like the training data and shares no episode with them.

    Args:
        task: Of the training.
        test: Folder of the test set.

    Raises:
        RMRError: Frames of another size, another number of actions, or a shared episode.
    """
    name = test.resolve().name
    (usual, choices), (shape, actions) = (
        frames_of(read_manifest(data), data) for data in (task.data, test)
    )
    if shape != usual:
        raise RMRError(
            f"expected frames of {usual[0]} x {usual[1]} in {name}, as in training, found "
            f"{shape[0]} x {shape[1]}: record it as the training data were, balls with "
            f"resolution={usual[0]}"
        )
    if actions != choices:
        raise RMRError(
            f"expected {choices} actions in {name}, as in training, found {actions}: record it in "
            "the world of the training data"
        )
    episodes = TransitionDataset(test).episodes
    known = {each.checksum for each in _split(task).dataset.episodes}
    shared = sum(each.checksum in known for each in episodes)
    if shared:
        raise RMRError(
            f"expected test sets that are not trained on, found {name}, {shared} of whose "
            f"{len(episodes)} episodes are in the training data: record it with another --seed, or "
            "leave it out, since the validation episodes are scored anyway"
        )


def check_lengths(task: WorldTask, tests: Iterable[Path | None], frames: int) -> None:
    """Make sure that some episode is long enough wherever a model is trained or scored.

    Args:
        task: Of the training.
        tests: Test sets; None: the validation episodes.
        frames: Of the longest sequence that is scored.

    Raises:
        RMRError: There is none.
    """
    data, training, validation = _split(task)
    parts = [("training", data, training, task.preset.length + 1)]
    for test in tests:
        found = data if test is None else TransitionDataset(test)
        part = validation if test is None else list(range(len(found.episodes)))
        parts.append(("validation" if test is None else "test", found, part, frames))
    for part, found, episodes, wanted in parts:
        longest = max((found.episodes[index].length + 1 for index in episodes), default=0)
        if longest < wanted:
            raise RMRError(
                f"expected a {part} episode of {wanted} frames or more in {found.path}, found at "
                f"most {longest}: record longer episodes or choose a preset of shorter sequences"
            )


def _split(task: WorldTask) -> BallsEpisodes:
    return open_balls(task.data, task.preset.validation_share)
