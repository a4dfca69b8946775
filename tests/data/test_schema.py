import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from rmr_gym.core.errors import RMRError
from rmr_gym.data.schema import (
    FORMAT_VERSION,
    ColumnSpec,
    Manifest,
    flatten,
    observation_columns,
    read_manifest,
    step_columns,
)


def manifest() -> Manifest:
    return Manifest(
        observations=(
            ColumnSpec("pixels", "uint8", (210, 160), "ale_palette"),
            ColumnSpec("ram", "uint8", (128,)),
        ),
        steps=step_columns(spaces.Discrete(18)),
        env_id="rmr/Pong-v0",
        env_kwargs={"frameskip": 4, "shape": np.arange(2), "probability": np.float64(0.25)},
        game="Pong",
        actions=18,
        heads=("a", "b"),
        settings={"seed": 0},
        versions={"ale-py": "0.12.1", "numpy": "2.4.6"},
    )


def test_columns_of_a_space():
    space = spaces.Dict(
        state=spaces.Box(-1, 1, (10, 4), np.float32),
        pixels=spaces.Box(0, 255, (64, 64, 3), np.uint8),
        inner=spaces.Dict(door=spaces.Discrete(3), switches=spaces.MultiBinary(5)),
    )
    assert {(c.name, c.dtype, c.shape) for c in observation_columns(space)} == {
        ("state", "float32", (10, 4)),
        ("pixels", "uint8", (64, 64, 3)),
        ("inner.door", "int64", ()),
        ("inner.switches", "int8", (5,)),
    }
    flat = flatten(space.sample())
    assert set(flat) == {"state", "pixels", "inner.door", "inner.switches"}
    alone = spaces.Box(0, 1, (3,), np.float64)
    assert observation_columns(alone) == (ColumnSpec("observation", "float64", (3,)),)
    assert set(flatten(alone.sample())) == {"observation"}


def test_step_columns_follow_the_actions():
    names = ["action", "reward", "terminated", "truncated"]
    assert [c.name for c in step_columns(spaces.Discrete(18))] == names
    assert step_columns(spaces.Box(-1, 1, (2,), np.float32))[0] == ColumnSpec(
        "action", "float32", (2,)
    )


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))),
        spaces.Dict(good=spaces.Discrete(2), bad=spaces.Text(5)),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
    ],
)
def test_what_has_no_fixed_shape_cannot_be_stored(space):
    with pytest.raises(RMRError, match="cannot be stored"):
        observation_columns(space)


@pytest.mark.parametrize("name", ["a/b", "a.b", ""])
def test_names_that_a_file_cannot_hold(name):
    with pytest.raises(RMRError, match="names without"):
        observation_columns(spaces.Dict({name: spaces.Discrete(2)}))


def test_actions_are_one_array():
    with pytest.raises(RMRError, match="one array"):
        step_columns(spaces.Dict(left=spaces.Discrete(2), right=spaces.Discrete(2)))


def test_a_column_cannot_be_named_like_a_step():
    with pytest.raises(RMRError, match="names of their own, found \\['reward'\\]"):
        Manifest((ColumnSpec("reward", "uint8", ()),), step_columns(spaces.Discrete(2)))


def test_the_manifest_survives_its_file(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(manifest().to_json(), encoding="utf-8")
    there = read_manifest(tmp_path)
    assert there == replace(
        manifest(), env_kwargs={"frameskip": 4, "shape": [0, 1], "probability": 0.25}
    )
    assert there.differences(manifest()) == []
    assert list(there.columns) == ["pixels", "ram", "action", "reward", "terminated", "truncated"]


def test_a_keyword_that_json_cannot_hold_is_named_by_its_type():
    callable_kwarg = replace(manifest(), env_kwargs={"render": lambda: None})
    assert json.loads(callable_kwarg.to_json())["env_kwargs"] == {"render": "<builtins.function>"}


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"game": "Breakout"}, "game: 'Pong' in the data set, 'Breakout' asked for"),
        ({"env_kwargs": {"frameskip": 2}}, "env_kwargs frameskip: 4 in the data set, 2 asked for"),
        ({"settings": {"seed": 1}}, "settings seed: 0 in the data set, 1 asked for"),
        ({"heads": ("a",)}, "heads: ['a', 'b'] in the data set, ['a'] asked for"),
        ({"versions": {"ale-py": "0.11"}}, "version of ale-py: '0.12.1' in the data set, '0.11'"),
    ],
)
def test_differences_name_what_differs(change, phrase):
    differences = manifest().differences(replace(manifest(), **change))
    assert any(phrase in difference for difference in differences), differences


def test_versions_of_what_only_stores_may_differ():
    newer = replace(manifest(), versions={"ale-py": "0.12.1", "numpy": "2.9"})
    assert manifest().differences(newer) == []


def test_a_newer_format_is_refused(tmp_path):
    newer = replace(manifest(), format_version=FORMAT_VERSION + 1).to_json()
    content = {**json.loads(newer), "a key of the future": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    message = rf"format version {FORMAT_VERSION + 1}, expected {FORMAT_VERSION}: upgrade"
    with pytest.raises(RMRError, match=message):
        read_manifest(tmp_path)


def test_the_format_before_the_first_release_is_refused(tmp_path):
    older = replace(manifest(), format_version=1).to_json()
    (tmp_path / "manifest.json").write_text(older)
    with pytest.raises(RMRError, match=r"manifest\.json has format version 1, .*record again"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "{}", '{"format": "other", "format_version": 1}', '{"format_version": 1}'],
)
def test_a_foreign_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RMRError, match=r"manifest\.json is not the manifest of"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("key", ["observations", "steps", "heads"])
def test_a_manifest_without_a_part_is_refused(key):
    content = json.loads(manifest().to_json())
    del content["sha256"]
    content[key] = 3
    with pytest.raises(RMRError, match="is not the manifest of"):
        Manifest.from_json(json.dumps(content), Path("manifest.json"))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe\x00\x93")
    with pytest.raises(RMRError, match="is not the manifest of"):
        read_manifest(tmp_path)


def test_no_manifest(tmp_path):
    with pytest.raises(RMRError, match=r"found no readable manifest\.json: record one"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("dtype", 3), ("dtype", None), ("dtype", "words"), ("name", 1), ("shape", [-1]), ("shape", 2)],
)
def test_a_column_that_is_none_is_refused(key, value):
    content = json.loads(manifest().to_json())
    del content["sha256"]
    content["observations"][0][key] = value
    with pytest.raises(RMRError, match="is not the manifest of"):
        Manifest.from_json(json.dumps(content), Path("manifest.json"))


def test_a_changed_value_is_told(tmp_path):
    text = manifest().to_json()
    (tmp_path / "manifest.json").write_text(text.replace('"Pong"', '"Gong"'))
    with pytest.raises(RMRError, match=r"manifest\.json is damaged or was changed by hand"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(json.loads(text), sort_keys=True))
    assert read_manifest(tmp_path).game == "Pong", "the order of keys does not matter"
