"""The dataset format: the manifest, the columns, and where an episode's file lies.

The format page of the documentation describes it for readers in other languages.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from rmr_gym.core.errors import RMRError

FORMAT = "rmr_gym.dataset"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
EPISODES = "episodes"
STEP_COLUMNS = ("action", "reward", "terminated", "truncated")


def require_version(version: int, path: Path) -> None:
    """Make sure that ``path`` is of the version of the format that this package reads.

    Raises:
        RMRError: It is older or newer.
    """
    if version == FORMAT_VERSION:
        return
    mend = (
        "upgrade rmr-gym to read it"
        if version > FORMAT_VERSION
        else "it comes from before the first release; record again, into another folder"
    )
    raise RMRError(f"{path} has format version {version}, expected {FORMAT_VERSION}: {mend}")


def episode_path(root: Path, index: int) -> Path:
    """Return where episode ``index`` of the data set in ``root`` lies."""
    return root / EPISODES / f"{index:06d}.h5"


def episode_indices(root: Path) -> list[int]:
    """Return the numbers of the finished episodes in ``root``, ascending; leftovers are ignored."""
    paths = (root / EPISODES).glob("*.h5")
    return sorted(int(path.stem) for path in paths if path.stem.isdigit())


def missing_indices(there: Sequence[int]) -> list[int]:
    """Return the numbers below the highest of ``there`` that are not in it."""
    return sorted(set(range(max(there, default=0))) - set(there))


@dataclass(frozen=True)
class ColumnSpec:
    """One column of the data set.

    Attributes:
        name: Its name in files and in `Transitions`.
        dtype: Numpy's name of the type, for instance ``"uint8"``.
        shape: Shape of one row.
        encoding: ``"ale_palette"`` for screens of palette indices, ``"raw"`` for all else.
        start: The smallest value of a discrete one.
        entry: Whether a column called ``observation`` is an entry of a Dict.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    encoding: Literal["raw", "ale_palette"] = "raw"
    start: int = 0
    entry: bool = False

    @property
    def stored(self) -> np.dtype[Any]:
        """The type in files: little-endian."""
        return np.dtype(self.dtype).newbyteorder("<")


