import pytest
import torch
from torch import nn

from rmr_gym.core.errors import RMRError
from rmr_gym.runs.store import NOWHERE, Room
from rmr_gym.runs.training import Checkpoint, DivergedError, Phase, Step, check_checkpoints, train

RATE = 0.05


def linear():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 2)


def step_of(model, until=None):
    def step_at(step, phase):
        if step == until:
            raise KeyboardInterrupt
        x = torch.randn(phase.batch, 3, generator=torch.Generator().manual_seed(step))
        return Step((model(x) - x[:, :2]).square().mean(), {"size": x.square().mean()})

    return step_at


def checkpoint_of(model, scores=None):
    scores = iter(scores or [])
    return lambda step: Checkpoint(
        {f"{step}.w": model.weight}, {"step": step}, score=next(scores, 0.0)
    )


def halves(model):
    """Let the bias learn in the first phase only."""
    return lambda phase: model.bias.requires_grad_(phase == 0)


PHASES = (Phase(4, RATE, 5), Phase(5, RATE / 5, 7))


def run(model, room=NOWHERE, until=None, **options):
    settings = {"phases": PHASES, "checkpoints": (4, 9), "begin": halves(model)} | options
    scores = settings.pop("scores", None)
    checkpoint_at = settings.pop("checkpoint_at", None) or checkpoint_of(model, scores)
    step_at = settings.pop("step_at", None) or step_of(model, until)
    return train(model, step_at, checkpoint_at, room=room, **settings)


def test_curve_checkpoints_and_progress():
    seen, model = [], linear()
    trained = run(model, Room(progress=lambda *values: seen.append(values)))
    assert seen == [(step, 9) for step in range(1, 10)]
    assert [row["step"] for row in trained.curve] == list(range(1, 10))
    assert set(trained.curve[0]) == {"step", "loss", "size"}
    assert trained.curve[-1]["loss"] < trained.curve[0]["loss"]
    assert [record["step"] for record in trained.records] == [4, 9]
    assert torch.equal(trained.tensors["9.w"], model.weight)
    assert not torch.equal(trained.tensors["4.w"], model.weight)


@pytest.mark.parametrize("until", [2, 5, 6, 9])
@pytest.mark.parametrize("every", [0.0, 60.0])
def test_interrupted_training_ends_with_the_same_bytes(tmp_path, monkeypatch, until, every):
    """At any step and in any phase, whether state was saved just now or at a checkpoint."""
    monkeypatch.setattr("rmr_gym.runs.training.SAVE_EVERY_SECONDS", every)
    whole, model, resumed = linear(), linear(), linear()
    expected = run(whole, clip=0.5, keep="best", scores=[1.0, 2.0])
    room = Room(tmp_path / "s")
    with pytest.raises(KeyboardInterrupt):
        run(model, room, until, clip=0.5, keep="best", scores=[1.0])
    result = run(resumed, room, clip=0.5, keep="best", scores=[1.0, 2.0][until > 4 :])
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.bias, whole.bias)
    assert (result.curve, result.records) == (expected.curve, expected.records)
    assert (result.scores, result.stopped) == (expected.scores, expected.stopped)
    assert result.tensors.keys() == expected.tensors.keys() == {"4.w"}
    assert torch.equal(result.tensors["4.w"], expected.tensors["4.w"])


def test_resume_really_uses_the_saved_state(tmp_path):
    room, model = Room(tmp_path / "s"), linear()
    run(model, room)
    state = room.load()
    state.tensors["model.weight"].zero_()
    room.save(state)
    resumed = linear()
    run(resumed, room)
    assert torch.equal(resumed.weight, torch.zeros(2, 3))


def test_each_phase_has_its_rate_batch_parts_and_a_new_optimizer():
    model, sizes = linear(), []

    def step_at(step, phase):
        sizes.append(phase.batch)
        return step_of(model)(step, phase)

    biases = []
    run(
        model,
        step_at=step_at,
        checkpoint_at=lambda step: (
            biases.append(model.bias.detach().clone()) or Checkpoint({}, {"step": step})
        ),
    )
    assert sizes == [5] * 4 + [7] * 5
    assert torch.equal(*biases)
    one, two = linear(), linear()
    joined = run(one, phases=[Phase(9, RATE, 5)], begin=lambda phase: None)
    split = run(two, phases=[Phase(4, RATE, 5), Phase(5, RATE, 5)], begin=lambda phase: None)
    assert joined.curve[4] == split.curve[4]  # the loss before the first step of the new optimizer
    assert not torch.equal(one.weight, two.weight)


@pytest.mark.parametrize(
    ("keep", "names"), [("all", {"2.w", "4.w", "9.w"}), ("last", {"9.w"}), ("best", {"4.w"})]
)
def test_which_checkpoints_are_kept(keep, names):
    trained = run(linear(), checkpoints=(2, 4, 9), keep=keep, scores=[2.0, 1.0, 1.0])
    assert set(trained.tensors) == names
    assert trained.best == {"step": 4}
    assert trained.scores == [2.0, 1.0, 1.0]


def test_patience_ends_training_and_a_better_score_renews_it():
    checkpoints, scores = (1, 2, 3, 4, 5, 9), [3.0, 4.0, 2.0, 2.0, 2.5, 0.0]
    trained = run(linear(), checkpoints=checkpoints, scores=scores, patience=2)
    assert trained.stopped
    assert [record["step"] for record in trained.records] == [1, 2, 3, 4, 5]
    assert not run(linear(), checkpoints=checkpoints, scores=scores).stopped


def test_gradients_are_clipped():
    gradients = {}
    for clip in (None, 1e-3):
        model = linear()
        run(model, phases=[Phase(9, RATE, 5)], begin=lambda phase: None, clip=clip)
        norms = [p.grad.norm() for p in model.parameters()]
        gradients[clip] = float(torch.stack(norms).norm())
    assert gradients[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert gradients[None] > 1e-2


def test_nan_stops_with_the_step_and_keeps_what_was_kept(tmp_path):
    model, room = linear(), Room(tmp_path / "s")

    def step_at(step, phase):
        loss = step_of(model)(step, phase).loss
        return Step(loss * float("nan") if step == 6 else loss)

    with pytest.raises(DivergedError, match="loss became nan at step 6, expected a number"):
        run(model, room, step_at=step_at)
    assert room.load().record["step"] == 4


def test_stop_ends_training_at_the_checkpoint():
    stop = {"checkpoint_at": lambda step: Checkpoint({}, {"step": step}, stop=True)}
    trained = run(linear(), checkpoints=(2, 9), **stop)
    assert trained.stopped
    assert [row["step"] for row in trained.curve] == [1, 2]


def test_frozen_parameters_stay():
    model = linear()
    model.bias.requires_grad_(requires_grad=False)
    before = model.bias.clone()
    run(model, begin=lambda phase: None)
    assert torch.equal(model.bias, before)


@pytest.mark.parametrize("wrong", [(), (3, 2), (2, 2), (0, 2)])
def test_checkpoints_rise_and_end_with_training(wrong):
    with pytest.raises(RMRError, match="rising steps from 1"):
        check_checkpoints(wrong)
    with pytest.raises(RMRError, match="that end at 9, got"):
        run(linear(), checkpoints=(4, 8))


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch": 0}, {"unroll": 0}, {"learning_rate": 0.0}]
)
def test_a_phase_of_nothing_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(RMRError, match=f"in Phase, got {name}=0"):
        Phase(**({"steps": 3} | wrong))
