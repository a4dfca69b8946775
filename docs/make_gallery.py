"""Draw the films of the gallery: an episode of every registered environment, and some wrappers.

Run it as ``python docs/make_gallery.py``, from the root of the repository; it takes a minute.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.agents.players.graded import networks, select_players
from rmr_gym.agents.sb3.worlds import AgentConfig, make_games
from rmr_gym.commands.pictures import play
from rmr_gym.core.seeding import generator
from rmr_gym.envs.atari.games import GAMES
from rmr_gym.envs.balls.config import PRESETS, distinct_colors
from rmr_gym.report.pictures import enlarged
from rmr_gym.wrappers.features import RMRObservationWrapper
from rmr_gym.wrappers.views import Curtain, RandomCrops

FILMS = Path(__file__).parent / "pictures" / "gallery"
FRAMES, COLOURS, PLAYER = 30, 32, "high-e05-h00"
LATER = {"Berzerk": 150, "Hero": 100, "MsPacman": 90, "Qbert": 60, "Venture": 80}
"""Steps before the film begins, where a game opens with a still picture; 40 elsewhere."""


def episode(env: gym.Env[Any, Any], game: str | None = None, later: int = 0) -> Iterator[Any]:
    """Yield what an environment shows while a good player of the game, or chance, plays."""
    choose = lambda _: env.action_space.sample()  # noqa: E731
    if game:
        (player,) = select_players([PLAYER])
        choose = player.policy(generator(0, "gallery"), networks(game).get(player.skill))
    env.action_space.seed(0)
    observation, info = env.reset(seed=0)
    for step in range(later + FRAMES):
        if step >= later:
            yield observation, info
        observation, _, terminated, truncated, info = env.step(choose(observation))
        if terminated or truncated:
            observation, info = env.reset()
    env.close()


def game_frame(observation: Any) -> np.ndarray:
    """Return the screen and, to its right, the RAM of the same instant, 8 bytes a row."""
    memory = (observation["ram"] >> 4 << 4).reshape(16, 8)  # 16 grays make small films
    cells = np.kron(memory, np.ones((13, 8), np.uint8))[..., None].repeat(3, 2)
    framed = np.full((len(observation["pixels"]), 4 + cells.shape[1], 3), 255, np.uint8)
    top = (len(framed) - len(cells)) // 2
    framed[top : top + len(cells), 4:] = cells
    return np.hstack([observation["pixels"], framed])


def crops_frame(observation: Any, size: int = 48) -> np.ndarray:
    """Return the crops of a frame at their places, gray where nothing is seen."""
    half, picture = observation["crops"].shape[1] // 2, np.full((size, size, 3), 90, np.uint8)
    canvas = np.pad(picture, ((half, half), (half, half), (0, 0)))
    for crop, (x, y) in zip(observation["crops"], observation["positions"], strict=True):
        row, column = round((1 - y) / 2 * size - 0.5), round((1 + x) / 2 * size - 0.5)
        canvas[row : row + len(crop), column : column + len(crop)] = crop
    return enlarged(canvas[half : half + size, half : half + size], 3)


def owners_frame(masks: np.ndarray) -> np.ndarray:
    """Return who owns which pixel, a colour a ball."""
    colours = np.array([(0, 0, 0), *distinct_colors(masks.max())], np.uint8)
    return enlarged(colours[masks], 2)


def games() -> Iterator[tuple[str, list[np.ndarray], float]]:
    """Yield name, frames and rate of a film a game."""
    for game in GAMES:
        # Asteroids draws its objects in every other frame, which a frame skip of 4 never shows
        env = gym.make(GAMES[game].env_id, pixels="rgb", max_pool=game == "Asteroids")
        frames = [game_frame(seen) for seen, _ in episode(env, game, LATER.get(game, 40))]
        yield game, frames, 15.0


def balls() -> Iterator[tuple[str, list[np.ndarray], float]]:
    """Yield a film a preset of bouncing balls, as people see it."""
    for preset in PRESETS:
        _, rendered, fps = play(preset, FRAMES, 120)
        yield preset, rendered, fps


def variants() -> Iterator[tuple[str, list[np.ndarray], float]]:
    """Yield what wrappers and options make of environments."""
    env = Curtain(gym.make("rmr/Pong-v0", pixels="rgb"), sides=(0.3, 0.5))
    yield "curtain", [game_frame(seen) for seen, _ in episode(env, "Pong", 40)], 15.0
    env = RMRObservationWrapper(gym.make("rmr/Pong-v0"), "pong", output="frames", keep=("ram",))
    seen = [seen["frames"][0, ..., None] for seen, _ in episode(env, "Pong", 40)]
    yield "encoder_frames", [enlarged(frame, 2) for frame in seen], 15.0
    env = RandomCrops(gym.make("rmr/S2RMBalls3-v0"))
    yield "crops", [crops_frame(seen) for seen, _ in episode(env)], 20.0
    env = gym.make("rmr/BouncingBalls-v0", masks=True)
    yield "masks", [owners_frame(info["masks"]) for _, info in episode(env)], 20.0


def rooms() -> Iterator[tuple[str, list[np.ndarray], float]]:
    """Yield a film of three rooms of BabyAI side by side, in which an agent turns and walks."""
    rng, shown = generator(0, "gallery"), []
    names = (f"BabyAI-GoToRedBall{kind}-v0" for kind in ("GreyN3", "GreyN12", "N12"))
    games = [make_games(AgentConfig(name, "view"), copies=1, learning=False) for name in names]
    for game in games:
        game.seed(0)
        game.reset()
    for _ in range(FRAMES):
        shown.append(np.hstack([game.get_images()[0][::2, ::2] for game in games]))
        for game in games:
            game.step(rng.choice(3, 1, p=(0.2, 0.2, 0.6)))
    yield "minigrid", shown, 4.0


def battle_frame(pixels: np.ndarray) -> np.ndarray:
    """Return a battle with friends in blue and enemies in red, paler where they are hurt."""
    friends, enemies, health = (pixels[..., k : k + 1] for k in range(3))
    hurt = 160 - health // 51 * 32  # six shades, of 0 to 160
    blue, red = (np.concatenate([*rest], axis=-1) for rest in (
        (hurt, hurt, np.full_like(hurt, 255)), (np.full_like(hurt, 255), hurt, hurt)
    ))  # fmt: skip
    picture = np.where(friends > 0, blue, np.where(enemies > 0, red, 30)).astype(np.uint8)
    return enlarged(picture, 6)


def battles() -> Iterator[tuple[str, list[np.ndarray], float]]:
    """Yield a film of a battle."""
    env = gym.make("rmr/Battles-v0", team=12)
    yield "battles", [battle_frame(seen["pixels"]) for seen, _ in episode(env)], 6.0


def train_frame(pixels: np.ndarray) -> np.ndarray:
    """Return trains in red on gray rails, whose targets are yellow."""
    colours = ((0, (220, 40, 40)), (1, (240, 200, 60)), (2, (130, 130, 130)))
    picture = np.full((*pixels.shape[:2], 3), 30, np.uint8)
    for channel, colour in colours[::-1]:
        picture[pixels[..., channel] > 0] = colour
    return enlarged(picture, 6)


def trains() -> Iterator[tuple[str, list[np.ndarray], float]]:
    """Yield a film of trains."""
    env = gym.make("rmr/Trains-v0", trains=10)
    yield "trains", [train_frame(seen["pixels"]) for seen, _ in episode(env)], 6.0


def write(name: str, frames: list[np.ndarray], fps: float) -> None:
    """Write a film whose frames share one palette of few colours."""
    height, width = frames[0].shape[:2]
    strip = Image.fromarray(np.concatenate([enlarged(frame, 1) for frame in frames]))
    strip = strip.quantize(COLOURS, dither=Image.Dither.NONE)
    pictures = [strip.crop((0, k * height, width, (k + 1) * height)) for k in range(len(frames))]
    timing = {"duration": round(1000 / fps), "loop": 0}
    FILMS.mkdir(exist_ok=True)
    pictures[0].save(FILMS / f"{name}.gif", save_all=True, append_images=pictures[1:], **timing)


def main() -> None:
    for films in (games, balls, variants, rooms, battles, trains):
        for name, frames, fps in films():
            write(name, frames, fps)


if __name__ == "__main__":
    main()