@dataclass(frozen=True)
class Manifest:
    """What holds for the whole data set; written when it is created and never changed.

    Attributes:
        observations: Columns of T + 1 rows an episode of T steps.
        steps: Columns of T rows: action, reward, terminated, truncated.
        env_id: Id of the environment, or None for one that is not registered.
        env_kwargs: What it was made with.
        game: ALE's name of the game, or None.
        rom_md5: Of the game's ROM, or None.
        actions: Number of discrete actions, or None for an action that is not discrete.
        action_names: What each of them presses or does, or None where nobody knows.
        heads: Names of the players; the paper calls those of its data heads of Agent57.
        settings: How it was recorded: seed, max_steps, wrappers.
        versions: Of the packages that recorded it.
        format_version: Of the format.
    """

    observations: tuple[ColumnSpec, ...]
    steps: tuple[ColumnSpec, ...]
    env_id: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    game: str | None = None
    rom_md5: str | None = None
    actions: int | None = None
    action_names: tuple[str, ...] | None = None
    heads: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        names = [column.name for column in self.observations]
        taken = sorted(set(names) & set(STEP_COLUMNS))
        if taken or len(set(names)) != len(names):
            raise RMRError(
                f"expected observation columns with names of their own, found {names}: "
                f"{', '.join(STEP_COLUMNS)} are the names of step columns"
            )

    @property
    def columns(self) -> dict[str, ColumnSpec]:
        """Every column by its name, observations first."""
        return {column.name: column for column in (*self.observations, *self.steps)}

    def rows(self, column: str, length: int) -> int:
        """Return the rows of a column in an episode of so many steps."""
        return length + (column not in STEP_COLUMNS)

    def differences(self, other: "Manifest") -> list[str]:
        """Return what keeps episodes of ``other`` out of this data set, one phrase each.

        Versions of packages that only store or wrap may differ; those of the simulator may not.
        """
        here, there = self._identity(), other._identity()
        return [
            f"{name}: {here.get(name)!r} in the data set, {there.get(name)!r} asked for"
            for name in sorted({*here, *there})
            if here.get(name) != there.get(name)
        ]

    def to_json(self) -> str:
        """Return the text of the manifest file."""
        content = self._plain()
        return json.dumps({**content, "sha256": _sha256(content)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Manifest":
        """Return the manifest that ``text``, the content of ``path``, describes.

        Raises:
            RMRError: It is no manifest, or one of another version of the format.
        """
        try:
            content = json.loads(text)
            checksum = content.pop("sha256", None)
            if content["format"] != FORMAT or not isinstance(content["format_version"], int):
                raise _foreign(path)
            require_version(content["format_version"], path)
            if checksum not in (None, _sha256(content)):
                raise RMRError(
                    f"{path} is damaged or was changed by hand (its sha256 is not that of its "
                    "content): bring the file back that was recorded, or record again"
                )
            del content["format"]
            for part in ("observations", "steps"):
                content[part] = tuple(_column(row) for row in content[part])
            names = content.get("action_names")
            content["action_names"] = None if names is None else tuple(names)
            return cls(**{**content, "heads": tuple(content["heads"])})
        except RMRError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _foreign(path) from error

    def _plain(self) -> dict[str, Any]:
        """Return the manifest as JSON has it."""
        content = {"format": FORMAT, **asdict(self)}
        return json.loads(json.dumps(content, default=_name_or_list))

    def _identity(self) -> dict[str, Any]:
        content = self._plain()
        versions = content.pop("versions")
        nested = {name: content.pop(name) for name in ("env_kwargs", "settings")}
        named = {f"{part} {key}": value for part, of in nested.items() for key, value in of.items()}
        simulators = {f"version of {name}": versions.get(name) for name in ("ale-py", "mujoco")}
        return {**content, **named, **simulators}


def read_manifest(root: Path) -> Manifest:
    """Return the manifest of the data set in ``root``.

    Raises:
        RMRError: There is none, or it is foreign or of another version of the format.
    """
    path = root / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RMRError(
            f"expected a recorded data set in {root}, found no readable {MANIFEST}: record one "
            "with `rmr-gym record`, or choose another folder"
        ) from error
    except UnicodeDecodeError as error:
        raise _foreign(path) from error
    return Manifest.from_json(text, path)


@dataclass(frozen=True)
class Episode:
    """One whole episode in memory.

    Attributes:
        index: Its number in the data set.
        seed: What the environment was reset with, or None.
        head: Name of the player.
        observations: By column, T + 1 rows: the last is what the last step led to.
        actions: T rows.
        rewards: T numbers, as the environment gave them.
        terminated: T flags.
        truncated: T flags.
        interrupted: Whether recording stopped before the episode had ended.
    """

    index: int
    seed: int | None
    head: str
    observations: Mapping[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    interrupted: bool = False

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Every column by its name, observations first."""
        steps = (self.actions, self.rewards, self.terminated, self.truncated)
        return {**self.observations, **dict(zip(STEP_COLUMNS, steps, strict=True))}


def total_reward(rewards: Iterable[float]) -> float:
    """Return the sum, rounded once; inf or nan where rewards are, or where the sum overflows."""
    rewards = list(rewards)
    try:
        return math.fsum(rewards)
    except (OverflowError, ValueError):
        return sum(rewards)


def episode_checksum(columns: Mapping[str, Sequence[str | int]], **about: Any) -> str:
    """Return the sha256 of what an episode holds, whatever way it is stored.

    Args:
        columns: By name, the type, the shape and, in hex, the XXH3 (128 bits) of the little-endian
            bytes.
        **about: The episode's ``index``, ``seed``, ``head`` and ``interrupted``.
    """
    return _sha256({"columns": columns, **about})


def _sha256(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def stored_seed(seed: int | None) -> int | str | None:
    """Return a seed as HDF5 holds it: as text where it is larger than HDF5's numbers."""
    return seed if seed is None or seed < 2**63 else str(seed)


def step_columns(action_space: spaces.Space[Any]) -> tuple[ColumnSpec, ...]:
    """Return the four step columns of an environment with these actions.

    Raises:
        RMRError: The actions have no fixed shape and type.
    """
    columns = _leaves(action_space, "action")
    if [column.name for column in columns] != ["action"]:
        raise RMRError(f"expected an action space that is one array, found {action_space}")
    return (
        *columns,
        ColumnSpec("reward", "float64", ()),
        ColumnSpec("terminated", "bool", ()),
        ColumnSpec("truncated", "bool", ()),
    )


def observation_columns(space: spaces.Space[Any]) -> tuple[ColumnSpec, ...]:
    """Return one column an array of the observation; an array alone is named ``observation``.

    Entries of a Dict keep their names, those of a Dict inside it are joined with a dot.

    Raises:
        RMRError: A part of the space has no fixed shape and numeric type.
    """
    return tuple(_leaves(space, ""))


def flatten(observation: Any, prefix: str = "") -> dict[str, Any]:
    """Return the arrays of an observation by the names of `observation_columns`."""
    if not isinstance(observation, dict):
        return {prefix[:-1] or "observation": observation}
    columns = {}
    for key, part in observation.items():
        if isinstance(part, dict):
            columns |= flatten(part, f"{prefix}{key}.")
        else:
            columns[prefix + key] = part
    return columns


def _column(row: dict[str, Any]) -> ColumnSpec:
    """Return the column that a row of the manifest's file describes, or raise a TypeError."""
    column = ColumnSpec(**{**row, "shape": tuple(row["shape"])})
    texts = all(isinstance(text, str) for text in (column.name, column.dtype, column.encoding))
    sizes = all(type(size) is int and size >= 0 for size in column.shape)
    rest = type(column.start) is int and type(column.entry) is bool
    if not texts or not sizes or not rest or np.dtype(column.dtype).name != column.dtype:
        raise TypeError(row)
    return column


def _leaves(space: spaces.Space[Any], prefix: str) -> list[ColumnSpec]:
    if isinstance(space, spaces.Dict):
        return [leaf for key, part in space.items() for leaf in _leaves(part, _joined(prefix, key))]
    kinds = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    if (
        not isinstance(space, kinds)
        or space.dtype is None
        or space.dtype.kind not in "biuf"
        or 0 in (space.shape or ())
    ):
        raise RMRError(
            f"expected a space of numbers of fixed shape (Box, Discrete, MultiDiscrete, "
            f"MultiBinary, or a Dict of them), one number or more, found {space}: it cannot be "
            "stored"
        )
    start = int(space.start) if isinstance(space, spaces.Discrete) else 0
    name, entry = prefix or "observation", prefix == "observation"
    return [ColumnSpec(name, space.dtype.name, tuple(space.shape or ()), start=start, entry=entry)]


def _joined(prefix: str, key: str) -> str:
    if not isinstance(key, str) or not key or set(key) & set("/."):
        raise RMRError(f"expected names without '/' and '.' in a Dict space, found {key!r}")
    return f"{prefix}.{key}" if prefix else key


def _name_or_list(value: Any) -> Any:
    """Return what JSON can hold of a keyword argument that it cannot hold."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def _foreign(path: Path) -> RMRError:
    names = ", ".join(entry.name for entry in fields(Manifest))
    return RMRError(
        f"{path} is not the manifest of an rmr_gym data set: expected a JSON object with "
        f"format {FORMAT!r} and {names}"
    )
