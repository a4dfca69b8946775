"""`rmr-gym balls films`: what every preset of the bouncing balls looks like."""

from pathlib import Path

from rmr_gym.commands.console import out_console
from rmr_gym.core.errors import RMRError

SHEET = 16
"""Frames on a sheet."""


def films(
    out: Path = Path("runs/films"),
    presets: tuple[str, ...] = ("all",),
    frames: int = 60,
    size: int = 160,
    seed: int = 0,
) -> None:
    """Play an episode of each preset; write a film (GIF) for people and a sheet of what models see.

    Args:
        out: Folder of PRESET.gif and PRESET.png.
        presets: Names, or all.
        frames: Steps of the episode; actions of the pushed balls are drawn at random.
        size: Height and width of the film in pixels.
        seed: Of the world and of the actions.
    """
    from rmr_gym.analysis.films import write_film, write_sheet  # noqa: PLC0415
    from rmr_gym.core.errors import unknown_name  # noqa: PLC0415
    from rmr_gym.envs.balls.config import PRESETS  # noqa: PLC0415

    if frames < 1 or size < 1:
        raise RMRError(f"frames and size must be 1 or more, got {frames} and {size}")
    chosen = list(PRESETS) if presets == ("all",) else presets
    for preset in chosen:
        if preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
    for preset in chosen:
        seen, shown, fps = play(preset, frames, size, seed)
        each = [seen[k * (len(seen) - 1) // (SHEET - 1)] for k in range(SHEET)]
        write_film(out / f"{preset}.gif", shown, fps)
        write_sheet(out / f"{preset}.png", each)
        out_console.print(
            f"written: {out / preset}.gif and .png", markup=False, soft_wrap=True, highlight=False
        )


def play(preset: str, frames: int, size: int, seed: int = 0) -> tuple[list, list, float]:
    """Play one episode; return what models see, what people see, and the frames a second."""
    import gymnasium  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from rmr_gym.envs.balls.config import PRESETS  # noqa: PLC0415

    env = gymnasium.make(
        PRESETS[preset].env_id, render_mode="rgb_array", render_size=size, max_episode_steps=frames
    )
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    seen, shown, over = [observation["pixels"]], [np.asarray(env.render())], False
    while not over:
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append(observation["pixels"])
        shown.append(np.asarray(env.render()))
        over = terminated or truncated
    fps = float(env.metadata["render_fps"])
    env.close()
    return seen, shown, fps
