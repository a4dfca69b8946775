"""Writing data sets: one file an episode, there as a whole or not at all."""

import logging
import os
import weakref
from pathlib import Path
from types import TracebackType

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import TEMPORARY, os_errors, write_file
from rmr_gym.data.episode_writer import EpisodeWriter
from rmr_gym.data.schema import (
    EPISODES,
    MANIFEST,
    Episode,
    Manifest,
    episode_indices,
    episode_path,
    read_manifest,
)
from rmr_gym.data.storage import lock, share

LOCK = ".lock"

_log = logging.getLogger(__name__)


class DatasetWriter:
    """Adds episodes to the data set in a folder, which it makes if there is none.

    An episode is compressed in memory while it grows; its file is then written under a temporary
    name, flushed to the disk and renamed. A run that is killed at any instant leaves every finished
    episode and at most a temporary file a process, which readers ignore and the next writer removes
    and says so (a warning of the logger ``rmr_gym.data.writer``, which Python shows by default).

    Several processes may write different episodes of one data set at the same time. Where the
    system has no file locks (Windows, some network drives) a writer does not see the others:
    temporary files stay, and nobody is kept from overwriting a data set that is being written.

    Args:
        path: Folder of the data set.
        manifest: What holds for the whole data set.
        overwrite: Delete the episodes of the data set that is there.
        exclusive: Be the only writer, so that episode numbers can be chosen freely.

    Raises:
        RMRError: The folder holds something else or a data set with another manifest, is being
            written by another process where that cannot be, or cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        manifest: Manifest,
        *,
        overwrite: bool = False,
        exclusive: bool = False,
    ):
        self.path = Path(path)
        self.manifest = manifest
        with os_errors(self.path):
            _check_folder(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        self._release = weakref.finalize(self, os.close, descriptor)
        try:
            with os_errors(self.path):
                alone = lock(descriptor, self.path, must_be_alone=overwrite or exclusive)
                self._prepare(alone, overwrite)
                if not exclusive:
                    share(descriptor)
        except BaseException:
            self._release()
            raise

    def episode(self, index: int, seed: int | None, head: str) -> EpisodeWriter:
        """Begin episode ``index``; its file appears when `EpisodeWriter.finish` is called.

        Raises:
            RMRError: That episode is there already.
        """
        final = episode_path(self.path, index)
        if final.exists():
            raise RMRError(f"{final} exists already: episodes are never overwritten")
        return EpisodeWriter(final, self.manifest, index, seed, head)

    def write(self, episode: Episode) -> None:
        """Write one whole episode.

        Raises:
            RMRError: It is there already, its columns are not those of the manifest, or the folder
                cannot be written.
        """
        wanted = [column.name for column in self.manifest.observations]
        if sorted(episode.observations) != sorted(wanted):
            raise RMRError(f"expected observations {wanted}, found {sorted(episode.observations)}")
        length = len(episode.actions)
        steps = (episode.rewards, episode.terminated, episode.truncated)
        rows = {len(column) for column in episode.observations.values()}
        if rows != {length + 1} or {len(column) for column in steps} != {length}:
            raise RMRError(
                f"expected {length} rows a step column and {length + 1} an observation column for "
                f"{length} actions, found {sorted(rows)} observations"
            )
        writer = self.episode(episode.index, episode.seed, episode.head)
        try:
            writer.begin({name: episode.observations[name][0] for name in wanted})
            for i in range(length):
                observation = {name: episode.observations[name][i + 1] for name in wanted}
                flags = bool(episode.terminated[i]), bool(episode.truncated[i])
                writer.append(episode.actions[i], float(episode.rewards[i]), *flags, observation)
            writer.finish(interrupted=episode.interrupted)
        finally:
            writer.abandon()

    def finished(self) -> list[int]:
        """Return the numbers of the episodes that are there."""
        return episode_indices(self.path)

    def close(self) -> None:
        """Let other writers in; may be called twice."""
        self._release()

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self, alone: bool, overwrite: bool) -> None:
        folder, path = self.path / EPISODES, self.path / MANIFEST
        folder.mkdir(exist_ok=True)
        if alone:
            _remove([*self.path.glob(f".*{TEMPORARY}"), *folder.glob(f".*{TEMPORARY}")])
        if overwrite:
            for index in episode_indices(self.path):
                episode_path(self.path, index).unlink()
        if overwrite or not path.exists():
            write_file(path, self.manifest.to_json().encode())
        else:
            self._check_same(read_manifest(self.path))

    def _check_same(self, there: Manifest) -> None:
        differences = there.differences(self.manifest)
        if differences:
            raise RMRError(
                f"{self.path} holds another data set ({'; '.join(differences)}): choose another "
                "folder, or overwrite it"
            )


def _remove(leftovers: list[Path]) -> None:
    """Delete what a killed recorder had not finished, and say so."""
    for leftover in leftovers:
        leftover.unlink()
        _log.warning(
            "dropped %s, which a recorder that was killed had not finished; finished episodes are "
            "unharmed, and recording again with the same arguments records the one that is missing",
            leftover,
        )


def _check_folder(path: Path) -> None:
    """Refuse a folder that holds anything but a data set or the beginning of one."""
    if not path.exists():
        return
    known = {MANIFEST, EPISODES, LOCK}
    foreign = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name not in known and not entry.name.endswith(TEMPORARY)
    )
    torn = episode_indices(path) and not (path / MANIFEST).exists()
    if foreign or torn:
        found = f"{foreign[0]!r} in it" if foreign else "episodes without a manifest"
        raise RMRError(
            f"{path} is not an rmr_gym data set: expected an empty or new folder, or one of an "
            f"earlier recording, found {found}; choose another folder"
        )
