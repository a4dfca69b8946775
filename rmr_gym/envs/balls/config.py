"""What a world of bouncing balls is made of, checked, and the worlds of the papers by name."""

import colorsys
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from rmr_gym.core.errors import RMRError, known_name

Kind = tuple[float, float]
Color = tuple[int, int, int]

FRAMES = ("rgb", "binary")
EXTRAS = ("velocities", "radii", "masses", "presence")
SMALLEST_RADIUS = 0.03
_MOST_BALLS = 254
_PIXELS = (8, 4096)
_LONGEST_TIMESTEP = 0.0025
_FASTEST_PACE = 2.6
_GRAY: Color = (128, 128, 128)
_WHOLE = ("balls", "colors", "resolution", "masks", "render_size")


@dataclass(frozen=True)
class BallsConfig:
    """A world of balls in the box [-1, 1] x [-1, 1] and how it is shown.

    Length unit: half the side of the box. Masses count relative to each other.

    Args:
        balls: Number of balls, or (fewest, most) drawn uniformly each episode; arrays then have
            ``most`` rows and a presence mask says which are real.
        radii: One radius for all balls, or one a ball; at least 0.03.
        masses: One mass for all balls, or one a ball.
        kinds: Rows (radius, mass); each ball draws its kind uniformly each episode. Takes the place
            of radii and masses.
        speeds: (lowest, highest) speed at the start of an episode, in units a second, drawn
            uniformly for each ball.
        colors: ``"distinct"`` (ball k always has hue k), ``"white"``, or RGB triples for the balls
            in turn, the last one for all that follow.
        frames: ``"rgb"`` (3 channels, anti-aliased) or ``"binary"`` (1 channel, 0 or 255).
        resolution: Height and width of the frames in pixels.
        fps: Frames, that is steps, a second.
        curtain: (smallest, largest) side of a rectangle of background colour that hides part of the
            frame, as a fraction of the frame; sides and place are drawn each episode. None for no
            curtain.
        fixed_ball: Radius of an immovable ball in the middle of the box; None for no such ball.
        push: Impulse of one push of the agent, in mass x units a second; 0 for a passive world.
        observe: More entries of the observation: any of ``velocities``, ``radii``, ``masses``,
            ``presence``.
        masks: Whether info holds ``masks``, the ball that owns each pixel.
        renderer: ``"raster"`` (needs no graphics library) or ``"mujoco"`` (OpenGL through EGL or
            OSMesa).
        render_size: Height and width of what ``render`` shows of a world, in pixels.

    Raises:
        RMRError: A value that cannot be, alone or beside the others. That the balls fit into the
            box is checked when a world is made (`rmr_gym.envs.balls.physics.check_fit`).
    """

    balls: int | tuple[int, int] = 10
    radii: float | tuple[float, ...] = 0.15
    masses: float | tuple[float, ...] = 1.0
    kinds: tuple[Kind, ...] = ()
    speeds: tuple[float, float] = (0.5, 1.5)
    colors: str | tuple[Color, ...] = "distinct"
    frames: str = "rgb"
    resolution: int = 64
    fps: float = 20.0
    curtain: tuple[float, float] | None = None
    fixed_ball: float | None = None
    push: float = 0.0
    observe: tuple[str, ...] = ()
    masks: bool = False
    renderer: str = "raster"
    render_size: int = 480

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            check(getattr(self, name))
        _check_together(self)

    @property
    def fewest(self) -> int:
        """Smallest number of balls in an episode."""
        return _both(self.balls)[0]

    @property
    def most(self) -> int:
        """Largest number of balls in an episode, the number of rows in every array."""
        return _both(self.balls)[1]

    @cached_property
    def extras(self) -> tuple[str, ...]:
        """Entries of the observation beside state and pixels."""
        varying = self.fewest < self.most
        return tuple(k for k in EXTRAS if k in self.observe or (k == "presence" and varying))

    @cached_property
    def all_kinds(self) -> tuple[Kind, ...]:
        """The kinds that balls are drawn from, or the (radius, mass) of each ball in turn."""
        both = _repeated(self.radii, self.most), _repeated(self.masses, self.most)
        return self.kinds or tuple(zip(*both, strict=True))

    @cached_property
    def largest_radius(self) -> float:
        """Radius of the largest ball there can be, the fixed one included."""
        return max(*(radius for radius, _ in self.all_kinds), self.fixed_ball or 0.0)

    @cached_property
    def mass_ratio(self) -> float:
        """Mass of the heaviest ball over that of the lightest."""
        masses = [mass for _, mass in self.all_kinds]
        return max(masses) / min(masses)

    @property
    def top_speed(self) -> float:
        """Upper bound of any ball's speed: the lightest ball with all the energy, and 1%."""
        return 1.01 * self.speeds[1] * math.sqrt(1 + (self.most - 1) * self.mass_ratio)

    @cached_property
    def substeps(self) -> int:
        """Physics steps a frame: of 0.0025 s, shorter where balls are faster than 2.6 a second.

        Fast is meant as the root mean square speed of the lightest ball when all kinds have the
        same energy, as in a gas. Two balls overlap by what they close in on each other in one
        physics step; at this limit a closing speed 4.5 deviations out makes an overlap of 0.03.
        """
        low, high = self.speeds
        pace = math.sqrt((low * low + low * high + high * high) / 3 * self.mass_ratio)
        longest = _LONGEST_TIMESTEP * min(1.0, _FASTEST_PACE / pace)
        return math.ceil(1 / (self.fps * longest) - 1e-9)

    @property
    def timestep(self) -> float:
        """Seconds a physics step."""
        return 1 / (self.fps * self.substeps)

    def palette(self) -> list[Color]:
        """Return the colour of each ball; a last row, gray, for the fixed ball."""
        if self.frames == "binary" or self.colors == "white":
            return [(255, 255, 255)] * (self.most + 1)
        colors = distinct_colors(self.most) if isinstance(self.colors, str) else list(self.colors)
        return [*colors, *colors[-1:] * (self.most - len(colors)), _GRAY]


