import pytest
import torch
from torch import nn

from rmr_gym.protocol.store import Scratch
from rmr_gym.protocol.training import DivergedError, Kept, Step, train


def linear():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 2)


def step_of(model, until=None):
    def step_at(step):
        if step == until:
            raise KeyboardInterrupt
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        return Step((model(x) - x[:, :2]).square().mean(), {"size": x.square().mean()})

    return step_at


def kept_of(model):
    return lambda step: Kept({f"{step}.w": model.weight.detach()}, {"step": step})


def run(model, scratch=None, until=None, checkpoints=(4, 9)):
    return train(
        model,
        step_of(model, until),
        kept_of(model),
        checkpoints=checkpoints,
        learning_rate=0.05,
        scratch=scratch,
    )


def test_curve_checkpoints_and_progress():
    seen, model = [], linear()
    trained = train(
        model,
        step_of(model),
        kept_of(model),
        checkpoints=(4, 9),
        learning_rate=0.05,
        progress=lambda *values: seen.append(values),
    )
    assert seen == [(step, 9) for step in range(1, 10)]
    assert [row["step"] for row in trained.curve] == list(range(1, 10))
    assert trained.curve[-1]["loss"] < trained.curve[0]["loss"]
    assert [record["step"] for record in trained.records] == [4, 9]
    assert torch.equal(trained.tensors["9.w"], model.weight)
    assert not torch.equal(trained.tensors["4.w"], model.weight)


@pytest.mark.parametrize("until", [2, 5, 9])
def test_interrupted_training_ends_with_the_same_bytes(tmp_path, until):
    whole, model = linear(), linear()
    expected = run(whole)
    scratch = Scratch(tmp_path / "s")
    with pytest.raises(KeyboardInterrupt):
        run(model, scratch, until)
    resumed = linear()
    result = run(resumed, scratch)
    assert torch.equal(resumed.weight, whole.weight)
    assert result.curve == expected.curve
    assert result.records == expected.records
    assert all(torch.equal(result.tensors[name], value) for name, value in expected.tensors.items())


def test_resume_really_uses_the_saved_state(tmp_path):
    scratch, model = Scratch(tmp_path / "s"), linear()
    run(model, scratch, checkpoints=(4,))
    state = scratch.load()
    state.tensors["model.weight"].zero_()
    scratch.save(state)
    resumed = linear()
    run(resumed, scratch, checkpoints=(4,))
    assert torch.equal(resumed.weight, torch.zeros(2, 3))


def test_nan_stops_with_the_step_and_keeps_what_was_kept(tmp_path):
    model, scratch = linear(), Scratch(tmp_path / "s")

    def step_at(step):
        loss = step_of(model)(step).loss
        return Step(loss * float("nan") if step == 6 else loss, {})

    with pytest.raises(DivergedError, match="step 6"):
        train(
            model, step_at, kept_of(model), checkpoints=(4, 9), learning_rate=0.1, scratch=scratch
        )
    assert scratch.load().record["step"] == 4


def test_stop_ends_training_at_the_checkpoint():
    model = linear()
    trained = train(
        model,
        step_of(model),
        lambda step: Kept({}, {"step": step}, stop=True),
        checkpoints=(2, 9),
        learning_rate=0.1,
    )
    assert trained.stopped
    assert [row["step"] for row in trained.curve] == [1, 2]


def test_frozen_parameters_stay():
    model = linear()
    model.bias.requires_grad_(requires_grad=False)
    before = model.bias.clone()
    run(model)
    assert torch.equal(model.bias, before)
