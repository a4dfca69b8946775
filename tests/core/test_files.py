import os
import threading
import time

import pytest

from rmr_gym.core import files as atomic
from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically, write_file


def test_writes_text_and_bytes_and_leaves_nothing_beside(tmp_path):
    path = write_atomically(tmp_path / "new" / "a.txt", "é")
    assert path.read_text(encoding="utf-8") == "é"
    write_atomically(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "a.txt", "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RMRError, match=r"cannot write .*a\.txt: No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RMRError, match="cannot write"):
        write_atomically(tmp_path / "file" / "a.txt", "new")


def test_a_process_that_ends_finishes_the_file_that_is_being_written(tmp_path, monkeypatch):
    begun, real = threading.Event(), os.fsync

    def slow(descriptor):
        begun.set()
        time.sleep(0.2)
        real(descriptor)

    def end(status):
        raise SystemExit(status)

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(atomic, "_writing", threading.Lock())
    path = tmp_path / "file"
    writer = threading.Thread(target=write_file, args=(path, b"whole"))
    writer.start()
    begun.wait()
    with pytest.raises(SystemExit, match="3"):
        atomic.end_process(3)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"whole"
    writer.join()
    with pytest.raises(SystemExit, match="4"):  # the lock is never given back: patience ends
        atomic.end_process(4, patience=0.01)