def distinct_colors(count: int) -> list[Color]:
    """Return hues evenly around the colour circle, light and full ones in turn."""
    hues = (colorsys.hsv_to_rgb(k / count, 0.5 if k % 2 else 0.9, 1.0) for k in range(count))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in hues]


def _repeated(values: float | tuple[float, ...], count: int) -> tuple[float, ...]:
    """Repeat a single value for every ball."""
    values = values if isinstance(values, tuple) else (values,)
    return values * count if len(values) == 1 else values


def check_sides(sides: Any) -> None:
    """Make sure of a curtain's (smallest, largest) side.

    Raises:
        RMRError: They are not two fractions of the frame in ascending order.
    """
    what = "the curtain's (smallest, largest) side as fractions of the frame, above 0 and at most 1"
    _expect(lambda pair: _ascending(pair) and pair[1] <= 1, what, sides)


def _expect(fits: Callable[[Any], bool], what: str, value: Any) -> None:
    if not fits(value):
        raise RMRError(f"expected {what}, found {value!r}")


def _all(fits: Callable[[Any], bool], values: Any) -> bool:
    return all(map(fits, values)) if isinstance(values, tuple) else fits(values)


def _both(value: Any) -> Any:
    """Return (lowest, highest) of what may be given as one number for both."""
    return value if isinstance(value, tuple) else (value, value)


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _ascending(pair: Any) -> bool:
    two = isinstance(pair, tuple) and len(pair) == 2 and all(map(_positive, pair))
    return two and pair[0] <= pair[1]


def _is_number(balls: Any) -> bool:
    whole = _all(lambda number: type(number) is int, balls)
    return whole and _ascending(_both(balls)) and _both(balls)[1] <= _MOST_BALLS


def _is_size(value: Any) -> bool:
    return type(value) is int and _PIXELS[0] <= value <= _PIXELS[1]


def _is_radius(value: Any) -> bool:
    return _positive(value) and SMALLEST_RADIUS <= value < 1


def _is_kind(row: Any) -> bool:
    pair = isinstance(row, tuple) and len(row) == 2
    return pair and _is_radius(row[0]) and _positive(row[1])


def _is_color(value: Any) -> bool:
    triple = isinstance(value, tuple) and len(value) == 3
    return triple and all(part in range(256) for part in value)


def _check_colors(value: Any) -> None:
    if isinstance(value, str):
        known_name("colors", value, ("distinct", "white"))
    else:
        what = "colors to be one triple a ball (red, green, blue) of whole numbers from 0 to 255"
        _expect(lambda colors: colors and _all(_is_color, colors), what, value)


