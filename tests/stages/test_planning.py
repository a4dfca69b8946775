"""P of the bytes that change, what it imagines, and heads that say what that is worth."""

import numpy as np
import pytest
import torch

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.runs.store import Artifact
from rmr_gym.runs.training import Phase
from rmr_gym.stages import planning
from rmr_gym.stages.balls import RecordedBalls
from rmr_gym.stages.planning import Head, dynamics, foreseen, head, imagination, pushed_dynamics

PHASES = (Phase(3, batch=4), Phase(2, batch=4, unroll=2))


@pytest.fixture(scope="module")
def learned(game):
    return dynamics.function(game.data, game.preset.model, PHASES, 0)


@pytest.fixture
def start(game):
    ram = game.data.abstract("validation").ram
    return torch.from_numpy(np.append(ram[5], np.uint8(3)))[None]


def imagined(game, learned, arm="rmr"):
    return imagination(arm, game.preset.model, learned, 0)


def test_actions_stand_beside_the_row_that_they_led_to(game):
    data = game.data.abstract("training")
    before = planning.with_actions(data)[:, -1]
    np.testing.assert_array_equal(before[data.current + 1], data.action)
    assert before[0] == 0


def test_bytes_that_never_change_are_not_predicted(game, learned, start):
    plans = torch.tensor([[0, 3, 4], [3, 3, 3], [0, 3, 4]])
    states = imagined(game, learned)(start.expand(3, -1), plans)
    assert states.shape == (4, 3, 129)
    rest = sorted({*range(128)} - {*learned.tensors["bytes"].tolist()})
    assert (states[:, :, rest] == start[0, rest]).all()
    assert torch.equal(states[1:, :, -1], plans.T.byte())
    assert torch.equal(states[:, 0], states[:, 2])


def test_many_plans_at_once_are_imagined_as_each_alone(game, learned, start):
    model, plans = imagined(game, learned), torch.tensor([[0, 3], [4, 3], [2, 2]])
    together = model(start.expand(3, -1), plans)
    for row, plan in enumerate(plans):
        assert torch.equal(together[:, row], model(start, plan[None])[:, 0])


@pytest.mark.parametrize("arm", [*planning.ARMS, planning.EMULATOR])
def test_every_arm_has_a_head_that_is_scored(game, learned, start, arm, monkeypatch):
    monkeypatch.setattr(planning, "SETTLED", 0.2)
    made = head.function(game.data, game.preset.model, arm, 0.9, 0, learned)
    (row,) = made.record["rows"]
    assert np.isfinite([row["reward_r2"], row["value_r2"]]).all()
    assert Head(made.tensors, "Pong")(start, start).shape == (1, 2)


def test_a_copy_stays_where_it_is(game, start):
    states = imagination("copy", game.preset.model, None, 0)(start, torch.tensor([[1, 2]]))
    assert torch.equal(states, start.expand(3, 1, -1))


def test_controls_differ_from_p_in_the_processor_alone(game, learned):
    parts = {arm: imagined(game, learned, arm)._pipeline for arm in planning.ARMS[:3]}
    for arm in planning.ARMS[1:3]:
        assert torch.equal(parts[arm].decoder.mask.weight, parts["rmr"].decoder.mask.weight)
        weights = (parts[name].processor.core.hidden.weight for name in (arm, "rmr"))
        assert not torch.equal(*weights)


def test_bad_input_gets_a_sentence(game, learned):
    with pytest.raises(RMRError, match="what actions do"):
        imagined(game, Artifact({}, {}))
    with pytest.raises(RMRError, match="arm of planning"):
        imagined(game, learned, "nothing")
    other = dict(learned.tensors) | {"decoder.mask.weight": torch.zeros(1, 3)}
    with pytest.raises(RMRError, match="do not fit"):
        imagined(game, Artifact({}, other))
    tensors = {"bytes": torch.tensor([1, 2]), "discount": torch.tensor(0.9)}
    with pytest.raises(RMRError, match="head of Pong"):
        Head(tensors, "Pong")


def test_p_of_pushed_balls_hears_pushes_and_controls_differ_in_p_alone(tmp_path):
    record("rmr/PushedBalls-v0", tmp_path / "balls", episodes=3, max_steps=20, resolution=32)
    data = RecordedBalls("PushedBalls", tmp_path / "balls")
    seen, actions = planning.pushed_positions(data, "training", seen=True)
    known, _ = planning.pushed_positions(data, "training")
    assert (seen.seen - known.seen)[:, :2].norm(dim=-1).max() < 0.02
    phases = Phase(2, batch=8), Phase(1, batch=8, unroll=2)
    learned = pushed_dynamics.function(data, phases, "rmr", 0)
    past, plans = known.seen[None, :3], torch.tensor([[0, 1]])
    futures = {arm: foreseen(arm, learned, 0) for arm in planning.PUSHED_ARMS}
    with torch.no_grad():
        still, pushed = (futures["rmr"](past, actions) for actions in (0 * plans, plans))
        assert torch.equal(still[:, 0], pushed[:, 0])
        assert not torch.equal(still[:, 1], pushed[:, 1])
        for arm in ("random_p", "shuffled_p"):
            assert not torch.equal(futures[arm](past, plans), pushed)
    assert torch.equal(futures["copy"](past, plans)[0, 1], past[0, -1])
    with pytest.raises(RMRError, match="do not fit"):
        foreseen("rmr", Artifact({}, {}), 0)
    assert len(actions) == len(known.seen)
