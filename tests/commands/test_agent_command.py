import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from stable_baselines3 import PPO

from rmr_gym.agents.record import chooser, record
from rmr_gym.agents.sb3 import agent as training
from rmr_gym.agents.sb3.agent import STRIP, above, beside, movements
from rmr_gym.agents.sb3.worlds import AgentConfig, make_games, read_config
from rmr_gym.commands import agent as commands
from rmr_gym.commands.console import carry_out
from rmr_gym.core import files as atomic
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.atari import load_natural
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    config = EncoderConfig("Pong", dim=4)
    made = build(config.encoder, torch_generator(0))
    made.standardise_by(torch.full((84, 84), 90.0), 30.0)
    facts = {"training": {"arm": "cswm"}}
    folder = tmp_path_factory.mktemp("encoder") / "pong"
    return str(PretrainedEncoder(config, made, provenance=facts).save_pretrained(folder))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    (ppo, _), (dqn, _) = training.ALGORITHMS["ppo"], training.ALGORITHMS["dqn"]
    monkeypatch.setitem(
        training.ALGORITHMS, "ppo", (ppo, {"n_steps": 4, "batch_size": 8, "n_epochs": 1})
    )
    dqn_options = {"buffer_size": 50, "learning_starts": 4, "batch_size": 4}
    monkeypatch.setitem(training.ALGORITHMS, "dqn", (dqn, dqn_options))
    (recurrent, _), (qrdqn, _) = (training.ALGORITHMS[name] for name in ("recurrent_ppo", "qrdqn"))
    small = {"n_steps": 4, "batch_size": 8, "n_epochs": 1}
    monkeypatch.setitem(training.ALGORITHMS, "recurrent_ppo", (recurrent, small))
    monkeypatch.setitem(training.ALGORITHMS, "qrdqn", (qrdqn, dqn_options))


def run(*arguments):
    carry_out(commands.AGENT, arguments, "agent")


def train(folder, *arguments):
    small = ("--game", "pong", "--copies", "2", "--max-steps", "6", "--out", str(folder))
    run("train", *small, *arguments)


@pytest.mark.parametrize(
    ("features", "algorithm", "shape"),
    [
        ("cswm", "ppo", (512,)),
        ("cswm", "dqn", (1, 84, 84)),
        ("cswm", "recurrent_ppo", (512,)),
        ("cswm", "qrdqn", (1, 84, 84)),
        ("cnn", "recurrent_ppo", (4, 84, 84)),
        ("cnn", "ppo", (4, 84, 84)),
        ("ram", "ppo", (1024,)),
    ],
)
def test_train_measure_watch(encoder, features, algorithm, shape, tmp_path, capsys):
    chosen = ["--features", features, "--algorithm", algorithm]
    chosen += ["--encoder", encoder] if features == "cswm" else []
    train(tmp_path, *chosen, "--steps", "16", "--checkpoints", "2")
    names = [path.name for path in training.kept_agents(tmp_path)]
    assert names[-1] == "000000016"
    assert training.load_agent(tmp_path).observation_space.shape == shape
    capsys.readouterr()
    tables = []
    for _ in range(2):
        run("evaluate", str(tmp_path), "--episodes", "2")
        tables.append(capsys.readouterr().out)
    assert "median" in tables[0]
    assert tables[0] == tables[1]
    assert training.load_agent(tmp_path).__class__ is training.ALGORITHMS[algorithm][0]
    run("enjoy", str(tmp_path), "--steps", "3")
    with Image.open(tmp_path / "episode.gif") as film:
        strip = STRIP if algorithm == "ppo" else 0
        assert film.size == (160 + (108 if features == "cswm" else 0), 210 + strip)
        assert 1 <= len(list(ImageSequence.Iterator(film))) <= 4


