import doctest
import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from squares import square

from rmr_gym.core.errors import RMRError
from rmr_gym.runs import store as store_module
from rmr_gym.runs.store import (
    NOWHERE,
    Artifact,
    Place,
    Room,
    Store,
    read_artifact,
    stage,
    write_artifact,
)


def artifact(value=1.0):
    return Artifact(
        {"rows": [{"f1": 0.5}]}, {"w": torch.full((2,), value), "w.deep": torch.ones(1)}
    )


@dataclass(frozen=True)
class Config:
    batch: int = 5
    steps: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Data:
    """Counts by its content, not by its path."""

    path: Path
    content: str
    label: str = "Pong"

    def key(self):
        return {"content": self.content}


@stage(version=1)
def base(data, config, seed=0, device="cpu", room=store_module.NOWHERE):
    return Artifact({"seed": seed})


@stage(version=1)
def on_top(parts, place, scale=1.0):
    return Artifact({"seeds": [part.record["seed"] for part in parts]})


DATA = Data(Path("a"), "x")


def task(seed=0, config=Config(), data=DATA):
    return base(data, config, seed)


def top(*parts, place="here", **options):
    return on_top(list(parts), Place(Path(place)), **options)


class TestArtifacts:
    def test_round_trip_as_plain_json(self, tmp_path):
        write_artifact(tmp_path / "a", artifact())
        read = read_artifact(tmp_path / "a")
        assert read.record == artifact().record
        assert torch.equal(read.tensors["w"], torch.ones(2))
        assert list(read.part("w")) == ["deep"]
        assert json.loads((tmp_path / "a" / "record.json").read_text()) == read.record

    def test_an_existing_folder_is_refused_and_kept(self, tmp_path):
        write_artifact(tmp_path / "a", artifact(1.0))
        with pytest.raises(RMRError, match="exists already"):
            write_artifact(tmp_path / "a", artifact(2.0))
        assert read_artifact(tmp_path / "a").tensors["w"][0] == 1.0
        write_artifact(tmp_path / "a", artifact(2.0), overwrite=True)
        assert read_artifact(tmp_path / "a").tensors["w"][0] == 2.0

    def test_a_failed_write_leaves_nothing_behind(self, tmp_path):
        with pytest.raises(TypeError):
            write_artifact(tmp_path / "a", Artifact({"not json": object()}))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "content"),
        [("tensors.safetensors", b"short"), ("record.json", b"{"), ("record.json", b"[1]")],
    )
    def test_damage_is_named(self, tmp_path, name, content):
        write_artifact(tmp_path / "a", artifact())
        (tmp_path / "a" / name).write_bytes(content)
        with pytest.raises(RMRError, match=r"damaged|not an rmr_gym record"):
            read_artifact(tmp_path / "a")

    @pytest.mark.parametrize("name", ["tensors.safetensors", "record.json"])
    def test_a_changed_number_is_told(self, tmp_path, name):
        write_artifact(tmp_path / "a", artifact())
        path = tmp_path / "a" / name
        content = bytearray(path.read_bytes())
        content[-3 if name == "record.json" else -1] ^= 1
        path.write_bytes(content)
        with pytest.raises(RMRError, match="is damaged"):
            read_artifact(tmp_path / "a")

    def test_a_foreign_folder_is_named(self, tmp_path):
        with pytest.raises(RMRError, match=r"expected a folder written by"):
            read_artifact(tmp_path)


