import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import AtariModel
from rmr_gym.protocol.config import Pretraining
from rmr_gym.protocol.pretrain import pretrain
from rmr_gym.protocol.stacked_pretrain import AbstractRun, pretrain_stack
from rmr_gym.protocol.store import Artifact
from rmr_gym.protocol.training import DivergedError
from rmr_gym.protocol.transfer_donors import RandomWorld

CONFIG = Pretraining(steps=3, batch=6, checkpoints=(2, 3), validation_rows=20)


@pytest.fixture(scope="module")
def runs():
    """Two worlds; the first with two seeds."""
    found = []
    for world, seed in ((0, 0), (1, 0), (0, 1)):
        if world == 0 and seed == 1:
            found.append(found[0]._replace(seed=1))
            continue
        drawn = RandomWorld.draw(np.random.default_rng(world))
        training, validation = (
            drawn.record(np.random.default_rng(n), 2 + world, 15) for n in range(2)
        )
        found.append(AbstractRun(training, validation, np.arange(4 + world), seed))
    return found


@pytest.mark.parametrize("core", ["mpnn", "deep_sets", "mlp"])
def test_a_stack_of_games_and_seeds_equals_the_runs_one_by_one(runs, core):
    model = AtariModel(dim=4, core=core)
    for run, stacked in zip(runs, pretrain_stack(CONFIG, model, runs), strict=True):
        assert isinstance(stacked, Artifact)
        alone = pretrain(CONFIG, model, run.training, run.validation, run.slots, seed=run.seed)
        assert stacked.record["stacked"]["runs"] == len(runs)
        pairs = zip(stacked.record["curve"], alone.record["curve"], strict=True)
        assert all(one == pytest.approx(other, rel=1e-5) for one, other in pairs)
        for one, other in zip(stacked.record["rows"], alone.record["rows"], strict=True):
            assert one == pytest.approx(other, abs=2e-3)
        assert stacked.tensors.keys() == alone.tensors.keys()
        for name, tensor in alone.tensors.items():
            # Adam moves a weight whose gradient is all rounding by its whole rate: few may differ.
            difference = (stacked.tensors[name] - tensor).abs()
            assert difference.max() <= 2.1e-3 * CONFIG.steps, name
            assert difference.mean() <= 1e-5, name


def test_a_run_that_is_no_number_ends_alone(runs):
    bits = runs[1].training.bits.astype(np.float32)
    bits[:] = np.nan
    broken = runs[1]._replace(training=runs[1].training._replace(bits=bits))
    model = AtariModel(dim=4, core="none")
    first = [each._replace(training=runs[0].training) for each in (runs[0], runs[2])]
    found = pretrain_stack(CONFIG, model, [first[0], broken, first[1]])
    assert [type(each) for each in found] == [Artifact, DivergedError, Artifact]


def test_nothing_is_no_stack():
    with pytest.raises(RMRError, match="got none"):
        pretrain_stack(CONFIG, AtariModel(dim=4), [])
