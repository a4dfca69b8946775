"""Exchange with Minari, the format of the Farama Foundation: export and import without loss.

Minari is an optional dependency: ``pip install "rmr-gym[minari]"``. JAX, which Minari's own
recorder needs, is not used.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError, optional
from rmr_gym.core.files import AnyPath, replacing, require_free, write_atomically
from rmr_gym.data import schema
from rmr_gym.data.dataset import TransitionDataset, copy_episodes
from rmr_gym.data.reader import verify_episode
from rmr_gym.data.schema import ColumnSpec, Episode, Manifest

if TYPE_CHECKING:
    from minari import EpisodeData, MinariDataset
    from minari.dataset.minari_storage import MinariStorage

_NAMESPACE, _MANIFEST = "namespace_metadata.json", "rmr_gym_manifest"
_ABOUT = "Recorded by rmr_gym, losslessly; pixels of Atari games are indices of ALE's palette."
_INDEX, _HEAD, _INTERRUPTED = "rmr_gym_index", "rmr_gym_head", "rmr_gym_interrupted"


def export_minari(
    dataset: TransitionDataset,
    dataset_id: str,
    *,
    root: AnyPath | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a data set as one that ``minari.load_dataset`` reads, bit-equal in every column.

    Columns stay as they were recorded: the screen of an Atari game as palette indices, of which
    `rmr_gym.core.palette` makes gray and RGB. Minari stores without compression: 33.7 kB a step of
    an Atari game. The manifest and each episode's head, seed and number go along, so that
    `import_minari` gives back an equal data set. The data set appears as a whole or not at all;
    one episode at a time is held in memory.

    Args:
        dataset: What to write.
        dataset_id: Minari's id, for instance ``"rmr/pong-v0"``.
        root: Folder of Minari's data sets; None for Minari's own choice, which is the environment
            variable ``MINARI_DATASETS_PATH`` or a folder in the home directory.
        overwrite: Replace the Minari data set of that id.
        progress: Called with (episodes that were written, all episodes).

    Returns:
        The folder of the Minari data set.

    Raises:
        RMRError: Minari is missing, the id is malformed or taken, the data set is empty or damaged,
            or the folder cannot be written.
    """
    minari = optional("minari")
    if not dataset.episodes:
        raise RMRError(f"expected at least one episode to export, found none in {dataset.path}")
    final = require_free(_place(minari, dataset_id, root), overwrite)
    with replacing(final) as folder:
        storage = _new_storage(minari, dataset.manifest, dataset_id, folder)
        for done, (position, info) in enumerate(enumerate(dataset.episodes), 1):
            verify_episode(info, dataset.manifest)
            episode = dataset.episode(position)
            buffer = minari.data_collector.EpisodeBuffer(
                id=position,
                seed=schema.stored_seed(episode.seed),
                observations=_nested(_named(dataset.manifest, episode.observations)),
                actions=episode.actions,
                rewards=episode.rewards,
                terminations=episode.terminated,
                truncations=episode.truncated,
            )
            storage.update_episodes([buffer])
            about = {_HEAD: info.head, _INDEX: info.index, _INTERRUPTED: info.interrupted}
            storage.update_episode_metadata([about], [position])
            if progress is not None:
                progress(done, len(dataset.episodes))
    return final


