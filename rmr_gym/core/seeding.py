"""Named random streams: every draw comes from (seed, names), never from global state."""

import hashlib

import numpy as np

from rmr_gym.core.errors import RMRError


def seed_sequence(seed: int, *names: str | int | np.integer) -> np.random.SeedSequence:
    """Return the SeedSequence of one named stream.

    Two different tuples of names give independent streams; the same seed and names always give the
    same stream, whatever else was drawn in between.

    Args:
        seed: Experiment seed, 0 or larger.
        names: The stream's name, outermost first, for instance ``("natural", "batch", 17)``.

    Raises:
        RMRError: A seed below 0.
    """
    check_seed(seed)
    plain = tuple(name.item() if isinstance(name, np.integer) else name for name in names)
    digest = hashlib.sha256(repr(plain).encode()).digest()
    words = np.frombuffer(digest[:16], dtype="<u4")
    return np.random.SeedSequence(entropy=seed, spawn_key=tuple(int(word) for word in words))


def check_seed(seed: int) -> None:
    """Make sure that a seed is one, before costly work that comes before the first draw.

    Raises:
        RMRError: It is below 0.
    """
    if seed < 0:
        raise RMRError(f"expected a seed of 0 or more, found {seed}: leave the minus out")


def generator(seed: int, *names: str | int | np.integer) -> np.random.Generator:
    """Return a fresh numpy generator of the stream ``names``; see `seed_sequence`."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, *names)))


def integer_seed(seed: int, *names: str | int | np.integer) -> int:
    """Return an integer in [0, 2**31) of the stream ``names``, for libraries that want one."""
    return int(seed_sequence(seed, *names).generate_state(1)[0] >> 1)
