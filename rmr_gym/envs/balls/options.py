"""The options of a bouncing-balls world as users give them, checked one by one and together."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.envs.balls.config import EXTRAS, BallsConfig, Color, Kind
from rmr_gym.envs.balls.start import SMALLEST_RADIUS, draw_positions

FRAMES = ("rgb", "binary")
COLORS = ("distinct", "white")
_MOST_BALLS = 254
_FULLEST = 0.5
_PIXELS = (8, 4096)


class BallsOptions(TypedDict, total=False):
    """Fields of `rmr_gym.envs.balls.config.BallsConfig`; those left out come from the preset."""

    balls: int | Sequence[int]
    radii: float | Sequence[float]
    masses: float | Sequence[float]
    kinds: Sequence[Sequence[float]]
    speeds: float | Sequence[float]
    colors: str | Sequence[Sequence[int]]
    frames: str
    resolution: int
    fps: float
    curtain: Sequence[float] | None
    fixed_ball: float | None
    push: float
    observe: Sequence[str]
    masks: bool


def parse(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in the types of `BallsConfig`'s fields.

    Raises:
        RMRError: An unknown option, or a value that is wrong whatever the other options are.
    """
    for name in options:
        if name not in _PARSERS:
            raise unknown_name("option", name, _PARSERS)
    return {name: _PARSERS[name](_plain(value)) for name, value in options.items()}


def check_together(config: BallsConfig) -> None:
    """Check what depends on several options.

    Raises:
        RMRError: Lists of the wrong length, a push without a target, balls that do not fit.
    """
    for name in ("radii", "masses"):
        values = getattr(config, name)
        if isinstance(values, tuple) and len(values) not in (1, config.most):
            raise RMRError(
                f"expected one value of {name} for all balls or one for each of {config.most}, "
                f"found {len(values)}: {values!r}"
            )
    if not isinstance(config.colors, str) and len(config.colors) > config.most:
        raise RMRError(
            f"expected colors for at most {config.most} balls, found {len(config.colors)}"
        )
    if config.push and config.fewest < 2:
        raise RMRError(
            "expected at least 2 balls in a pushed world (the agent's and its target), "
            f"found {config.balls!r}"
        )
    _check_fit(config)


def parse_sides(sides: Any) -> tuple[float, float]:
    """Return a curtain's (smallest, largest) side.

    Raises:
        RMRError: They are not two fractions of the frame in ascending order.
    """
    if not _ascending(sides) or sides[1] > 1:
        raise RMRError(
            "expected the curtain's (smallest, largest) side as fractions of the frame, above 0 "
            f"and at most 1, found {sides!r}"
        )
    return float(sides[0]), float(sides[1])


def parse_pixels(name: str, value: Any) -> int:
    """Return the height and width of a picture.

    Raises:
        RMRError: It is no whole number of pixels that a picture can have.
    """
    low, high = _PIXELS
    if not _whole(value) or not low <= value <= high:
        raise RMRError(
            f"expected {name} to be a whole number of pixels from {low} to {high}, found {value!r}"
        )
    return value


def parse_choice(kind: str, value: Any, choices: Sequence[str]) -> str:
    """Return one of the choices.

    Raises:
        RMRError: It is none of them; the closest is named.
    """
    if value not in choices:
        raise unknown_name(kind, str(value), choices)
    return value


def _check_fit(config: BallsConfig) -> None:
    radii = [radius for radius, _ in config.all_kinds]
    crowd = np.array([max(radii)] * config.most if config.kinds else radii)
    fixed = config.fixed_ball or 0.0
    area = math.pi * float(np.sum(crowd**2) + fixed**2) / 4
    try:
        if area > _FULLEST:
            raise RMRError("too full")
        draw_positions(np.random.default_rng(0), crowd, fixed)
    except RMRError:
        raise RMRError(
            f"expected balls that fit into the box with room to move, found {config.most} of "
            f"radius up to {crowd.max():.3g} that cover {area:.0%} of it: take fewer or smaller "
            "balls"
        ) from None


