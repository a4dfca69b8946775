"""What concerns whole data sets: is one damaged, does it repeat itself, several made into one."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import lock
from rmr_gym.data import schema
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.reader import read_info, verify_episode
from rmr_gym.data.schema import Episode, Manifest
from rmr_gym.data.writer import LOCK, DatasetWriter

Progress = Callable[[int, int], None]


def find_problems(path: str | os.PathLike[str], progress: Progress | None = None) -> list[str]:
    """Read a whole data set against its checksums and return what is wrong, one text an episode.

    An episode is missing where one with a higher number is there. While a recorder writes, episodes
    may be missing only because it has not finished them yet.

    Args:
        path: Folder of the data set.
        progress: Called with (episodes that were read, episodes that are there).

    Raises:
        RMRError: There is no data set, or its manifest cannot be read.
    """
    root = Path(path)
    manifest, there = schema.read_manifest(root), schema.episode_indices(root)
    problems = {
        index: f"{schema.episode_path(root, index)} is missing: episode {index} was not recorded, "
        "or its file was lost; recording again with the same arguments adds it"
        for index in schema.missing_indices(there)
    }
    for done, index in enumerate(there, 1):
        try:
            verify_episode(read_info(schema.episode_path(root, index)), manifest)
        except RMRError as error:
            problems[index] = f"episode {index}: {error}"
        if progress is not None:
            progress(done, len(there))
    return [problems[index] for index in sorted(problems)]


def being_written(path: str | os.PathLike[str]) -> bool:
    """Return whether a recorder has the data set open, so that episodes may still appear.

    Always False where the system has no file locks, and of a folder without a lock file.
    """
    with suppress(OSError), (Path(path) / LOCK).open("rb") as file:
        return lock(file.fileno()) is False
    return False


@dataclass(frozen=True)
class DuplicateReport:
    """How many rows are byte-equal to an earlier row.

    Attributes:
        rows: Rows that were looked at.
        within: Of these, equal to an earlier row of the same episode.
        across: Of these, equal to a row of an earlier episode.
        repeated: Of these, equal to an earlier row of any episode.
    """

    rows: int
    within: int
    across: int
    repeated: int


def duplicate_report(episodes: Iterable[Shaped[np.ndarray, "rows ..."]]) -> DuplicateReport:
    """Count the repeated rows of episodes, which are looked at one after another.

    Example:
        >>> duplicate_report(dataset.by_episode("pixels"))  # doctest: +SKIP
    """
    rows = within = across = repeated = 0
    known: set[bytes] = set()
    for episode in episodes:
        listed = list(_digests(episode))
        rows += len(listed)
        within += len(listed) - len(set(listed))
        across += sum(digest in known for digest in listed)
        repeated += len(listed) - len(set(listed) - known)
        known.update(listed)
    return DuplicateReport(rows, within, across, repeated)


def duplicate_rows(
    reference_frames: Shaped[np.ndarray, "reference ..."], frames: Shaped[np.ndarray, "rows ..."]
) -> Bool[np.ndarray, " rows"]:
    """Return which of ``frames`` are byte-equal to any of ``reference_frames``.

    Source: Anand et al. (2019), their code: test frames that occur in training are dropped.
    Differs: none.

    Raises:
        RMRError: The frames differ in type or size, so that none could be equal.
    """
    if (reference_frames.dtype, reference_frames.shape[1:]) != (frames.dtype, frames.shape[1:]):
        raise RMRError(
            f"expected frames of one type and size, found {reference_frames.dtype}"
            f"{list(reference_frames.shape[1:])} and {frames.dtype}{list(frames.shape[1:])}"
        )
    known = set(_digests(reference_frames))
    return np.fromiter((row in known for row in _digests(frames)), dtype=bool, count=len(frames))


def shared_rows(
    reference: Iterable[Shaped[np.ndarray, "rows ..."]],
    episodes: Iterable[Shaped[np.ndarray, "rows ..."]],
) -> int:
    """Count the rows of ``episodes`` that also occur in ``reference``.

    For training and test episodes of a split: how many test frames were seen in training.
    """
    known = {digest for rows in reference for digest in _digests(rows)}
    return sum(digest in known for rows in episodes for digest in _digests(rows))


def _digests(rows: Shaped[np.ndarray, "rows ..."]) -> Iterator[bytes]:
    """Yield the sha256 of each row's bytes."""
    return (hashlib.sha256(row.tobytes()).digest() for row in rows)