def test_a_stopped_run_goes_on_where_it_was(encoder, tmp_path, monkeypatch):
    chosen = ("--features", "cswm", "--encoder", encoder, "--steps", "24", "--checkpoints", "3")
    with monkeypatch.context() as patch:
        patch.setattr(training.Keep, "_on_rollout_end", stop_after(16), raising=False)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, *chosen)
    assert [path.stem for path in training.kept_agents(tmp_path)] == ["000000008"]
    first = (tmp_path / "000000008" / "policy.safetensors").read_bytes()
    train(tmp_path, *chosen)
    names = [path.stem for path in training.kept_agents(tmp_path)]
    assert names == ["000000008", "000000016", "000000024"]
    assert (tmp_path / "000000008" / "policy.safetensors").read_bytes() == first
    assert training.load_agent(tmp_path).num_timesteps == 24
    stamp = (tmp_path / "000000024").stat().st_mtime_ns
    for fewer in (chosen, (*chosen[:-4], "--steps", "12", "--checkpoints", "1")):
        train(tmp_path, *fewer)
        assert [path.stem for path in training.kept_agents(tmp_path)] == names
    assert (tmp_path / "000000024").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("features", "algorithm"),
    [
        ("cnn", "ppo"),
        ("cswm", "dqn"),
        ("ram", "qrdqn"),
        ("ram", "rims_ppo"),
        ("cnn", "recurrent_ppo"),
    ],
)
def test_a_kept_agent_is_the_trained_one_and_its_optimizer_s(
    encoder, features, algorithm, tmp_path, monkeypatch
):
    given, trained = encoder if features == "cswm" else None, {}
    config = AgentConfig("Pong", features, algorithm, given, copies=2, max_steps=6)
    monkeypatch.setitem(training.ALGORITHMS, "rims_ppo", training.ALGORITHMS["recurrent_ppo"])
    save = training._save

    def note(config, folder, agent, steps):
        trained[steps] = agent
        return save(config, folder, agent, steps)

    monkeypatch.setattr(training, "_save", note)
    path = training.train_agent(config, tmp_path, steps=16, checkpoints=1)
    kept, own = training.load_agent(tmp_path), trained[16]
    assert path == tmp_path / "000000016"
    assert all(map(torch.equal, *(each.policy.state_dict().values() for each in (kept, own))))
    states = [each.policy.optimizer.state_dict()["state"] for each in (kept, own)]
    assert states[0].keys() == states[1].keys() != set()
    for row, numbers in states[1].items():
        assert all(torch.equal(states[0][row][name], numbers[name]) for name in numbers)
    assert kept.num_timesteps == own.num_timesteps