def _balls(value: Any) -> int | tuple[int, int]:
    both = value if isinstance(value, tuple) else (value, value)
    whole = len(both) == 2 and all(map(_whole, both))
    if not whole or not 1 <= both[0] <= both[1] <= _MOST_BALLS:
        raise RMRError(
            f"expected balls to be a number from 1 to {_MOST_BALLS} or (fewest, most), "
            f"found {value!r}"
        )
    return value


def _radius(value: Any, name: str = "radius") -> float:
    if not _positive(value) or not SMALLEST_RADIUS <= value < 1:
        raise RMRError(
            f"expected {name} from {SMALLEST_RADIUS} to below 1 (the box is 2 wide), "
            f"found {value!r}"
        )
    return float(value)


def _fixed_ball(value: Any) -> float | None:
    return None if value is None else _radius(value, "fixed_ball")


def _mass(value: Any) -> float:
    if not _positive(value):
        raise RMRError(f"expected a mass above 0, found {value!r}")
    return float(value)


def _one_or_each(parser: Callable[[Any], float]) -> Callable[[Any], float | tuple[float, ...]]:
    def parse_values(values: Any) -> float | tuple[float, ...]:
        return tuple(map(parser, values)) if isinstance(values, tuple) else parser(values)

    return parse_values


def _kinds(rows: Any) -> tuple[Kind, ...]:
    if not isinstance(rows, tuple) or not all(isinstance(r, tuple) and len(r) == 2 for r in rows):
        raise RMRError(f"expected kinds to be rows (radius, mass), found {rows!r}")
    return tuple((_radius(radius), _mass(mass)) for radius, mass in rows)


def _speeds(value: Any) -> tuple[float, float]:
    speeds = value if isinstance(value, tuple) else (value, value)
    if not _ascending(speeds):
        raise RMRError(
            "expected one speed or (lowest, highest), both above 0 and in this order, "
            f"found {value!r}"
        )
    return float(speeds[0]), float(speeds[1])


def _colors(value: Any) -> str | tuple[Color, ...]:
    if isinstance(value, str):
        return parse_choice("colors", value, COLORS)
    triples = isinstance(value, tuple) and all(isinstance(c, tuple) and len(c) == 3 for c in value)
    if not triples or not value or any(p not in range(256) for c in value for p in c):
        raise RMRError(
            "expected colors to be one triple a ball (red, green, blue) of whole numbers from 0 "
            f"to 255, found {value!r}"
        )
    return tuple((int(red), int(green), int(blue)) for red, green, blue in value)


def _frames(value: Any) -> str:
    return parse_choice("frames", value, FRAMES)


def _resolution(value: Any) -> int:
    return parse_pixels("resolution", value)


def _fps(value: Any) -> float:
    if not _positive(value):
        raise RMRError(f"expected fps, frames a second, above 0, found {value!r}")
    return float(value)


def _curtain(value: Any) -> tuple[float, float] | None:
    return None if value is None else parse_sides(value)


def _push(value: Any) -> float:
    if value != 0 and not _positive(value):
        raise RMRError(f"expected push, an impulse, to be 0 (none) or above, found {value!r}")
    return float(value)


def _observe(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, tuple) else (value,)
    return tuple(parse_choice("entry of observe", name, EXTRAS) for name in names)


def _plain(value: Any) -> Any:
    """Turn lists (from JSON) and arrays into tuples, numpy's numbers into Python's."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _ascending(pair: Any) -> bool:
    two = isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_positive, pair))
    return two and pair[0] <= pair[1]


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "balls": _balls,
    "radii": _one_or_each(_radius),
    "masses": _one_or_each(_mass),
    "kinds": _kinds,
    "speeds": _speeds,
    "colors": _colors,
    "frames": _frames,
    "resolution": _resolution,
    "fps": _fps,
    "curtain": _curtain,
    "fixed_ball": _fixed_ball,
    "push": _push,
    "observe": _observe,
    "masks": bool,
}