def copy_episodes(
    path: str | os.PathLike[str],
    manifest: Manifest,
    indices: Sequence[int],
    read: Callable[[int], Episode],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransitionDataset:
    """Write episodes to a data set, one at a time; go on where an earlier run was interrupted.

    Each appears as a whole or not at all. Those that are there already stay, and must be the same.

    Args:
        path: Folder of the data set.
        manifest: Of the data set.
        indices: Numbers of the episodes.
        read: Returns the episode of a number; one at a time is held in memory.
        overwrite: Delete the data set that is there first.
        progress: Called with (episodes that are there, episodes that shall be).

    Raises:
        RMRError: The folder holds something else or other episodes, or cannot be written.
    """
    with DatasetWriter(path, manifest, overwrite=overwrite) as writer:
        there = TransitionDataset(path)
        for position, info in enumerate(there.episodes):
            if info.index not in indices or not _same(read(info.index), there.episode(position)):
                raise RMRError(
                    f"{there.path} holds another episode {info.index} than would be written: "
                    "choose another folder, or overwrite it with --force"
                )
        missing = sorted(set(indices) - {info.index for info in there.episodes})
        for done, index in enumerate(missing, len(there.episodes) + 1):
            writer.write(read(index))
            if progress is not None:
                progress(done, len(indices))
    return TransitionDataset(path)


def _same(one: Episode, other: Episode) -> bool:
    def content(episode: Episode) -> tuple[object, ...]:
        columns = {name: rows.tobytes() for name, rows in episode.columns.items()}
        return episode.seed, episode.head, episode.interrupted, columns

    return content(one) == content(other)


def merge_datasets(
    out: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransitionDataset:
    """Write the episodes of several data sets to a new one, numbered from 0 in the order given.

    The sources must be alike in everything but the seed and the heads: environment, ROM, columns,
    settings, version of the simulator. Each episode is compared with its checksum before it is
    copied. After an interruption the same call goes on where it was.

    Args:
        out: Folder of the new data set; its manifest says under ``settings["merged"]`` what it is
            made of.
        sources: Folders of the data sets, at least two.
        overwrite: Delete the data set that is in ``out`` first.
        progress: Called with (episodes that are there, episodes that shall be).

    Raises:
        RMRError: A source is damaged, differs from the first or has an episode in common with
            another one; ``out`` is a source, holds something else, or cannot be written.
    """
    if len(sources) < 2:
        raise RMRError(f"expected at least two data sets to merge, found {len(sources)}")
    if Path(out).resolve() in [Path(source).resolve() for source in sources]:
        raise RMRError(f"expected a new folder to merge into, found {out}, which is a source")
    datasets = [TransitionDataset(source) for source in sources]
    manifest = _joined(datasets)
    _require_different_episodes(datasets)
    places = [(dataset, at) for dataset in datasets for at in range(len(dataset.episodes))]

    def read(index: int) -> Episode:
        dataset, at = places[index]
        verify_episode(dataset.episodes[at], dataset.manifest)
        return replace(dataset.episode(at), index=index)

    return copy_episodes(
        out, manifest, range(len(places)), read, overwrite=overwrite, progress=progress
    )


def _joined(datasets: Sequence[TransitionDataset]) -> Manifest:
    first, heads = _without_seed(datasets[0].manifest), dict[str, None]()
    for dataset in datasets:
        heads.update(dict.fromkeys(dataset.manifest.heads))
        if differences := "; ".join(first.differences(_without_seed(dataset.manifest))):
            raise RMRError(
                f"expected data sets that differ in seeds and heads only, found that {dataset.path}"
                f" differs from {datasets[0].path} ({differences}): keep them apart"
            )
    merged = [
        {
            "seed": dataset.manifest.settings.get("seed"),
            "episodes": len(dataset.episodes),
            "fingerprint": dataset.fingerprint,
        }
        for dataset in datasets
    ]
    return replace(first, heads=tuple(heads), settings={**first.settings, "merged": merged})


def _without_seed(manifest: Manifest) -> Manifest:
    kept = {k: v for k, v in manifest.settings.items() if k not in ("seed", "merged")}
    return replace(manifest, heads=(), settings=kept)


def _require_different_episodes(datasets: Sequence[TransitionDataset]) -> None:
    for one, other in combinations(datasets, 2):
        common = {e.checksum for e in one.episodes} & {e.checksum for e in other.episodes}
        if common:
            index = min(e.index for e in one.episodes if e.checksum in common)
            raise RMRError(
                f"expected data sets with episodes of their own, found episode {index} in both "
                f"{one.path} and {other.path}: record one of them with another seed"
            )