class TestKeys:
    def test_equal_arguments_are_equal_keys_however_they_are_given(self):
        assert task() == base(data=DATA, config=Config(), device="cpu", seed=0)
        assert task().key == task().key
        assert len({task(), task(), task(1)}) == 2

    @pytest.mark.parametrize(
        "other",
        [
            task(1),
            task(config=Config(batch=6)),
            task(config=Config(steps=(1, 3))),
            task(data=Data(Path("a"), "y")),
            base(DATA, Config(), device="cuda"),
            stage(version=2)(base.function)(DATA, Config()),
        ],
    )
    def test_whatever_decides_the_result_decides_the_key(self, other):
        assert other.key != task().key

    def test_a_later_parameter_counts_where_it_is_not_at_its_default(self):
        def base(data, config, seed=0, device="cpu", more=0):
            return Artifact({})

        later = stage(version=1, later=("more",))(base)
        assert later(DATA, Config()).key == task().key
        assert later(DATA, Config(), more=1).key != task().key
        assert stage(version=1)(base)(DATA, Config()).key != task().key

    def test_data_count_by_fingerprint_and_not_by_path(self):
        assert task(data=Data(Path("elsewhere"), "x")).key == task().key

    def test_a_place_counts_for_nothing_and_nested_tasks_count_by_their_keys(self):
        assert top(task(), place="here").key == top(task(), place="there").key
        assert top(task()).key != top(task(1)).key
        assert top(task(), task(1)).key != top(task(1), task()).key
        assert top(task()).needs == (task(),)

    def test_versions_of_torch_and_numpy_count(self, monkeypatch):
        before = task().key
        monkeypatch.setattr(store_module, "_versions", lambda: {"torch": "0", "numpy": "0"})
        assert task().key != before

    def test_what_has_no_key_is_an_error(self):
        with pytest.raises(TypeError, match="no key of a object is known"):
            _ = task(config=object()).key

    def test_room_is_no_argument_and_wrong_ones_are_refused(self):
        assert base.has_room
        assert not on_top.has_room
        with pytest.raises(TypeError):
            base(DATA, Config(), room=Room())

    def test_a_key_without_some_arguments(self):
        assert task(1).key_without("seed") == task(2).key_without("seed") != task(1).key
        other = task(1, Config(batch=6))
        assert task(1).key_without("seed") != other.key_without("seed")

    def test_titles_leave_defaults_out(self):
        assert task().title == "base Pong"
        assert top(task(3), scale=2.0).title == "on_top 2.0"
        assert stage(version=1)(base.function)(task(2), "rmr").title == "base (base Pong 2) rmr"

    def test_titles_say_once_what_a_needed_task_has_in_common(self):
        scored = stage(version=1)(lambda game, arm, encoder: None)
        assert scored("Pong", "rmr", task()).title == "<lambda> Pong rmr (base)"

    def test_stages_and_tasks_are_pickled_by_name(self):
        assert pickle.loads(pickle.dumps(base)) is base
        again = pickle.loads(pickle.dumps(top(task(1))))
        assert again == top(task(1))
        assert again.stage is on_top


@stage(version=1)
def counted(place, value=2.0, room=store_module.NOWHERE):
    calls = place.path / "calls"
    with calls.open("a") as file:
        file.write("x")
    room.save(artifact(0.0))
    time.sleep(0.2)
    if value < 0 and len(calls.read_text()) == 1:
        raise RMRError("no")
    return artifact(abs(value))


@stage(version=1)
def interrupted(place, room=store_module.NOWHERE):
    state = room.load()
    if state is None:
        room.save(artifact(7.0))
        raise KeyboardInterrupt
    return state


