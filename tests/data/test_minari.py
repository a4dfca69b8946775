import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.data import schema
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.minari import export_minari, import_minari
from rmr_gym.data.schema import ColumnSpec, Episode, Manifest, step_columns
from rmr_gym.data.writer import DatasetWriter

minari = pytest.importorskip("minari")

MANIFEST = Manifest(
    observations=(
        ColumnSpec("pixels", "uint8", (40, 48, 3)),
        ColumnSpec("state.position", "float32", (3, 2)),
        ColumnSpec("state.mass", "float64", (3,)),
        ColumnSpec("door", "bool", ()),
        ColumnSpec("count", "uint64", (2,)),
    ),
    steps=step_columns(spaces.Box(-1, 1, (2,), np.float32)),
    env_id="rmr/Nowhere-v0",
    heads=("still", "pushed"),
    settings={"seed": 3},
)


def made(index: int, length: int) -> Episode:
    rng = np.random.default_rng(index)
    rows = length + 1
    position = rng.normal(size=(rows, 3, 2)).astype(np.float32)
    position[0, 0] = [np.nan, -0.0]
    return Episode(
        index=index,
        seed=None if index == 0 else 2**31 + index,
        head=MANIFEST.heads[index % 2],
        observations={
            "pixels": rng.integers(0, 256, (rows, 40, 48, 3), dtype=np.uint8),
            "state.position": position,
            "state.mass": rng.normal(size=(rows, 3)),
            "door": rng.random(rows) < 0.5,
            "count": rng.integers(0, 2**64, (rows, 2), dtype=np.uint64),
        },
        actions=rng.random((length, 2), np.float32),
        rewards=rng.normal(size=length),
        terminated=(np.arange(length) == length - 1) & (index != 2),
        truncated=np.zeros(length, bool),
        interrupted=index == 2,
    )


@pytest.fixture
def recorded(tmp_path) -> TransitionDataset:
    with DatasetWriter(tmp_path / "balls", MANIFEST) as writer:
        for index, length in ((0, 5), (2, 1), (3, 9)):
            writer.write(made(index, length))
    return TransitionDataset(tmp_path / "balls")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def equal(array, expected):
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert array.tobytes() == expected.tobytes()


