"""RAM tracked from pixels and actions, beside the truth: bit F1 on the way, and a film.

Run it: `python examples/rmr_belief.py --game Breakout --film breakout.gif`.

In the film each cell is a bit of RAM, 4 bytes a row: green where it is right (bright: 1), red
where it is wrong, darker for bytes that hardly ever change. The left field reads the frames
without memory, the right one is the belief.
"""

import argparse
from pathlib import Path

from demo.grid import READERS, track
from demo.pictures import belief_frames

from rmr_gym.core.metrics import bit_f1
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.report.pictures import write_film


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--game", default="Breakout")
    parser.add_argument("--belief", help="folder or shipped name; default: the game's shipped one")
    parser.add_argument("--start", default="known", choices=["known", "unknown"])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--player", default="high-e05-h50")
    parser.add_argument("--noop-max", type=int, default=0, help="frames without input at first")
    parser.add_argument("--film", help="a name that ends in .gif")
    options = parser.parse_args(arguments)
    belief = PretrainedEncoder.from_pretrained(options.belief or f"{options.game}_belief")
    played = (options.steps, options.start, options.player, 0, options.noop_max)
    met = track(options.game, belief, *played)
    scored, truth = belief.provenance["data"]["scored"], met["truth"]
    known = int(options.start == "known")  # a known start counts for none
    for now in sorted({*range(0, len(truth), 25), len(truth) - 1}):
        past = slice(min(now, known), now + 1)
        score = {n: bit_f1(met[n][past, scored], truth[past, scored]).micro_f1 for n in READERS}
        print(f"step {now}: " + ", ".join(f"{name} {score[name]:.3f}" for name in READERS))
    if options.film:
        guesses = {name: met[name] for name in READERS}
        frames = belief_frames(met["screens"], truth, guesses, scored, known)
        print(f"written: {write_film(Path(options.film), frames, fps=10.0)}")


if __name__ == "__main__":
    main()