class TestStore:
    def test_the_example_of_the_module(self):
        assert doctest.testmod(store_module).attempted > 0
        assert doctest.testmod(store_module).failed == 0

    def test_what_is_there_is_found_and_what_it_needs_is_computed(self, store):
        result = store.compute(top(task(1), task(2)))
        assert result.record["seeds"] == [1, 2]
        assert result.record["seconds"] >= 0
        assert store.has(task(1))
        assert store.find(task(3)) is None
        assert store.record(task(3)) is None
        assert store.compute(top(task(1), task(2))).record == result.record
        assert store.record(task(2))["seed"] == 2

    def test_who_asks_for_what_is_being_computed_waits_for_it(self, store, tmp_path):
        def ask(_):
            return Store(store.root).compute(counted(Place(tmp_path))).tensors["w"][0].item()

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(ask, range(3))) == [2.0] * 3
        assert (tmp_path / "calls").read_text() == "x"
        assert [path.suffix for path in (store.root / "counted").iterdir()] == [""]

    def test_who_waits_computes_it_where_the_first_one_failed(self, store, tmp_path):
        def ask(_):
            try:
                Store(store.root).compute(counted(Place(tmp_path), -1.0))
            except RMRError:
                return "failed"
            return "done"

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(ask, range(2))) == ["done", "failed"]
        assert (tmp_path / "calls").read_text() == "xx"

    def test_unfinished_state_is_found_again_and_cleared_in_the_end(self, store, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            store.compute(interrupted(Place(tmp_path)))
        assert store.compute(interrupted(Place(tmp_path))).tensors["w"][0] == 7.0
        assert [path.suffix for path in (store.root / "interrupted").iterdir()] == [""]

    def test_damaged_state_counts_as_none(self, tmp_path):
        room = Room(tmp_path / "s")
        room.save(artifact())
        (tmp_path / "s" / "tensors.safetensors").write_bytes(b"torn")
        assert room.load() is None

    @pytest.mark.parametrize("name", ["record.json", "tensors.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"{", b"[]"])
    def test_a_damaged_result_counts_as_none_and_is_computed_anew(self, store, name, content):
        store.compute(task())
        (store.folder(task()) / name).write_bytes(content)
        assert store.find(task()) is None
        assert store.compute(task()).record["seed"] == 0
        assert read_artifact(store.folder(task())).record["seed"] == 0

    def test_a_file_where_a_folder_should_be_is_a_clear_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(RMRError, match="cannot write"):
            Store(tmp_path / "file" / "store")


@pytest.mark.parametrize("threads", [1, 2])
def test_one_thread_computes_whatever_the_process_has(store, tmp_path, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        record = store.compute(square(1, Place(tmp_path))).record
        assert (record["threads"], record["blas"]) == (1, 1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@stage(version=1)
def descent(seed: int, room: Room = NOWHERE) -> Artifact:
    """Descend, and keep the state half-way."""
    curve = [{"step": step, "loss": 1 / step + seed, "accuracy": 0.5} for step in (1, 2, 3)]
    room.save(Artifact({"curve": curve[:2]}, {}))
    if seed < 0:
        raise RMRError("killed half-way")
    return Artifact({"curve": curve})


def logged(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for run in sorted(folder.iterdir()):
        events = EventAccumulator(str(run)).Reload()
        found[run.name] = {
            name: [(event.step, round(event.value, 3)) for event in events.Scalars(name)]
            for name in events.Tags()["scalars"]
        }
    return found


def test_every_training_is_logged_for_tensorboard_where_it_is_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    folder, store = tmp_path / "logs", Store(tmp_path / "store")
    store.compute(descent(0))
    assert not folder.exists()
    monkeypatch.setenv("RMR_GYM_TENSORBOARD", str(folder))
    store.compute(descent(1))
    assert logged(folder) == {
        f"descent 1 {descent(1).key[:6]}": {
            "loss": [(1, 2.0), (2, 1.5), (3, 1.333)],
            "accuracy": [(1, 0.5), (2, 0.5), (3, 0.5)],
        }
    }
    with pytest.raises(RMRError, match="half-way"):
        store.compute(descent(-1))
    (unfinished,) = logged(folder).keys() - {f"descent 1 {descent(1).key[:6]}"}
    assert logged(folder)[unfinished]["loss"] == [(1, 0.0), (2, -0.5)]


def test_logs_without_tensorboard_are_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("RMR_GYM_TENSORBOARD", str(tmp_path / "logs"))
    monkeypatch.setattr("rmr_gym.runs.store.find_spec", lambda name: None)
    with pytest.raises(RMRError, match=r"pip install 'rmr-gym\[tensorboard\]'"):
        Store(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