def hidden(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*") if path.suffix != ".lock"]


def test_what_minari_loads_is_bit_equal(recorded, root):
    assert export_minari(recorded, "rmr/balls-v0") == root / "rmr" / "balls-v0"
    loaded = minari.load_dataset("rmr/balls-v0")
    assert (loaded.total_episodes, loaded.total_steps) == (3, 15)
    assert not loaded.storage.jpeg_encoding
    assert list(minari.list_local_datasets()) == ["rmr/balls-v0"]
    assert hidden(root) == []
    for position, data in enumerate(loaded):
        episode = recorded.episode(position)
        equal(data.observations["pixels"], episode.observations["pixels"])
        equal(data.observations["state"]["position"], episode.observations["state.position"])
        equal(data.observations["state"]["mass"], episode.observations["state.mass"])
        equal(data.observations["door"], episode.observations["door"])
        equal(data.observations["count"], episode.observations["count"])
        equal(data.actions, episode.actions)
        equal(data.rewards, episode.rewards)
        equal(data.terminations, episode.terminated)
        equal(data.truncations, episode.truncated)
        second = {
            "pixels": data.observations["pixels"][1],
            "state": {name: rows[1] for name, rows in data.observations["state"].items()},
            "door": np.asarray(data.observations["door"][1]),
            "count": data.observations["count"][1],
        }
        assert loaded.observation_space.contains(second)


def test_there_and_back(recorded, root, tmp_path):
    export_minari(recorded, "balls-v3")
    back = import_minari("balls-v3", tmp_path / "back")
    assert back.fingerprint == recorded.fingerprint
    assert back.manifest == recorded.manifest
    assert back.episodes == recorded.episodes
    back.verify()


def test_a_recording_of_atari_there_and_back(recorded, root, tmp_path):
    pytest.importorskip("ale_py")
    from rmr_gym.wrappers import RecordTransitions

    env = RecordTransitions(gym.make("rmr/Pong-v0", max_episode_steps=6), tmp_path / "pong")
    for seed in (0, 2**70):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        over = False
        while not over:
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
    env.close()
    pong = TransitionDataset(tmp_path / "pong")
    export_minari(pong, "atari/pong-v0")
    loaded = minari.load_dataset("atari/pong-v0")
    for position, data in enumerate(loaded):
        episode = pong.episode(position)
        for name in ("pixels", "ram"):
            equal(data.observations[name], episode.observations[name])
        assert data.observations["pixels"].shape == (7, 210, 160)
        equal(data.actions, episode.actions)
        equal(data.truncations, episode.truncated)
        assert data.truncations.tolist() == [False] * 5 + [True]
    assert loaded.action_space == spaces.Discrete(18)
    recovered = loaded.recover_environment()
    assert recovered.spec.id == "rmr/Pong-v0"
    recovered.close()
    assert import_minari("atari/pong-v0", tmp_path / "back").fingerprint == pong.fingerprint


def test_the_environment_comes_back_as_it_was_recorded(root, tmp_path):
    dataset = record("Pong", tmp_path / "pong", episodes=1, max_steps=5, players="uniform")
    export_minari(dataset, "atari/pong-v0")
    loaded = minari.load_dataset("atari/pong-v0")
    recovered = loaded.recover_environment()
    assert recovered.spec.max_episode_steps == 5
    assert recovered.spec.kwargs["repeat_action_probability"] == 0
    recovered.close()
    balls = record("rmr/BouncingBalls-v0", tmp_path / "b", episodes=1, max_episode_steps=4)
    export_minari(balls, "rmr/balls-v0")
    assert minari.load_dataset("rmr/balls-v0").env_spec.max_episode_steps == 4
    wild = replace(balls.manifest, settings={})
    with DatasetWriter(tmp_path / "wild", wild) as writer:
        writer.write(balls.episode(0))
    export_minari(TransitionDataset(tmp_path / "wild"), "rmr/wild-v0")
    registered = gym.spec("rmr/BouncingBalls-v0").max_episode_steps
    assert minari.load_dataset("rmr/wild-v0").env_spec.max_episode_steps == registered


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2,), np.float32),
        spaces.Dict(observation=spaces.Box(-1, 1, (2,), np.float32)),
        spaces.Dict(state=spaces.Box(-1, 1, (2,), np.float32)),
        spaces.Dict(state=spaces.Dict(observation=spaces.Box(-1, 1, (2,), np.float32))),
    ],
)
def test_spaces_keep_their_structure_and_discrete_actions_their_start(root, tmp_path, space):
    actions = spaces.Discrete(3, start=-1)
    manifest = Manifest(schema.observation_columns(space), schema.step_columns(actions), actions=3)
    (column,) = manifest.observations
    episode = replace(
        made(0, 4),
        observations={column.name: np.zeros((5, 2), np.float32)},
        actions=np.array([-1, 0, 1, -1]),
    )
    with DatasetWriter(tmp_path / "d", manifest) as writer:
        writer.write(episode)
    export_minari(TransitionDataset(tmp_path / "d"), "rmr/d-v0")
    loaded = minari.load_dataset("rmr/d-v0")
    assert loaded.action_space == actions
    assert structure(loaded.observation_space) == structure(space)
    assert structure(loaded[0].observations) == structure(space)
    metadata = root / "rmr" / "d-v0" / "data" / "metadata.json"
    content = json.loads(metadata.read_text())
    del content["rmr_gym_manifest"]
    metadata.write_text(json.dumps(content))
    back = import_minari("rmr/d-v0", tmp_path / "back").manifest
    assert (back.observations, back.steps) == (manifest.observations, manifest.steps)


def structure(observation):
    """Return the keys of nested Dicts."""
    if not isinstance(observation, dict | spaces.Dict):
        return None
    return {key: structure(part) for key, part in observation.items()}


