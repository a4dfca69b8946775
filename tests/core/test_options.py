"""Options by name: what is overridden, what is refused and told."""

from dataclasses import dataclass, field

import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.core.options import has_option, overridden
from rmr_gym.models.world.rims import RIMSizes


@dataclass(frozen=True)
class Outer:
    name: str = "outer"
    rate: float = 1e-3
    widths: tuple[int, ...] = (2, 4)
    shared: bool = False
    inner: RIMSizes = field(default_factory=RIMSizes)


def test_only_what_is_named_overrides():
    overrides = {
        "rate": 1,
        "widths": [3],
        "shared": True,
        "inner.active": 6,
        "inner.dynamics": "gru",
    }
    inner = RIMSizes(active=6, dynamics="gru")
    assert overridden(Outer(), overrides) == Outer("outer", 1.0, (3,), shared=True, inner=inner)
    assert isinstance(overridden(Outer(), {"rate": 1}).rate, float)
    assert overridden(Outer(), {}) == Outer()


def test_options_that_only_go_together_are_overridden_together():
    fewer = {"inner.rims": 3, "inner.active": 3}
    assert overridden(Outer(), fewer).inner == RIMSizes(rims=3, active=3)
    with pytest.raises(RMRError, match="active RIMs out of 3"):
        overridden(Outer(), {"inner.rims": 3})


def test_options_inside_options_are_known():
    assert has_option(Outer(), "inner.active")
    assert not has_option(Outer(), "inner.activ")
    assert not has_option(Outer(), "rate.half")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rat": 1.0}, "unknown option 'sizes.rat': did you mean 'sizes.rate'"),
        ({"inner.activ": 1}, "did you mean 'sizes.inner.active'"),
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
def test_what_cannot_be_set_is_told(overrides, message):
    with pytest.raises(RMRError, match=message):
        overridden(Outer(), overrides, "sizes.")