_RADIUS = f"from {SMALLEST_RADIUS} to below 1 (the box is 2 wide)"
_SIZE = f"to be a whole number of pixels from {_PIXELS[0]} to {_PIXELS[1]}"
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "balls": (_is_number, f"balls to be a number from 1 to {_MOST_BALLS} or (fewest, most)"),
    "radii": (partial(_all, _is_radius), f"radius {_RADIUS}"),
    "masses": (partial(_all, _positive), "a mass above 0"),
    "kinds": (partial(_all, _is_kind), f"rows (radius, mass) of radius {_RADIUS}, a mass above 0"),
    "speeds": (_ascending, "one speed or (lowest, highest), both above 0 and in this order"),
    "resolution": (_is_size, f"resolution {_SIZE}"),
    "fps": (_positive, "fps, frames a second, above 0"),
    "fixed_ball": (lambda radius: radius is None or _is_radius(radius), f"fixed_ball {_RADIUS}"),
    "push": (lambda push: push == 0 or _positive(push), "push, an impulse, of 0 (none) or above"),
    "render_size": (_is_size, f"render_size {_SIZE}"),
}
_CHECKS: dict[str, Callable[[Any], Any]] = {
    **{name: partial(_expect, *rule) for name, rule in _RULES.items()},
    "colors": _check_colors,
    "frames": partial(known_name, "frames", choices=FRAMES),
    "curtain": lambda sides: sides is None or check_sides(sides),
    "observe": lambda names: [known_name("entry of observe", name, EXTRAS) for name in names],
    "masks": bool,
    "renderer": partial(known_name, "renderer", choices=("raster", "mujoco")),
}


def _check_together(config: BallsConfig) -> None:
    """Check what depends on several options."""

    def one_each(values: Any) -> bool:
        return len(_repeated(values, config.most)) == config.most

    for name in ("radii", "masses"):
        what = f"one value of {name} for all balls or one for each of {config.most}"
        _expect(one_each, what, getattr(config, name))
    colors = 0 if isinstance(config.colors, str) else len(config.colors)
    _expect(config.most.__ge__, f"colors for at most {config.most} balls", colors)
    what = "at least 2 balls in a pushed world (the agent's and its target)"
    _expect(lambda _: not config.push or config.fewest >= 2, what, config.balls)


@dataclass(frozen=True)
class Preset:
    """One row: the environment id, the steps of an episode, the world."""

    env_id: str
    steps: int
    config: BallsConfig


_LIGHT_AND_HEAVY = ((0.16, 1.0), (0.2, 6.0))
_AGENT, _TARGET, _OTHER = (255, 255, 255), (230, 60, 50), (70, 110, 200)
_PUSHED = BallsConfig(balls=5, push=0.5, observe=("velocities",), colors=(_AGENT, _TARGET, _OTHER))
_RNEM = BallsConfig(balls=4, kinds=_LIGHT_AND_HEAVY, frames="binary")
_RNEM_CURTAIN = BallsConfig(balls=3, radii=0.2, frames="binary", curtain=(0.3, 0.5))
_S2RM = BallsConfig(balls=3, radii=0.17, frames="binary", resolution=48, fixed_ball=0.17)

PRESETS: dict[str, Preset] = {
    "rmr": Preset("rmr/BouncingBalls-v0", 100, BallsConfig()),
    "pushed": Preset("rmr/PushedBalls-v0", 200, _PUSHED),
    "rnem-4": Preset("rmr/RNEMBalls4-v0", 50, _RNEM),
    "rnem-6-8": Preset("rmr/RNEMBalls6to8-v0", 50, replace(_RNEM, balls=(6, 8))),
    "rnem-curtain": Preset("rmr/RNEMBallsCurtain-v0", 50, _RNEM_CURTAIN),
    **{
        f"s2rm-{n}": Preset(f"rmr/S2RMBalls{n}-v0", 99, replace(_S2RM, balls=n))
        for n in range(1, 7)
    },
}
"""The worlds that the papers use, by name."""


def configure(preset: str, options: Mapping[str, Any]) -> BallsConfig:
    """Return the config of a preset with some options changed.

    Args:
        preset: A name of `PRESETS`.
        options: Fields of `BallsConfig`; lists and arrays do as well as tuples. Given radii or
            masses take the place of the preset's kinds.

    Raises:
        RMRError: An unknown preset or option, or a world that cannot be.
    """
    base = PRESETS[known_name("preset", preset, PRESETS)].config
    changes = {name: _parsed(name, value) for name, value in options.items()}
    sizes = [name for name in ("radii", "masses") if name in options]
    config = replace(base, **({"kinds": ()} if sizes else {}) | changes)
    if sizes and config.kinds:
        raise RMRError(
            f"expected either kinds or {' and '.join(sizes)}, found both: leave one of them out"
        )
    return config


def _parsed(name: str, value: Any) -> Any:
    """Return the value of an option as a config holds it, checked."""
    check = _CHECKS[known_name("option", name, _CHECKS)]
    value = _plain(value, name in _WHOLE)
    if name == "speeds":
        value = _both(value)
    if name == "observe" and isinstance(value, str):
        value = (value,)
    check(value)
    return value


def _plain(value: Any, whole: bool) -> Any:
    """Turn lists (from JSON) and arrays into tuples, numpy's numbers into Python's."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return tuple(_plain(part, whole) for part in value)
    return value if whole or type(value) is not int else float(value)