def test_nothing_of_an_agent_s_folder_is_run_and_its_card_tells_of_it(tmp_path, monkeypatch):
    train(tmp_path, "--features", "ram", "--steps", "32", "--checkpoints", "2", "--seed", "3")
    inside = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    steps = ("000000016", "000000032")
    parts = {f"{step}/{part}.safetensors" for step in steps for part in ("policy", "optimizer")}
    assert inside == {"config.json", "README.md", *parts}
    for module, name in ((pickle, "Unpickler"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, None)
    assert training.load_agent(tmp_path).num_timesteps == 32
    assert training.load_agent(tmp_path, tmp_path / steps[0]).num_timesteps == 16
    card = (tmp_path / "README.md").read_text()
    assert "# Agent of Pong" in card
    assert "ppo of Stable-Baselines3 on the features ram." in card
    command = "rmr-gym agent train --game=Pong --features=ram --algorithm=ppo --seed=3 --copies=2"
    assert f"{command} --max-steps=6 --steps=32 --checkpoints=2" in card
    (row,) = [line.split("|") for line in card.splitlines() if line.startswith("| 000000032")]
    assert -1 <= float(row[2]) <= 1
    assert int(row[3]) == 4, "of 32 steps in 2 copies, episodes of 6"
    assert "- stable-baselines3: 2" in card


def test_an_agent_whose_encoder_became_another(tmp_path):
    config = EncoderConfig("Pong", dim=4)
    for seed in (0, 1):
        made = build(config.encoder, torch_generator(seed))
        made.standardise_by(torch.full((84, 84), 90.0), 30.0)
        written = PretrainedEncoder(config, made, provenance={"training": {"arm": "cswm"}})
        folder = written.save_pretrained(tmp_path / "encoder", overwrite=True)
        chosen = ("--features", "cswm", "--encoder", str(folder), "--checkpoints", "1")
        if seed == 0:
            train(tmp_path / "agent", *chosen, "--steps", "8")
            assert training.load_agent(tmp_path / "agent").num_timesteps == 8
    with pytest.raises(RMRError, match=r"learnt on another encoder than .*delete it, and train on"):
        training.load_agent(tmp_path / "agent")
    with pytest.raises(RMRError, match="learnt on another encoder"):
        train(tmp_path / "agent", *chosen, "--steps", "16")


def test_damaged_agents_and_those_of_another_version(tmp_path):
    train(tmp_path, "--features", "ram", "--steps", "8", "--checkpoints", "1")
    weights, config = tmp_path / "000000008" / "policy.safetensors", tmp_path / "config.json"
    whole, record = weights.read_bytes(), json.loads(config.read_text())
    for broken in (whole[:-1], b"", whole[:8] + b"?" + whole[9:]):
        weights.write_bytes(broken)
        with pytest.raises(RMRError, match=r"000000008 cannot be used .*delete it, and train on"):
            training.load_agent(tmp_path)
    weights.unlink()
    with pytest.raises(RMRError, match="000000008 cannot be used"):
        training.load_agent(tmp_path)
    weights.write_bytes(whole)
    config.write_text(json.dumps(record | {"config": record["config"] | {"features": "cnn"}}))
    with pytest.raises(RMRError, match="cannot be used"):
        training.load_agent(tmp_path)
    for other in (record["config"], record | {"version": 2}, record | {"format": "x"}, [1], 3):
        config.write_text(json.dumps(other))
        with pytest.raises(RMRError, match="expected the folder of an agent, found none"):
            training.load_agent(tmp_path)
    config.write_text(json.dumps(record | {"version": 2}))
    with pytest.raises(RMRError, match=r"reads .*'version': 1}, it holds .*'version': 2}"):
        train(tmp_path, "--features", "ram", "--steps", "16", "--checkpoints", "1")


def test_a_recurrent_agent_remembers_within_an_episode_alone():
    class Counts(PPO):
        def __init__(self):
            pass

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            state = 0 if state is None else state + 1
            return np.array([state]), state

    first = chooser(Counts())
    assert [int(first(None)[0]) for _ in range(3)] == [0, 1, 2]
    assert int(chooser(Counts())(None)[0]) == 0


def test_tensorboard_logs_go_on_where_training_does(tmp_path):
    pytest.importorskip("tensorboard")
    small = ("--features", "ram", "--checkpoints", "1")
    train(tmp_path, *small, "--steps", "8")
    assert not (tmp_path / "tensorboard").exists()
    train(tmp_path, *small, "--steps", "24", "--tensorboard")
    logs = list((tmp_path / "tensorboard").rglob("events.*"))
    assert logs
    assert all(b"rollout/ep_rew_mean" in log.read_bytes() for log in logs)


def test_tensorboard_that_is_missing_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "find_spec", lambda _: None)
    with pytest.raises(RMRError, match="pip install tensorboard"):
        train(tmp_path / "a", "--features", "ram", "--tensorboard")
    assert not (tmp_path / "a").exists()


