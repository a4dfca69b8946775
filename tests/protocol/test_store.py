import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.store import (
    Artifact,
    Scratch,
    Store,
    read_artifact,
    write_artifact,
)


def artifact(value=1.0):
    return Artifact(
        {"rows": [{"f1": 0.5}]}, {"w": torch.full((2,), value), "w.deep": torch.ones(1)}
    )


def test_round_trip(tmp_path):
    write_artifact(tmp_path / "a", artifact())
    found = read_artifact(tmp_path / "a")
    assert found.record == artifact().record
    assert torch.equal(found.tensors["w"], torch.ones(2))
    assert list(found.part("w")) == ["deep"]


def test_existing_folder_is_refused_and_kept(tmp_path):
    write_artifact(tmp_path / "a", artifact(1.0))
    with pytest.raises(RMRError, match="exists already"):
        write_artifact(tmp_path / "a", artifact(2.0))
    assert read_artifact(tmp_path / "a").tensors["w"][0] == 1.0
    write_artifact(tmp_path / "a", artifact(2.0), overwrite=True)
    assert read_artifact(tmp_path / "a").tensors["w"][0] == 2.0


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError):
        write_artifact(tmp_path / "a", Artifact({"not json": object()}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("tensors.safetensors", b"short"), ("record.json", b"{"), ("record.json", b"[1]")],
)
def test_damage_is_named(tmp_path, name, content):
    write_artifact(tmp_path / "a", artifact())
    (tmp_path / "a" / name).write_bytes(content)
    with pytest.raises(RMRError, match=r"damaged|not an rmr_gym record"):
        read_artifact(tmp_path / "a")


def test_foreign_folder_is_named(tmp_path):
    with pytest.raises(RMRError, match=r"expected a folder written by"):
        read_artifact(tmp_path)


def test_store_computes_once_and_tells_keys_apart(tmp_path):
    store, calls = Store(tmp_path), []

    def run(scratch):
        calls.append(scratch)
        return artifact()

    first = store.get_or_run("natural", {"seed": 0}, run)
    again = store.get_or_run("natural", {"seed": 0}, run)
    assert len(calls) == 1
    assert again.record == first.record
    store.get_or_run("natural", {"seed": 1}, run)
    store.get_or_run("probe", {"seed": 0}, run)
    assert len(calls) == 3


def test_who_asks_for_what_is_being_computed_waits_for_it(tmp_path):
    counted = []

    def run(scratch):
        scratch.save(artifact(0.0))
        counted.append(1)
        time.sleep(0.2)
        return artifact(2.0)

    def ask(_):
        return Store(tmp_path).get_or_run("probe", {"a": 1}, run).tensors["w"][0].item()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, range(3))) == [2.0] * 3
    assert len(counted) == 1
    assert [path.suffix for path in (tmp_path / "probe").iterdir()] == [""]


def test_who_waits_computes_it_where_the_first_one_failed(tmp_path):
    counted = []

    def run(scratch):
        del scratch
        counted.append(1)
        time.sleep(0.1)
        if len(counted) == 1:
            raise RMRError("no")
        return artifact(2.0)

    def ask(_):
        try:
            Store(tmp_path).get_or_run("probe", {"a": 1}, run)
        except RMRError:
            return "failed"
        return "done"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(ask, range(2))) == ["done", "failed"]
    assert len(counted) == 2


def test_store_forgets_nothing_unfinished_and_clears_what_is_finished(tmp_path):
    store = Store(tmp_path)

    def interrupted(scratch):
        scratch.save(artifact(7.0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_run("natural", {"seed": 0}, interrupted)

    def resumed(scratch):
        return scratch.load()

    assert store.get_or_run("natural", {"seed": 0}, resumed).tensors["w"][0] == 7.0
    assert [path.suffix for path in (tmp_path / "natural").iterdir()] == [""]


def test_damaged_scratch_counts_as_none(tmp_path):
    scratch = Scratch(tmp_path / "s")
    scratch.save(artifact())
    (tmp_path / "s" / "tensors.safetensors").write_bytes(b"torn")
    assert scratch.load() is None


def test_a_file_where_a_folder_should_be_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RMRError, match="cannot write"):
        Store(tmp_path / "file" / "store")


def test_records_are_plain_json(tmp_path):
    write_artifact(tmp_path / "a", artifact())
    assert json.loads((tmp_path / "a" / "record.json").read_text()) == artifact().record
