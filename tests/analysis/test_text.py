import pytest

from rmr_gym.analysis import text

NAN = float("nan")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (text.number(0.12345), "0.123"),
        (text.number(NAN), "–"),
        (text.signed(0.0123), "+0.012"),
        (text.signed(-0.0123), "−0.012"),
        (text.signed(-0.0001), "0.000"),
        (text.spread(0.8, 0.01), "0.800 ± 0.010"),
        (text.spread(0.8, NAN), "0.800"),
        (text.spread(NAN, NAN), "–"),
        (text.interval(-0.1, 0.2), "−0.100 to +0.200"),
        (text.interval(NAN, NAN), "–"),
        (text.p_value(0.03125), "0.031"),
        (text.p_value(1e-6), "<0.001"),
        (text.p_value(NAN), "–"),
        (text.duration(2.34), "2.3 s"),
        (text.duration(59.7), "1 min 00 s"),
        (text.duration(252.0), "4 min 12 s"),
        (text.duration(11100.0), "3 h 05 min"),
        (text.listing(["a"]), "a"),
        (text.listing(["a", "b", "c"]), "a, b and c"),
        (text.named(["a", "b"]), " (a and b)"),
        (text.named([]), ""),
        (text.named(list("abcdefg")), ""),
    ],
)
def test_shown_as_text(shown, expected):
    assert shown == expected