def foreign(dataset_id, observation_space, action_space, observations, actions, **options):
    """Make a data set with Minari alone, with rewards and flags of its own."""
    steps = len(actions)
    buffer = minari.data_collector.EpisodeBuffer(
        id=0,
        seed=7,
        observations=observations,
        actions=actions,
        rewards=np.arange(steps, dtype=np.float32) / 3,
        terminations=np.arange(steps) == steps - 1,
        truncations=np.zeros(steps, bool),
    )
    return minari.create_dataset_from_buffers(
        dataset_id,
        [buffer, replace(buffer, id=1, seed=None)],
        observation_space=observation_space,
        action_space=action_space,
        **{"jpeg_encoding": False, **options},
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_a_foreign_data_set(root, tmp_path, dtype):
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        goal=spaces.Box(-1, 1, (2,)),
        seen=spaces.Dict(eye=spaces.Box(0, 255, (40, 40), np.uint8), key=spaces.Discrete(4)),
    )
    observations = {
        "goal": rng.normal(size=(6, 2)),
        "seen": {
            "eye": rng.integers(0, 256, (6, 40, 40), dtype=np.uint8),
            "key": rng.integers(0, 4, 6),
        },
    }
    actions = rng.integers(0, 5, 5).astype(dtype)
    foreign(
        "door/open-v1", space, spaces.Discrete(5), observations, actions, algorithm_name="expert"
    )
    dataset = import_minari("door/open-v1", tmp_path / "door")
    dataset.verify()
    assert [e.seed for e in dataset.episodes] == [7, None]
    assert {e.head for e in dataset.episodes} == {"expert"}
    assert dataset.manifest.actions == 5
    assert not any(e.interrupted for e in dataset.episodes)
    episode = dataset.episode(1)
    equal(episode.observations["goal"], observations["goal"])
    equal(episode.observations["seen.eye"], observations["seen"]["eye"])
    equal(episode.observations["seen.key"], observations["seen"]["key"])
    equal(episode.actions, actions)
    assert (episode.rewards == np.arange(5, dtype=np.float32) / 3).all()
    assert episode.terminated.tolist() == [False] * 4 + [True]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_foreign_data_set_of_one_array(root, tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    box = spaces.Box(-9, 9, (3,))
    foreign("box-v0", box, box, rows, rows[:3])
    dataset = import_minari("box-v0", tmp_path / "box")
    equal(dataset.episode(0).observations["observation"], rows)
    equal(dataset.episode(0).actions, rows[:3])
    assert dataset.manifest.actions is None
    export_minari(dataset, "again-v0")
    equal(minari.load_dataset("again-v0")[0].observations, rows)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("observation_space", "observations", "message"),
    [
        (spaces.Box(-9, 9, (3,)), np.zeros((3, 3), np.float32), "expected 3 rows a step column"),
        (spaces.Text(5), ["a", "b", "c", "d"], "cannot be stored"),
        (spaces.Tuple((spaces.Discrete(2),)), (np.zeros(4, int),), "cannot be stored"),
    ],
)
def test_what_cannot_be_imported(root, tmp_path, observation_space, observations, message):
    foreign("odd-v0", observation_space, spaces.Discrete(3), observations, np.zeros(3, int))
    with pytest.raises(RMRError, match=message):
        import_minari("odd-v0", tmp_path / "odd")
    assert not list(tmp_path.glob("odd/episodes/*.h5"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_actions_that_cannot_be_imported(root, tmp_path):
    pair = spaces.Dict(a=spaces.Discrete(2))
    rows = np.zeros((4, 3), np.float32)
    foreign("odd-v0", spaces.Box(-9, 9, (3,)), pair, rows, {"a": np.zeros(1, int)})
    with pytest.raises(RMRError, match="expected an action space that is one array"):
        import_minari("odd-v0", tmp_path / "odd")


def test_nothing_is_overwritten_without_being_asked(recorded, root):
    folder = export_minari(recorded, "balls-v0")
    content = (folder / "data" / "main_data.hdf5").read_bytes()
    with pytest.raises(RMRError, match=r"exists already: choose another one or replace it"):
        export_minari(recorded, "balls-v0")
    assert (folder / "data" / "main_data.hdf5").read_bytes() == content
    (recorded.path / "episodes" / "000003.h5").unlink()
    export_minari(TransitionDataset(recorded.path), "balls-v0", overwrite=True)
    assert minari.load_dataset("balls-v0").total_episodes == 2
    assert hidden(root) == []


def test_an_import_goes_on_where_it_was_and_touches_nothing_else(recorded, root, tmp_path):
    export_minari(recorded, "balls-v0")
    back = import_minari("balls-v0", tmp_path / "back")
    lost, kept = (tmp_path / "back" / "episodes" / f"00000{i}.h5" for i in (0, 2))
    content, written = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    assert import_minari("balls-v0", tmp_path / "back").fingerprint == back.fingerprint
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == written

    kept.unlink()
    with DatasetWriter(tmp_path / "back", MANIFEST) as writer:
        writer.write(replace(made(2, 1), rewards=np.ones(1)))
    with pytest.raises(RMRError, match=r"holds another episode 2 than would be written"):
        import_minari("balls-v0", tmp_path / "back")
    import_minari("balls-v0", tmp_path / "back", overwrite=True)
    assert TransitionDataset(tmp_path / "back").fingerprint == back.fingerprint


@pytest.mark.parametrize("name", ["balls", "balls-vx", "../up-v0", "/etc/balls-v0", "a.b-v0", ""])
def test_malformed_ids(recorded, root, name):
    with pytest.raises(RMRError, match=r"expected a Minari id .* like rmr/pong-v0, found"):
        export_minari(recorded, name)
    with pytest.raises(RMRError, match=r"expected a Minari id"):
        import_minari(name, recorded.path.parent / "new")
    assert not root.exists() or not list(root.rglob("*.hdf5"))


def test_a_minari_data_set_that_is_not_there(root, tmp_path):
    with pytest.raises(RMRError, match=r"found none: get it with `minari download D4RL/x-v2`"):
        import_minari("D4RL/x-v2", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_minari_data_set_that_is_broken(recorded, root, tmp_path):
    folder = export_minari(recorded, "balls-v0")
    main = folder / "data" / "main_data.hdf5"
    main.write_bytes(main.read_bytes()[:5000])
    with pytest.raises(RMRError, match=r"Minari cannot read .*balls-v0 .*download or export"):
        import_minari("balls-v0", tmp_path / "new")
    (folder / "data" / "metadata.json").write_text("{")
    with pytest.raises(RMRError, match=r"Minari cannot read .*balls-v0 .*download or export"):
        import_minari("balls-v0", tmp_path / "new")


def test_a_damaged_episode_is_not_exported(recorded, root):
    path = recorded.path / "episodes" / "000003.h5"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\0\1\2\3" + content[len(content) // 2 + 4 :])
    with pytest.raises(RMRError, match=r"000003\.h5 is truncated, damaged or foreign"):
        export_minari(recorded, "balls-v0")
    assert list(minari.list_local_datasets()) == []
    assert hidden(root) == []


def test_an_empty_data_set(root, tmp_path):
    DatasetWriter(tmp_path / "empty", MANIFEST).close()
    with pytest.raises(RMRError, match="expected at least one episode to export"):
        export_minari(TransitionDataset(tmp_path / "empty"), "empty-v0")


def test_a_killed_export_leaves_nothing_that_minari_sees(recorded, root):
    """A process that dies between two episodes leaves a hidden folder, which the next removes."""
    code = (
        "import os, sys\n"
        "from rmr_gym.data.dataset import TransitionDataset\n"
        "from rmr_gym.data.minari import export_minari\n"
        "export_minari(TransitionDataset(sys.argv[1]), 'balls-v0',\n"
        "              progress=lambda done, total: os._exit(9))\n"
    )
    child = subprocess.run([sys.executable, "-c", code, str(recorded.path)], check=False)
    assert child.returncode == 9
    assert list(minari.list_local_datasets()) == []
    assert hidden(root) == [root / ".balls-v0.tmp"]
    export_minari(recorded, "balls-v0")
    assert minari.load_dataset("balls-v0").total_steps == 15
    assert hidden(root) == []


def test_two_exports_of_one_id(recorded, root):
    def again(done: int, total: int) -> None:
        with pytest.raises(RMRError, match="is being written"):
            export_minari(recorded, "balls-v0")

    export_minari(recorded, "balls-v0", progress=again)
    assert minari.load_dataset("balls-v0").total_steps == 15


def test_a_full_disk(recorded, root):
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(RMRError, match=r"cannot write .*balls-v0"):
            export_minari(recorded, "balls-v0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(minari.list_local_datasets()) == []
    assert hidden(root) == []


def test_without_minari(recorded, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "minari", None)
    for call in (
        lambda: export_minari(recorded, "balls-v0"),
        lambda: import_minari("balls-v0", tmp_path / "new"),
    ):
        with pytest.raises(RMRError, match=r'pip install "rmr-gym\[minari\]"'):
            call()


def test_neither_jax_nor_torch_is_needed(recorded, tmp_path):
    code = (
        "import sys\nsys.modules['jax'] = None\n"
        "from rmr_gym.data.dataset import TransitionDataset\n"
        "from rmr_gym.data.minari import export_minari, import_minari\n"
        "export_minari(TransitionDataset(sys.argv[1]), 'balls-v0')\n"
        "import_minari('balls-v0', sys.argv[2])\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "MINARI_DATASETS_PATH": str(tmp_path / "minari")}
    command = [sys.executable, "-c", code, str(recorded.path), str(tmp_path / "back")]
    subprocess.run(command, check=True, env=environment)


def test_a_root_that_is_relative_and_not_there_yet(recorded, tmp_path, monkeypatch):
    """Minari itself joins a relative folder to itself."""
    monkeypatch.chdir(tmp_path)
    export_minari(recorded, "rmr/balls-v0", root="new/folder")
    back = import_minari("rmr/balls-v0", "back", root="new/folder")
    assert back.fingerprint == recorded.fingerprint
