"""Changing settings by name: what is changed, what is refused and told."""

from dataclasses import dataclass, field

import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.models.world.rims import RIMSizes
from rmr_gym.protocol.settings import altered
from rmr_gym.protocol.world_model_presets import WORLD_PRESETS


@dataclass(frozen=True)
class Outer:
    name: str = "outer"
    rate: float = 1e-3
    widths: tuple[int, ...] = (2, 4)
    shared: bool = False
    inner: RIMSizes = field(default_factory=RIMSizes)


def test_only_what_is_named_changes():
    changes = {"rate": 1, "widths": [3], "shared": True, "inner.active": 6, "inner.dynamics": "gru"}
    inner = RIMSizes(active=6, dynamics="gru")
    assert altered(Outer(), changes) == Outer("outer", 1.0, (3,), shared=True, inner=inner)
    assert isinstance(altered(Outer(), {"rate": 1}).rate, float)
    assert altered(Outer(), {}) == Outer()


def test_settings_that_only_go_together_are_changed_together():
    changed = altered(WORLD_PRESETS["smoke"], {"last": 7, "length": 8})
    assert (changed.last, changed.length) == (7, 8)
    with pytest.raises(RMRError, match="fewer last predictions"):
        altered(WORLD_PRESETS["smoke"], {"last": 7})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rat": 1.0}, "unknown setting 'sizes.rat': did you mean 'sizes.rate'"),
        ({"inner.activ": 1}, "did you mean 'sizes.inner.active'"),
        ({"name": "other"}, "unknown setting 'sizes.name'"),
        ({"rate": "fast"}, "a value of type float for sizes.rate, which is 0.001, got 'fast'"),
        ({"rate": True}, "a value of type float"),
        ({"shared": 1}, "a value of type bool"),
        ({"widths": 3}, "a list of its kind for sizes.widths"),
        ({"widths": []}, "a list of its kind for sizes.widths"),
        ({"widths": ["3"]}, "a value of type int for sizes.widths"),
        ({"inner": 3}, "got sizes.inner itself: choose one of sizes.inner.rims, "),
        ({"inner.processor": 3}, "sizes.inner.processor, which has none"),
        ({"rate.half": 3}, "expected sizes.rate to be set as a whole, got sizes.rate.half"),
        ({"inner.active": 7}, "expected 1 to 6 active RIMs out of 6, got 7"),
    ],
)
def test_what_cannot_be_set_is_told(changes, message):
    with pytest.raises(RMRError, match=message):
        altered(Outer(), changes, "sizes.")
