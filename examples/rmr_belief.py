"""RAM tracked from pixels and actions, beside the truth: bit F1 on the way, and a film.

Run it: `python examples/rmr_belief.py --game Breakout --film breakout.gif`.

In the film each cell is a bit of RAM, 4 bytes a row: green where it is right (bright: 1), red
where it is wrong, darker for bytes that hardly ever change. The left field reads each frame by
itself, the right one is the belief.
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.agents.players.graded import networks, select_players
from rmr_gym.core.metrics import bit_f1
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import ram_to_bits
from rmr_gym.domains.atari import frame_transform
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.report.pictures import enlarged, write_film
from rmr_gym.wrappers.features import RMRBeliefWrapper

RIGHT, WRONG, CELL, CAPTION = (40, 170, 80), (235, 50, 40), 12, 36


def play(game: str, belief: PretrainedEncoder, steps: int, start: str, name: str) -> dict:
    """Return screens, true bits, and bits as read off single frames and as believed."""
    options = {"pixels": "palette", "render_mode": "rgb_array"}
    env = RMRBeliefWrapper(
        gym.make(f"rmr/{game}-v0", **options), belief, start=start, keep=("ram", "pixels")
    )
    (player,), shrink = select_players([name]), frame_transform(84, 84)
    choose = player.policy(generator(0, "film"), networks(game).get(player.skill))
    (shown, _), met, over = env.reset(seed=0), [], False
    while not over and len(met) <= steps:
        frame = torch.from_numpy(shrink(shown["pixels"][None, ..., 0]))
        alone = (belief.encoder(frame) + belief.encoder.mean > 0.5)[0].numpy()
        met.append((env.render(), ram_to_bits(shown["ram"]) > 0, alone, shown["features"] > 0.5))
        shown, _, terminated, truncated, _ = env.step(choose(shown))
        over = terminated or truncated
    env.close()
    names = ("screens", "truth", "single frames", "belief")
    return {name: np.stack(part) for name, part in zip(names, zip(*met, strict=True), strict=True)}


def field(guess: np.ndarray, truth: np.ndarray, scored: list[int], title: str) -> np.ndarray:
    """Draw the bits of one instant under a title."""
    colour = np.where((guess == truth)[..., None], RIGHT, WRONG)
    colour = colour * np.where(truth, 1, 0.55)[..., None]
    dark = np.full(len(truth), 0.4)
    dark[scored] = 1
    cells = (colour * dark[:, None, None]).astype(np.uint8).reshape(32, 32, 3)
    picture = Image.new("RGB", (32 * CELL, CAPTION + 32 * CELL))
    picture.paste(Image.fromarray(enlarged(cells, CELL)), (0, CAPTION))
    ImageDraw.Draw(picture).text((2, 8), title, font=ImageFont.load_default(18))
    return np.asarray(picture)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--game", default="Breakout")
    parser.add_argument("--belief", help="folder or shipped name; default: the game's shipped one")
    parser.add_argument("--start", default="known", choices=["known", "unknown"])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--player", default="high-e05-h50")
    parser.add_argument("--film", help="a name that ends in .gif")
    options = parser.parse_args(arguments)
    belief = PretrainedEncoder.from_pretrained(options.belief or f"{options.game}_belief")
    met = play(options.game, belief, options.steps, options.start, options.player)
    scored, readers = belief.provenance["data"]["scored"], ("single frames", "belief")
    truth, frames = met["truth"], []
    for now, screen in enumerate(met["screens"]):
        past = slice(min(now, options.start == "known"), now + 1)  # a known start counts for none
        score = {
            name: bit_f1(met[name][past, scored], truth[past, scored]).micro_f1 for name in readers
        }
        if now % 25 == 0 or now == len(truth) - 1:
            print(f"step {now}: " + ", ".join(f"{n} {score[n]:.3f}" for n in readers))
        if options.film:
            titles = {name: f"{name}: bit F1 {score[name]:.3f}" for name in readers}
            fields = [field(met[name][now], truth[now], scored, titles[name]) for name in readers]
            gap = np.zeros((len(fields[0]), CELL, 3), np.uint8)
            frames.append(np.hstack([enlarged(screen, 2), gap, fields[0], gap, fields[1]]))
    if options.film:
        print(f"written: {write_film(Path(options.film), frames, fps=10.0)}")


if __name__ == "__main__":
    main()
