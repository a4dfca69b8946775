"""Stages, tasks (calls of stages that have not happened yet) and the store that remembers results.

A stage is a function that returns an `Artifact`. Calling it computes nothing: it gives a `Task`,
whose key is the hash of the stage's name and version, its arguments, torch and numpy. Arguments may
be tasks themselves; the function receives their artifacts.

Example:
    >>> from rmr_gym.runs.store import Artifact, Store, stage
    >>> @stage(version=1)
    ... def double(value: int) -> Artifact:
    ...     return Artifact({"value": 2 * value})
    >>> @stage(version=1)
    ... def total(first: Artifact, second: Artifact) -> Artifact:
    ...     return Artifact({"value": first.record["value"] + second.record["value"]})
    >>> task = total(double(1), double(2))
    >>> import tempfile, pathlib
    >>> Store(pathlib.Path(tempfile.mkdtemp())).compute(task).record["value"]
    6
"""

import hashlib
import inspect
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property, lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_limits

from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import alone, os_errors, replacing, require_free

_TENSORS, RECORD, _SUMS = "tensors.safetensors", "record.json", "sha256.json"

TENSORBOARD = "RMR_GYM_TENSORBOARD"
"""Environment variable: folder of logs for TensorBoard; unset: none are written."""


@dataclass(frozen=True)
class Artifact:
    """What a stage leaves: tensors by name and a JSON record."""

    record: dict[str, Any]
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose name starts with ``prefix.``, without the prefix."""
        start = prefix + "."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


def write_artifact(folder: Path, artifact: Artifact, *, overwrite: bool = False) -> Path:
    """Write an artifact folder so that it is there whole or not at all.

    Raises:
        RMRError: If the folder exists and ``overwrite`` is off, or cannot be written.
    """
    with replacing(folder, wait=True) as hidden:
        require_free(folder, overwrite)
        contiguous = {name: tensor.contiguous() for name, tensor in artifact.tensors.items()}
        save_file(contiguous, hidden / _TENSORS)
        (hidden / RECORD).write_text(json.dumps(artifact.record, indent=1))
        sums = {name: _sha256(hidden / name) for name in (_TENSORS, RECORD)}
        (hidden / _SUMS).write_text(json.dumps(sums))
    return folder


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path) -> Path:
    """Return the path of a file after a look at its checksum, where there is one."""
    sums = path.with_name(_SUMS)
    if sums.is_file() and dict(json.loads(sums.read_text())).get(path.name) != _sha256(path):
        raise ValueError(f"{path.name} does not match its checksum")
    return path


def read_artifact(folder: Path) -> Artifact:
    """Read an artifact folder; nothing in it is executed.

    Raises:
        RMRError: If it is missing, truncated or of another kind.
    """
    record = _read_record(folder)
    try:
        return Artifact(record, load_file(_checked(folder / _TENSORS)))
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise RMRError(f"{folder} is damaged ({error}): write it again") from error


def _read_record(folder: Path) -> dict[str, Any]:
    if not (folder / RECORD).is_file():
        absent = "" if folder.is_dir() else " and is no folder"
        raise RMRError(
            f"{folder} holds no {RECORD}{absent}: expected a folder written by `rmr-gym pretrain`"
        )
    try:
        record = json.loads(_checked(folder / RECORD).read_text())
    except (OSError, ValueError, TypeError) as error:
        raise RMRError(f"{folder} is damaged ({error}): write it again") from error
    if not isinstance(record, dict):
        raise RMRError(f"{folder / RECORD} is not an rmr_gym record: expected a JSON object")
    return record


@dataclass(frozen=True)
class Room:
    """What a stage gets that decides no result: room for its unfinished state, and an audience.

    Attributes:
        folder: Where the unfinished state is kept; None: nowhere.
        progress: Called after every step.
        name: What the curve is called in TensorBoard.
    """

    folder: Path | None = None
    progress: Progress | None = None
    name: str = ""

    def load(self) -> Artifact | None:
        """Return the last saved state, or None; a damaged one counts as none."""
        try:
            return None if self.folder is None else read_artifact(self.folder)
        except RMRError:
            return None

    def save(self, state: Artifact) -> None:
        """Replace the saved state."""
        if self.folder is not None:
            write_artifact(self.folder, state, overwrite=True)
            log_curve(self.name, state.record)

    def clear(self) -> None:
        """Forget the saved state."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def log_curve(name: str, record: Mapping[str, Any]) -> None:
    """Write a record's curve for TensorBoard, if that is asked for, in place of an earlier one.

    Raises:
        RMRError: It cannot be written.
    """
    folder, curve = os.environ.get(TENSORBOARD), record.get("curve")
    if not folder or not curve:
        return
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - heavy, and optional

    run = Path(folder) / re.sub(r"[^\w.,()=-]+", " ", name).strip()
    with os_errors(run):
        shutil.rmtree(run, ignore_errors=True)
        with SummaryWriter(str(run)) as writer:
            for point in curve:
                for figure in point.keys() - {"step"}:
                    writer.add_scalar(figure, point[figure], point["step"])