def test_an_agent_that_cannot_be_written_leaves_what_is_there(tmp_path, monkeypatch):
    chosen = ("--features", "ram", "--checkpoints", "2")
    train(tmp_path, *chosen, "--steps", "8")
    names = [path.name for path in training.kept_agents(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", no_space)
        with pytest.raises(RMRError, match="No space left"):
            train(tmp_path, *chosen, "--steps", "24")
    inside = {path.name for path in tmp_path.iterdir()}
    assert inside == {*names, "config.json", "README.md"}
    train(tmp_path, *chosen, "--steps", "24")
    assert training.load_agent(tmp_path).num_timesteps == 24


def no_space(_):
    raise OSError(28, "No space left on device")


def stop_after(steps):
    def stop(keep):
        if keep.num_timesteps >= steps:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(("features", "shape"), [("cnn", (12, 64, 64)), ("state", (20,))])
def test_pushed_balls(features, shape, tmp_path, capsys):
    small = ("--game", "pushed-balls", "--copies", "2", "--max-steps", "6", "--out", str(tmp_path))
    run("train", *small, "--features", features, "--steps", "16", "--checkpoints", "1")
    assert training.load_agent(tmp_path).observation_space.shape == shape
    capsys.readouterr()
    run("evaluate", str(tmp_path), "--episodes", "1")
    assert "median" in capsys.readouterr().out
    run("enjoy", str(tmp_path), "--steps", "2")
    assert (tmp_path / "episode.gif").is_file()


@pytest.mark.parametrize("features", ["cnn", "ram"])
def test_any_other_game_of_ale(features, tmp_path, capsys):
    agent = tmp_path / "agent"
    small = ("--copies", "2", "--max-steps", "6", "--steps", "8", "--checkpoints", "1")
    run("train", "--game", "enduro", "--features", features, *small, "--out", str(agent))
    config = read_config(agent)
    assert config == AgentConfig("ALE/Enduro-v5", features, copies=2, max_steps=6)
    assert training.load_agent(agent).action_space.n == 18
    run("enjoy", str(agent), "--steps", "2")
    run("record", str(agent), "--out", str(tmp_path / "d"), "--episodes", "1")
    TransitionDataset(tmp_path / "d").require_game("Enduro")


def test_screens_of_other_games_are_read_by_their_palette():
    venv = make_games(AgentConfig("Enduro", "cnn", max_steps=9), copies=1, learning=False)
    venv.seed(0)
    frame, screen = venv.reset()[0, -1], Image.fromarray(venv.get_images()[0])
    seen = screen.convert("L").resize((84, 84), Image.Resampling.BOX)
    assert np.abs(frame.astype(int) - np.asarray(seen)).mean() < 2


def test_rewards_of_balls_are_not_made_signs_of():
    config = AgentConfig("PushedBalls", "state", max_steps=9)
    venv = make_games(config, copies=1, learning=True)
    venv.seed(0)
    venv.reset()
    _, rewards, _, _ = venv.step(np.array([1]))
    assert rewards[0] == pytest.approx(-0.01)


def test_what_an_agent_meets_is_recorded(encoder, tmp_path, capsys):
    agent, out = tmp_path / "agent", tmp_path / "data"
    chosen = ("--features", "cswm", "--encoder", encoder, "--steps", "8", "--checkpoints", "1")
    train(agent, *chosen)
    run("record", str(agent), "--out", str(out), "--episodes", "1")
    first = [path.read_bytes() for path in sorted(out.glob("episodes/*"))]
    run("record", str(agent), "--out", str(out), "--episodes", "3")
    dataset = TransitionDataset(out)
    assert [episode.length for episode in dataset.episodes] == [6, 6, 6]
    assert [path.read_bytes() for path in sorted(out.glob("episodes/*"))][:1] == first
    run("record", str(agent), "--out", str(tmp_path / "again"), "--episodes", "3")
    assert TransitionDataset(tmp_path / "again").fingerprint == dataset.fingerprint
    dataset.require_game("Pong")
    played = record("Pong", tmp_path / "heads", episodes=1, max_steps=4)
    assert dataset.manifest.observations == played.manifest.observations
    assert dataset.episodes[0].head == "ppo on cswm"
    frames = load_natural(dataset, [0, 1], 84, 84).frames
    assert frames.shape == (14, 84, 84)
    assert frames.float().std() > 0
    with pytest.raises(RMRError, match="at least 1 as episodes, found 0"):
        run("record", str(agent), "--out", str(out), "--episodes", "0")


def test_balls_are_recorded(tmp_path):
    agent, out = tmp_path / "agent", tmp_path / "data"
    small = ("--game", "PushedBalls", "--copies", "2", "--max-steps", "6", "--out", str(agent))
    run("train", *small, "--features", "state", "--steps", "8", "--checkpoints", "1")
    run("record", str(agent), "--out", str(out), "--episodes", "2")
    loaded = TransitionDataset(out).load(columns=("state", "velocities", "pixels", "action"))
    assert loaded["velocities"].shape == (14, 5, 2)
    assert loaded["state"].shape == (14, 5, 2)
    assert loaded["pixels"].shape == (14, 64, 64, 3)
    assert loaded["action"].shape == (12,)


def test_movements_and_their_picture():
    slots = np.zeros((3, 128, 4))
    slots[1:, 5] = 1.0
    slots[2, 9] = 2.0
    moved = movements(slots)
    assert moved[0].max() == 0
    assert np.flatnonzero(moved[1]).tolist() == [5]
    assert moved[1, 5] == 1
    assert np.flatnonzero(moved[2]).tolist() == [9]
    pictures = beside([np.zeros((210, 160, 3), np.uint8)] * 3, moved)
    assert pictures[1][:13, 164 + 5 * 13 : 164 + 6 * 13].min() == 255
    assert pictures[1].sum() == 255 * 3 * 13 * 13
    few = beside([np.zeros((64, 64, 3), np.uint8)], np.array([[1.0, 0, 0, 1.0]]))[0]
    assert few.shape == (64, 64 + 4 + 16, 3), "cells of few slots fill the height too"
    assert few[:16, 68:].min() == few[-16:, 68:].min() == 255


def test_the_course_of_the_value_stands_below():
    screens = [np.full((7, 8, 3), 9, np.uint8)] * 4
    pictures = above(screens, np.array([1.0, 3.0, 2.0, 1.0]))
    assert all(np.array_equal(picture[:7], screens[0]) for picture in pictures)
    strips = [picture[7:, :, 0] for picture in pictures]
    low, middle = STRIP - 1, 20
    assert np.argwhere(strips[0]).tolist() == [[low, 0], [low, 1], [low, 2]]
    assert np.argwhere(strips[1]).tolist()[:3] == [[0, 2], [0, 3], [0, 4]]
    assert np.flatnonzero(strips[-1].any(1)).tolist() == [0, middle, low], "what was stays"
    assert np.flatnonzero(strips[-1][middle]).tolist() == [4, 5, 6], "between lowest and highest"
    flat = above(screens, np.zeros(4))[-1][7:, :, 0]
    assert np.flatnonzero(flat.any(1)).tolist() == [low]


def test_a_film_shows_the_value_that_the_policy_tells(encoder, tmp_path, monkeypatch):
    train(tmp_path, "--features", "cswm", "--encoder", encoder, "--steps", "16")
    told = []
    monkeypatch.setattr(training, "above", lambda shown, values: told.append(values) or shown)
    run("enjoy", str(tmp_path), "--steps", "3")
    agent = training.load_agent(tmp_path)
    venv = make_games(read_config(tmp_path), copies=1, learning=False)
    venv.seed(integer_seed(0, "evaluation", "Pong"))
    seen = agent.policy.obs_to_tensor(venv.reset())[0]
    assert told[0].shape == (4,)
    assert told[0][0] == pytest.approx(agent.policy.predict_values(seen).item(), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--features", "cswmm", "--encoder", "x"), "did you mean 'cswm'"),
        (("--features", "cswm"), "expected an encoder with features 'cswm', found none"),
        (("--game", "Enduro"), "none of Enduro is shipped: write one with `rmr-gym train"),
        (("--game", "balls"), "none of PushedBalls is shipped: write one with `rmr-gym train"),
        (
            ("--game", "Pong", "--features", "ram", "--steps", "-100"),
            "at least 1 as steps, found -1",
        ),
        (("--features", "ram", "--encoder", "x"), "expected no encoder with features 'ram'"),
        (("--features", "state"), "unknown features of Pong 'state': .*choose one of rmr, "),
        (("--features", "ram", "--algorithm", "pp"), "did you mean 'ppo'"),
        (("--features", "ram", "--copies", "0"), "at least 1 as copies, found 0"),
        (("--features", "ram", "--checkpoints", "0"), "1 to 100000 checkpoints, found 0"),
        (
            ("--features", "cswm", "--encoder", "nowhere"),
            "found neither at 'nowhere'",
        ),
        (("--features", "ram", "--game", "pogn"), "did you mean 'Pong'"),
    ],
)
def test_bad_input(arguments, message, tmp_path):
    with pytest.raises(RMRError, match=message):
        train(tmp_path, *arguments)


def test_mixed_up_folders(encoder, tmp_path):
    with pytest.raises(RMRError, match="expected an encoder of the arm 'untrained'"):
        train(tmp_path / "a", "--features", "untrained", "--encoder", encoder, "--steps", "10")
    assert not (tmp_path / "a").exists()
    small = ("--features", "ram", "--steps", "8", "--checkpoints", "1")
    train(tmp_path / "b", *small)
    with pytest.raises(RMRError, match="another configuration"):
        train(tmp_path / "b", *small, "--seed", "1")
    with pytest.raises(RMRError, match=r"choose an ending of \.gif or \.mp4"):
        run("enjoy", str(tmp_path / "b"), "--out", str(tmp_path / "film.avi"))
    for command in ("evaluate", "enjoy"):
        with pytest.raises(RMRError, match="expected the folder of an agent"):
            run(command, str(tmp_path / "nowhere"))
    with pytest.raises(RMRError, match="at least 1 as episodes"):
        run("evaluate", str(tmp_path / "b"), "--episodes", "0")
