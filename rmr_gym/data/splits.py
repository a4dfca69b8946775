"""Splitting a data set by episode, never by step."""

from collections.abc import Sized
from typing import Protocol, runtime_checkable

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator


@runtime_checkable
class HasEpisodes(Protocol):
    """Anything that lists its episodes, for instance a `TransitionDataset`."""

    @property
    def episodes(self) -> Sized:
        """The episodes."""
        ...


def split_episodes(
    dataset: HasEpisodes | int, train: int, validation: int, seed: int
) -> tuple[list[int], list[int]]:
    """Draw disjoint training and validation episodes.

    The same count, sizes and seed give the same split; what is left over belongs to neither part.

    Source: RMR, section 5 (48 training and 48 validation episodes).
    Differs: which episodes go where is drawn; the paper does not say how it split.

    Args:
        dataset: A data set, or its number of episodes.
        train: Training episodes, 1 or more.
        validation: Validation episodes, 0 or more.
        seed: Seed of the draw.

    Returns:
        The positions of the training and of the validation episodes, each in ascending order.

    Raises:
        RMRError: There are not enough episodes, or a size is out of range.
    """
    count = dataset if isinstance(dataset, int) else len(dataset.episodes)
    if train < 1 or validation < 0:
        raise RMRError(
            "expected 1 or more training and 0 or more validation episodes, found "
            f"{train} and {validation}"
        )
    if train + validation > count:
        raise RMRError(
            f"expected at least {train + validation} episodes to split into {train} for training "
            f"and {validation} for validation, found {count}: record more or split into fewer"
        )
    order = generator(seed, "split").permutation(count).tolist()
    return sorted(order[:train]), sorted(order[train : train + validation])
