"""The worlds of bouncing balls that the papers use, by name, and their environment ids."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.config import BallsConfig
from rmr_gym.envs.balls.options import check_together, parse, parse_choice

_LIGHT_AND_HEAVY = ((0.16, 1.0), (0.2, 6.0))
_RNEM = BallsConfig(balls=4, kinds=_LIGHT_AND_HEAVY, frames="binary")
_S2RM = BallsConfig(balls=3, radii=0.17, frames="binary", resolution=48, fixed_ball=0.17)
_AGENT, _TARGET, _OTHER = (255, 255, 255), (230, 60, 50), (70, 110, 200)


@dataclass(frozen=True)
class Preset:
    """One row: the environment id, the steps of an episode, the world."""

    env_id: str
    steps: int
    config: BallsConfig


PRESETS: dict[str, Preset] = {
    "rmr": Preset("rmr/BouncingBalls-v0", 100, BallsConfig()),
    "pushed": Preset(
        "rmr/PushedBalls-v0",
        200,
        BallsConfig(
            balls=5,
            push=0.5,
            observe=("velocities",),
            colors=(_AGENT, _TARGET, _OTHER),
        ),
    ),
    "rnem-4": Preset("rmr/RNEMBalls4-v0", 50, _RNEM),
    "rnem-6-8": Preset("rmr/RNEMBalls6to8-v0", 50, replace(_RNEM, balls=(6, 8))),
    "rnem-curtain": Preset(
        "rmr/RNEMBallsCurtain-v0",
        50,
        BallsConfig(balls=3, radii=0.2, frames="binary", curtain=(0.3, 0.5)),
    ),
    **{
        f"s2rm-{n}": Preset(f"rmr/S2RMBalls{n}-v0", 99, replace(_S2RM, balls=n))
        for n in range(1, 7)
    },
}


def configure(preset: str, options: Mapping[str, Any]) -> BallsConfig:
    """Return the config of a preset with some options changed, checked.

    Args:
        preset: A name of `PRESETS`.
        options: Fields of `rmr_gym.envs.balls.config.BallsConfig`. Given radii or masses take the
            place of the preset's kinds.

    Raises:
        RMRError: An unknown preset or option, or a world that cannot be.
    """
    base = PRESETS[parse_choice("preset", preset, list(PRESETS))].config
    changes = parse(options)
    sizes = [name for name in ("radii", "masses") if name in changes]
    if sizes and changes.get("kinds"):
        raise RMRError(
            f"expected either kinds or {' and '.join(sizes)}, found both: leave one of them out"
        )
    if sizes:
        changes["kinds"] = ()
    config = replace(base, **changes)
    check_together(config)
    return config


def register_balls() -> None:
    """Register the environments of `PRESETS`, single and vector; mujoco is not imported by it."""
    for name, preset in PRESETS.items():
        if preset.env_id not in gym.registry:
            gym.register(
                id=preset.env_id,
                entry_point="rmr_gym.envs.balls.env:BouncingBallsEnv",
                vector_entry_point="rmr_gym.envs.balls.vector:BouncingBallsVectorEnv",
                max_episode_steps=preset.steps,
                kwargs={"preset": name},
            )