NOWHERE = Room()
"""No room and no audience: for a stage that is called by hand."""


class Place(NamedTuple):
    """A path that decides no result, for instance the folder of agents that a run leaves."""

    path: Path


class Stage:
    """A function that returns an `Artifact`, see `stage`.

    Attributes:
        function: The function itself; call it to compute at once, without a store.
        name: What it is called in keys and folders.
        version: Raised whenever the function computes something else.
        later: Parameters that keys leave out where they are at their default.
    """

    def __init__(self, function: Callable[..., Artifact], version: int, later: Sequence[str] = ()):
        self.function, self.version, self.later = function, version, later
        self.name = function.__name__
        self.__doc__, self.__module__ = function.__doc__, function.__module__
        self.__qualname__ = function.__qualname__
        parameters = inspect.signature(function).parameters
        self.has_room = "room" in parameters
        self._signature = inspect.Signature(
            [parameter for name, parameter in parameters.items() if name != "room"]
        )

    def __call__(self, *args: Any, **kwargs: Any) -> "Task":
        """Return the task of a call with these arguments; nothing is computed."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return Task(self, dict(bound.arguments))

    def __reduce__(self) -> str:
        """Let a stage be pickled by its name, as a function is."""
        return self.__qualname__

    def default(self, name: str) -> Any:
        """Return the default of a parameter."""
        return self._signature.parameters[name].default


def stage(version: int, later: Sequence[str] = ()) -> Callable[[Callable[..., Artifact]], Stage]:
    """Make a stage of a function at the top of a module.

    The function may have a parameter ``room``, see `Room`; it is not part of the key. Arguments are
    numbers, text, None, dataclasses, tuples, lists and dicts of them, tasks, and objects with a
    method ``key()`` that returns JSON (a data set: its fingerprint).

    Args:
        version: Raised by one whenever the function computes something else.
        later: Parameters that came later, and compute at their default what was computed before:
            there keys leave them out, so that results from before are found.
    """
    return lambda function: Stage(function, version, later)


@dataclass(frozen=True, eq=False)
class Task:
    """A call of a stage that has not happened yet; equal keys are equal tasks.

    Attributes:
        stage: The stage.
        arguments: By name, defaults included.
    """

    stage: Stage
    arguments: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Hash of everything that decides the result."""
        return self.key_without()

    def key_without(self, *names: str) -> str:
        """Return what the key would be if the named arguments did not count."""
        silent = {
            name for name in self.stage.later if self.arguments[name] == self.stage.default(name)
        }
        left = silent.union(names)
        rest = {name: value for name, value in self.arguments.items() if name not in left}
        named = {"stage": self.stage.name, "version": self.stage.version, "arguments": key_of(rest)}
        text = json.dumps(named | _versions(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @cached_property
    def needs(self) -> tuple["Task", ...]:
        """The tasks among the arguments."""
        tasks: list[Task] = []
        replace_tasks(self.arguments, tasks.append)
        return tuple(tasks)

    @cached_property
    def title(self) -> str:
        """What it is called in logs and messages.

        Arguments at their defaults are left out, and so is what has been said before: a task that
        is needed often has arguments of the one that needs it.
        """
        return " ".join(self._title_words(set()))

    @property
    def log_name(self) -> str:
        """What its curve is called in TensorBoard: no two tasks have one name."""
        return f"{self.title} {self.key[:6]}"

    def _title_words(self, said: set[str]) -> Iterator[str]:
        yield self.stage.name
        for name, value in self.arguments.items():
            if isinstance(value, Task):
                yield f"({' '.join(value._title_words(said))})"
            elif value != self.stage.default(name):
                words = [word for word in _words(value) if word not in said]
                said.update(words)
                yield from words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def replace_tasks(value: Any, replacement: Callable[[Task], Any]) -> Any:
    """Return a value in which every task, in tuples, lists and dicts too, is replaced."""
    if isinstance(value, Task):
        return replacement(value)
    if type(value) in (tuple, list):
        return type(value)(replace_tasks(part, replacement) for part in value)
    if isinstance(value, Mapping):
        return {name: replace_tasks(part, replacement) for name, part in value.items()}
    return value


def _words(value: Any) -> list[str]:
    """Return how a title speaks of an argument; nothing for a configuration without a label."""
    label = getattr(value, "label", None)
    if label is not None:
        return [str(label)]
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return [str(value)] if plain else []


def key_of(value: Any) -> Any:
    """Return the JSON of a value that stands for it in keys.

    Raises:
        TypeError: Nothing is known to stand for such a value.
    """
    if isinstance(value, Place):
        return None
    if isinstance(value, Task):
        return {"task": value.key}
    if hasattr(value, "key"):
        return value.key()
    if is_dataclass(value) and not isinstance(value, type):
        value = {part.name: getattr(value, part.name) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): key_of(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [key_of(part) for part in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"no key of a {type(value).__name__} is known: {value!r}")


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numpy")}


class Store:
    """Results of tasks under one root folder, found by their keys.

    Raises:
        RMRError: If the root cannot be written, or logs are asked for that TensorBoard would write.
    """

    def __init__(self, root: Path):
        self.root = root
        if os.environ.get(TENSORBOARD) and find_spec("tensorboard") is None:
            raise RMRError(
                "expected TensorBoard, which writes the logs that were asked for: `pip install "
                f"'rmr-gym[tensorboard]'`, or leave --tensorboard out and {TENSORBOARD} unset"
            )
        with os_errors(root):
            root.mkdir(parents=True, exist_ok=True)

    def folder(self, task: Task) -> Path:
        """Return where the result of a task is or would be."""
        return self.root / task.stage.name / task.key

    def beside(self, task: Task, ending: str) -> Path:
        """Return a path beside the result, for instance that of its log."""
        return self.folder(task).with_name(f"{task.key}.{ending}")

    def has(self, task: Task) -> bool:
        """Tell whether a result is there."""
        return self.record(task) is not None

    def find(self, task: Task) -> Artifact | None:
        """Return a result that is there, or None; a damaged one counts as none."""
        with suppress(RMRError):
            return read_artifact(self.folder(task))
        return None

    def record(self, task: Task) -> dict[str, Any] | None:
        """Return the record of a result that is there, or None; no tensor is read."""
        with suppress(RMRError):
            return _read_record(self.folder(task))
        return None

    def keep(self, task: Task, artifact: Artifact) -> None:
        """Write a result; one that is there already and not damaged stays."""
        folder = self.folder(task)
        log_curve(task.log_name, artifact.record)
        try:
            write_artifact(folder, artifact, overwrite=folder.exists() and self.find(task) is None)
        except RMRError:
            if not self.has(task):
                raise

    def compute(self, task: Task, progress: Progress | None = None) -> Artifact:
        """Return the result, found or computed and kept; what it needs is computed before.

        Everything is computed on one thread, so that the bytes depend neither on the machine nor on
        the number of workers. The wall-clock time is added to the record as ``seconds``. Who asks
        for what another process is computing waits for it.

        Args:
            task: What to compute.
            progress: Called after every step of this task and of what it needs.
        """
        if (earlier := self.find(task)) is not None:
            return earlier
        arguments = replace_tasks(task.arguments, partial(self.compute, progress=progress))
        lock = self.beside(task, "lock")
        with alone(lock):
            if (earlier := self.find(task)) is not None:
                return earlier
            room = Room(self.beside(task, "part"), progress, task.log_name)
            if task.stage.has_room:
                arguments["room"] = room
            started = time.perf_counter()
            with one_thread():
                artifact = task.stage.function(**arguments)
            timed = {"seconds": time.perf_counter() - started} | artifact.record
            artifact = replace(artifact, record=timed)
            self.keep(task, artifact)
            room.clear()
            lock.unlink(missing_ok=True)
            return artifact


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the linear algebra of numpy and torch to one thread."""
    threads = torch.get_num_threads()
    with threadpool_limits(1, user_api="blas"):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
