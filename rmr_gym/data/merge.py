"""Joining data sets that were recorded separately."""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from rmr_gym.core.errors import RMRError
from rmr_gym.data.copying import Progress, copy_episodes
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.episode_reader import verify_episode
from rmr_gym.data.schema import Episode, Manifest, episode_path


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
        info = dataset.episodes[at]
        verify_episode(episode_path(dataset.path, info.index), info, dataset.manifest)
        return replace(dataset.episode(at), index=index)

    return copy_episodes(
        out, manifest, range(len(places)), read, overwrite=overwrite, progress=progress
    )


def _joined(datasets: Sequence[TransitionDataset]) -> Manifest:
    first, heads = _without_seed(datasets[0].manifest), dict[str, None]()
    for dataset in datasets:
        heads.update(dict.fromkeys(dataset.manifest.heads))
        differences = first.differences(_without_seed(dataset.manifest))
        if differences:
            raise RMRError(
                f"expected data sets that differ in seeds and heads only, found that {dataset.path}"
                f" differs from {datasets[0].path} ({'; '.join(differences)}): keep them apart"
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