def import_minari(
    dataset_id: str,
    path: AnyPath,
    *,
    root: AnyPath | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransitionDataset:
    """Write a local Minari data set as one of this package, bit-equal in every column.

    Observations may be any array or (nested) Dict of arrays with T + 1 rows, actions any array.
    Rewards are stored as float64. Of a data set that `export_minari` did not write, the algorithm's
    name becomes the head. After an interruption the same call goes on where it was.

    Args:
        dataset_id: Minari's id, for instance ``"D4RL/door/human-v2"``.
        path: Folder of the data set to write.
        root: Folder of Minari's data sets, as for `export_minari`.
        overwrite: Delete the data set that is in ``path`` first.
        progress: Called with (episodes that are there, all episodes).

    Raises:
        RMRError: Minari or its data set is missing, the data set holds what cannot be stored, the
            folder holds something else, or it cannot be written.
    """
    minari = optional("minari")
    with _reading(dataset_id):
        source = _opened(minari, dataset_id, root)
        about = list(source.storage.get_episode_metadata(source.episode_indices))
        positions = {int(facts.get(_INDEX, at)): at for at, facts in enumerate(about)}
        manifest = _manifest(source, dataset_id)

    def read(index: int) -> Episode:
        at = positions[index]
        with _reading(dataset_id):
            return _episode(source[at], about[at], index, manifest)

    return copy_episodes(path, manifest, [*positions], read, overwrite=overwrite, progress=progress)


def _place(minari: Any, dataset_id: str, root: AnyPath | None) -> Path:
    """Return where Minari looks for the data set."""
    try:
        minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise RMRError(
            f"expected a Minari id of letters, digits, '-' and '_' with a version, like rmr/pong-v0"
            f", found {dataset_id!r}"
        ) from error
    if root is not None:
        return Path(root).absolute() / dataset_id
    return minari.storage.datasets_root_dir.get_dataset_path(dataset_id)


def _new_storage(minari: Any, manifest: Manifest, dataset_id: str, folder: Path) -> "MinariStorage":
    for namespace in folder.parents[: dataset_id.count("/")]:
        if not (namespace / _NAMESPACE).exists():
            write_atomically(namespace / _NAMESPACE, "{}")
    boxes = {column.name: _box(column) for column in manifest.observations}
    taken, count = manifest.steps[0], manifest.actions
    storage = minari.dataset.minari_storage.MinariStorage.new(
        folder / "data",
        observation_space=_nested(_named(manifest, boxes), gym.spaces.Dict),
        action_space=gym.spaces.Discrete(count, start=taken.start) if count else _box(taken),
        env_spec=_env_spec(manifest),
        data_format="hdf5",
        jpeg_encoding=False,
    )
    about = {
        "dataset_id": dataset_id,
        "minari_version": minari.__version__,
        "algorithm_name": ", ".join(manifest.heads) or "unknown",
        "description": _ABOUT,
        _MANIFEST: manifest.to_json(),
    }
    storage.update_metadata(about)
    return storage


def _opened(minari: Any, dataset_id: str, root: AnyPath | None) -> "MinariDataset":
    place = _place(minari, dataset_id, root)
    if not (place / "data" / "metadata.json").is_file():
        raise RMRError(
            f"expected the Minari data set {dataset_id} in {place}, found none: get it with "
            f"`minari download {dataset_id}`, or name the folder of Minari's data sets (--root)"
        )
    return minari.MinariDataset(place / "data")


@contextmanager
def _reading(dataset_id: str) -> Iterator[None]:
    """Turn what Minari finds wrong with a data set of its own into one clear error."""
    try:
        yield
    except RMRError:
        raise
    except (ImportError, OSError, RuntimeError, LookupError, ValueError, AssertionError) as error:
        raise RMRError(
            f"Minari cannot read its data set {dataset_id} ({error}): download or export it again"
        ) from error


def _manifest(source: "MinariDataset", dataset_id: str) -> Manifest:
    metadata = source.storage.metadata
    if _MANIFEST in metadata:
        return Manifest.from_json(metadata[_MANIFEST], source.storage.data_path)
    observations = schema.observation_columns(source.observation_space)
    steps = schema.step_columns(source.action_space)
    if len(source):
        first = source[0]
        rows = schema.flatten(first.observations)
        observations = tuple(_like(spec, rows[spec.name]) for spec in observations)
        steps = (_like(steps[0], first.actions), *steps[1:])
    space, spec = source.action_space, source.env_spec
    return Manifest(
        observations=observations,
        steps=steps,
        env_id=spec.id if spec else None,
        env_kwargs=dict(spec.kwargs) if spec else {},
        actions=int(space.n) if isinstance(space, gym.spaces.Discrete) else None,
        heads=(str(metadata.get("algorithm_name", "unknown")),),
        settings={
            "minari": dataset_id,
            "jpeg": source.storage.jpeg_encoding,
            "max_episode_steps": spec.max_episode_steps if spec else None,
        },
        versions={"minari": source.minari_version},
    )


def _like(spec: ColumnSpec, rows: np.ndarray) -> ColumnSpec:
    """Describe a column as its data is; the type may be another than that of the space."""
    if rows.dtype.kind not in "biuf":
        raise RMRError(
            f"expected numbers in column {spec.name!r}, found {rows.dtype}: not storable"
        )
    return replace(spec, dtype=rows.dtype.name, shape=rows.shape[1:])


def _episode(data: "EpisodeData", about: Any, index: int, manifest: Manifest) -> Episode:
    terminated, truncated = data.terminations.astype(bool), data.truncations.astype(bool)
    ended = bool(terminated[-1:].any() or truncated[-1:].any())
    return Episode(
        index=index,
        seed=None if about.get("seed") is None else int(about["seed"]),
        head=str(about.get(_HEAD, manifest.heads[0] if manifest.heads else "unknown")),
        observations=schema.flatten(data.observations),
        actions=data.actions,
        rewards=data.rewards.astype(np.float64),
        terminated=terminated,
        truncated=truncated,
        interrupted=bool(about.get(_INTERRUPTED, not ended)),
    )


def _box(column: ColumnSpec) -> gym.spaces.Box:
    """Return the widest space of a column; bounds are not recorded."""
    dtype: Any = np.dtype(column.dtype)
    widest = {"f": (-np.inf, np.inf), "b": (0, 1)}
    low, high = widest.get(dtype.kind) or (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return gym.spaces.Box(low, high, column.shape, dtype)


def _env_spec(manifest: Manifest) -> Any:
    """Return what makes the environment, where its id is known and no wrapper was around it."""
    if manifest.env_id is None or manifest.settings.get("wrappers"):
        return None
    try:
        spec = gym.spec(manifest.env_id)
    except gym.error.Error:
        return None
    limits = (manifest.settings.get(name) for name in ("max_episode_steps", "max_steps"))
    shortest = min((limit for limit in limits if limit), default=spec.max_episode_steps)
    return replace(spec, kwargs=manifest.env_kwargs, max_episode_steps=shortest)


def _named(manifest: Manifest, columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return observations by name; one that is not in a Dict has none."""
    alone = [(spec.name, spec.entry) for spec in manifest.observations] == [("observation", False)]
    return {"": columns["observation"]} if alone else columns


def _nested(columns: Mapping[str, Any], make: Callable[[dict[str, Any]], Any] = dict) -> Any:
    """Undo `rmr_gym.data.schema.flatten`: names with dots become a Dict, made so, within a Dict."""
    if list(columns) == [""]:
        return columns[""]
    parts: dict[str, dict[str, Any]] = {}
    for name, value in columns.items():
        first, _, rest = name.partition(".")
        parts.setdefault(first, {})[rest] = value
    return make({name: _nested(part, make) for name, part in parts.items()})
