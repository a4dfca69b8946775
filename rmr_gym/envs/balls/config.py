"""What a world of bouncing balls is made of, and what follows from it."""

import colorsys
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import UInt8

Kind = tuple[float, float]
Color = tuple[int, int, int]

EXTRAS = ("velocities", "radii", "masses", "presence")
_LONGEST_TIMESTEP = 0.0025
_FASTEST_PACE = 2.6
_GRAY: Color = (128, 128, 128)


@dataclass(frozen=True)
class BallsConfig:
    """A world of balls in the box [-1, 1] x [-1, 1] and how it is shown.

    `rmr_gym.envs.balls.presets.configure` makes it from what a user gives, and checks that.

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

    @property
    def fewest(self) -> int:
        """Smallest number of balls in an episode."""
        return self.balls if isinstance(self.balls, int) else self.balls[0]

    @property
    def most(self) -> int:
        """Largest number of balls in an episode, the number of rows in every array."""
        return self.balls if isinstance(self.balls, int) else self.balls[1]

    @cached_property
    def extras(self) -> tuple[str, ...]:
        """Entries of the observation beside state and pixels."""
        varying = self.fewest < self.most
        return tuple(k for k in EXTRAS if k in self.observe or (k == "presence" and varying))

    @cached_property
    def all_kinds(self) -> tuple[Kind, ...]:
        """The kinds that balls are drawn from, or the (radius, mass) of each ball in turn."""
        return self.kinds or tuple(
            zip(_each(self.radii, self.most), _each(self.masses, self.most), strict=True)
        )

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

    def palette(self) -> UInt8[np.ndarray, "slots 3"]:
        """Colour of each ball; a last row, gray, for the fixed ball."""
        if self.frames == "binary" or self.colors == "white":
            return np.full((self.most + 1, 3), 255, np.uint8)
        colors = distinct_colors(self.most) if isinstance(self.colors, str) else list(self.colors)
        colors += colors[-1:] * (self.most - len(colors))
        return np.array([*colors, _GRAY], np.uint8)


def distinct_colors(count: int) -> list[Color]:
    """Return hues evenly around the colour circle, light and full ones in turn."""
    colors = []
    for k in range(count):
        rgb = colorsys.hsv_to_rgb(k / count, 0.5 if k % 2 else 0.9, 1.0)
        colors.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return colors


def _each(values: float | tuple[float, ...], count: int) -> tuple[float, ...]:
    """Repeat a single value for every ball."""
    if not isinstance(values, tuple):
        return (values,) * count
    return values * count if len(values) == 1 else values
