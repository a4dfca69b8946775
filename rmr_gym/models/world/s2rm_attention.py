"""Attention that a kernel on a sphere of places makes local."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, unknown_name

TERMS = ("both", "local", "nonlocal")
_BASE = 10000.0


@dataclass(frozen=True)
class Kernel:
    r"""The truncated Gaussian kernel on the unit sphere.

    .. math:: Z(p, s) = \exp[-2 \epsilon (1 - p \cdot s)] \;\; (p \cdot s \ge \tau), \quad
              Z(p, s) = 0 \;\; (\text{else})

    Gradients pass as if it were not truncated.

    Source: S2RM, eq. 5, Appendix C.1 and E.4.1. Differs: none.

    Attributes:
        bandwidth: :math:`\epsilon`, above 0.
        truncation: :math:`\tau`, in [-1, 1).

    Raises:
        RMRError: Numbers outside these ranges.
    """

    bandwidth: float = 1.0
    truncation: float = 0.6

    def __post_init__(self) -> None:
        if self.bandwidth <= 0 or not -1 <= self.truncation < 1:
            raise RMRError(
                "expected a kernel with a bandwidth above 0 and a truncation in [-1, 1), got "
                f"{self.bandwidth} and {self.truncation}"
            )

    def __call__(
        self, places: Float[Tensor, "*rest i dim"], others: Float[Tensor, "*more j dim"]
    ) -> Float[Tensor, "*out i j"]:
        """Return the kernel of each pair of unit vectors."""
        cosine = places @ others.transpose(-1, -2)
        whole = torch.exp(-2 * self.bandwidth * (1 - cosine))
        truncated = torch.where(cosine >= self.truncation, whole, 0.0)
        return whole + (truncated - whole).detach()


class SpherePositions(nn.Module):
    r"""Places in the frame as points of a sphere; nothing is learned.

    .. math:: P(x) = s / \|s\|, \quad
              (s_{m,i}, s_{m,i+1}) = (\sin, \cos)(x_m / 10000^{i n / d}), \quad i = 0, 2, \dots

    for the n = 2 coordinates :math:`x_m`, in pixels. The scalar product of two of these is a mean
    of cosines of their differences.

    Source: S2RM, eq. 3.
    Differs: the exponent is i n / d, and coordinates do not share components; taken literally
    (exponent i, index i + m) all but the first frequency are 0 to working accuracy, and components
    overwrite each other. The unit of x is not given; pixels make the wavelengths 6 to 6,000 pixels.

    Args:
        dim: Width d, a multiple of 4.
        unit: Pixels that count as 1 in x, above 0.

    Raises:
        RMRError: Another width or unit.
    """

    frequencies: Tensor

    def __init__(self, dim: int, unit: float = 1.0):
        super().__init__()
        if dim < 4 or dim % 4:
            raise RMRError(f"expected a width of places that is a multiple of 4, got {dim}")
        if not unit > 0:
            raise RMRError(f"expected a unit of places above 0 pixels, got {unit}")
        exponents = torch.arange(dim // 4, dtype=torch.float64) * (4 / dim)
        self.register_buffer("frequencies", (_BASE**-exponents / unit).float(), persistent=False)

    def forward(self, centres: Int[Tensor, "*batch 2"]) -> Float[Tensor, "*batch dim"]:
        """Return the points of pixels (row, column), of length 1."""
        angles = (centres[..., None] * self.frequencies).flatten(-2)
        return torch.cat([angles.sin(), angles.cos()], dim=-1) * angles.shape[-1] ** -0.5


@dataclass(frozen=True)
class AttentionSizes:
    """Sizes of a kernel-modulated attention.

    Attributes:
        heads: Number of heads.
        keys: Width of queries and keys of a head.
        values: Width of values of a head.
        terms: "both", or for ablations "local" or "nonlocal" alone.

    Raises:
        RMRError: Numbers below 1, unknown terms.
    """

    heads: int
    keys: int
    values: int
    terms: str = "both"

    def __post_init__(self) -> None:
        if self.terms not in TERMS:
            raise unknown_name("terms of attention", self.terms, TERMS)
        if min(self.heads, self.keys, self.values) < 1:
            raise RMRError(f"attention needs heads, keys and values of 1 or more, got {self}")


class KernelAttention(nn.Module):
    r"""Attention of a query set to a key set whose weights are multiplied by a kernel (KMDPA).

    .. math:: \bar W_{ijk} = \mathrm{softmax}_j(\Theta^Q_k(y^i) \cdot \Theta^K_k(z^j)), \quad
              \bar y^i = \mathrm{merge}_k \sum_j Z_{ij} \bar W_{ijk} \Theta^V_k(z^j), \quad
              \tilde y^i = \sum_j Z_{ij} z^j, \\
              \hat y^i = G^i \tilde y^i + (1 - G^i) \bar y^i, \quad
              G^i = \sigma(\mathrm{MLP}(\bar y^i, \tilde y^i))

    over heads k. With terms "local", :math:`\bar W` is the same for all j; with "nonlocal", Z = 1
    and :math:`\hat y = \bar y`.

    Source: S2RM, eq. 6 to 9, Appendix C.1 and C.2.
    Differs: queries come from y and keys from z as in eq. 7 (Appendix C.1 has them the other way
    round); the weights of the values hold the kernel as in eq. 18 and 23 (eq. 8 leaves it out);
    eq. 8's :math:`\tilde y` sums z as in Appendix C. The heads' values, heads x values wide, are
    merged by a linear map so that the gate can weigh them against z. The gate's MLP has as many
    hidden units as z is wide, with ReLU. The paper does not say what is left of an attention when a
    term is disabled.

    Args:
        queries: Width of y.
        keys: Width of z and of the result.
        sizes: Of the attention.
    """

    def __init__(self, queries: int, keys: int, sizes: AttentionSizes):
        super().__init__()
        self.sizes = sizes
        self.value = nn.Linear(keys, sizes.heads * sizes.values, bias=False)
        self.merge = nn.Linear(sizes.heads * sizes.values, keys, bias=False)
        if sizes.terms != "local":
            self.query = nn.Linear(queries, sizes.heads * sizes.keys, bias=False)
            self.key = nn.Linear(keys, sizes.heads * sizes.keys, bias=False)
        if sizes.terms != "nonlocal":
            self.gate = nn.Sequential(
                nn.Linear(2 * keys, keys), nn.ReLU(), nn.Linear(keys, 1), nn.Sigmoid()
            )

    def forward(
        self,
        y: Float[Tensor, "batch i queries"],
        z: Float[Tensor, "batch j keys"],
        local: Float[Tensor, "batch i j"],
        present: Bool[Tensor, " j"],
    ) -> Float[Tensor, "batch i keys"]:
        """Return what each member of the query set takes from the key set.

        Args:
            y: The query set; it may be empty, and the key set too.
            z: The key set.
            local: Kernel of each pair.
            present: Which members of the key set there are.
        """
        local = local * present
        shares = self._shares(y, z, present)
        if self.sizes.terms == "nonlocal":
            return self._far(shares, z)
        near, far = local @ z, self._far(shares * local[:, None], z)
        gate = self.gate(torch.cat([far, near], dim=-1))
        return torch.lerp(far, near, gate)

    def _shares(self, y: Tensor, z: Tensor, present: Tensor) -> Float[Tensor, "batch heads i j"]:
        if self.sizes.terms == "local":
            return (present / present.sum()).expand(len(y), self.sizes.heads, y.shape[1], -1)
        queries, keys = (
            rearrange(part, "b n (h d) -> b h n d", h=self.sizes.heads)
            for part in (self.query(y), self.key(z))
        )
        scores = queries @ keys.transpose(-1, -2)
        return scores.masked_fill(~present, -torch.inf).softmax(dim=-1)

    def _far(
        self, weights: Float[Tensor, "batch heads i j"], z: Tensor
    ) -> Float[Tensor, "batch i keys"]:
        values = rearrange(self.value(z), "b j (h v) -> b h j v", h=self.sizes.heads)
        return self.merge(rearrange(weights @ values, "b h i v -> b i (h v)"))
