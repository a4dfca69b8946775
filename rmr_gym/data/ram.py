"""RAM bytes as bits, and how much each byte varies."""

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from rmr_gym.core.errors import RMRError


def ram_to_bits(ram: UInt8[np.ndarray, "*rows bytes"]) -> UInt8[np.ndarray, "*rows bytes 8"]:
    """Return each byte as its 8 bits, zeros and ones, most significant bit first.

    Source: RMR, Appendix B (RAM as 128 slots of 8 bits).
    Differs: none; the paper does not say which bit comes first.
    """
    return np.unpackbits(ram[..., None], axis=-1)


def bits_to_ram(bits: UInt8[np.ndarray, "*rows bytes 8"]) -> UInt8[np.ndarray, "*rows bytes"]:
    """Return the bytes of which `ram_to_bits` gives ``bits``; anything but 0 counts as 1."""
    return np.packbits(bits, axis=-1)[..., 0]


def byte_entropy(ram: UInt8[np.ndarray, "rows bytes"]) -> Float64[np.ndarray, " bytes"]:
    """Return the entropy of each RAM byte over the rows, in nats.

    H(byte) = - sum over values v of p(v) ln p(v), p being the share of rows that hold v:
    0 for a byte that never changes, at most ln 256 = 5.55.

    Source: Anand et al. (2019), section 5 (labels of low entropy are left out; natural logarithm).
    Differs: none.

    Raises:
        RMRError: There is no row.
    """
    if len(ram) == 0:
        raise RMRError("expected at least one row of RAM to take the entropy of, found none")
    counts = np.stack([np.bincount(column, minlength=256) for column in ram.T])
    shares = counts / len(ram)
    surprise = -np.log(np.where(shares > 0, shares, 1.0))
    return (shares * surprise).sum(axis=1)


def high_entropy_bytes(
    ram: UInt8[np.ndarray, "rows bytes"], threshold: float = 0.6
) -> Int64[np.ndarray, " chosen"]:
    """Return the positions of the RAM bytes whose entropy exceeds the threshold, in order.

    Source: RMR, section 5 (entropy above 0.6, after Anand et al., 2019).
    Differs: the rows are the caller's; decisions page, 6: training episodes of the recipient game.

    Args:
        ram: RAM of the episodes that decide.
        threshold: In nats, 0 or larger.

    Raises:
        RMRError: No byte varies that much, or there is no row.
    """
    entropy = byte_entropy(ram)
    chosen = np.flatnonzero(entropy > threshold)
    if len(chosen) == 0:
        raise RMRError(
            f"expected a RAM byte of more than {threshold} nats of entropy over {len(ram)} rows, "
            f"found at most {entropy.max():.3f}: record longer or more varied episodes, or lower "
            "the threshold"
        )
    return chosen.astype(np.int64)
