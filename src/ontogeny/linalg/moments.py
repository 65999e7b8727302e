"""First and second moments of activations and targets, which can be added over batches.

Source: Chan, Golub & LeVeque 1979 (pairwise updating about the mean, stable where sums of squares are not).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.linalg.matmul import matmul


@dataclass(frozen=True)
class Moments:
    """Moments in float64; `xx` and `xz` are sums about the means, not divided by the count."""

    count: int
    x: Float[Tensor, "site d"]
    z: Float[Tensor, " k"]
    xx: Float[Tensor, "site d d"]
    xz: Float[Tensor, "site d k"]

    @classmethod
    def of(cls, x: Float[Tensor, "site example d"], z: Float[Tensor, "example k"]) -> "Moments":
        target, mean = z.double(), x.mean(1, dtype=torch.float64)
        centre = target.mean(0)
        wide = torch.sub(x, mean[:, None])  # in float64, without a copy of x in it
        # The thin factor is on the left: MKL is ten times slower with few columns on the right.
        xz = ((target - centre).mT.contiguous() @ wide).mT
        return cls(x.shape[1], mean, centre, wide.mT @ wide, xz)

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        share = other.count / count
        dx, dz = other.x - self.x, other.z - self.z
        between = self.count * share
        return Moments(
            count,
            self.x + share * dx,
            self.z + share * dz,
            self.xx + other.xx + between * dx[:, :, None] * dx[:, None],
            self.xz + other.xz + between * dx[:, :, None] * dz,
        )

    @cached_property
    def variances(self) -> Float[Tensor, "site d"]:
        """Eigenvalues of `xx`, smallest first; NaN at a site with non-finite values."""
        known = self.xx.isfinite().all(2).all(1)
        values = torch.linalg.eigvalsh(torch.where(known[:, None, None], self.xx, 0))
        return torch.where(known[:, None], values, torch.nan)

    def class_means(self) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site d k"]]:
        """Means inside and outside each class, for z of 0 and 1."""
        spread = self.xz / self.count
        return self.x[:, :, None] + spread / self.z, self.x[:, :, None] - spread / (1 - self.z)


def fold_moments(
    whole: Moments, x: Float[Tensor, "site example d"], z: Float[Tensor, "example k"], folds: Int[Tensor, " example"]
) -> list[Moments]:
    """Moments of the examples outside each fold, from those of all; products in the precision of x, about the common mean."""
    rest = []
    for fold in range(int(folds.max()) + 1):
        inside = (folds == fold).nonzero()[:, 0]
        rows, target = x[:, inside].sub_(whole.x[:, None].to(x)), z[inside].double() - whole.z
        count = whole.count - len(inside)
        # Sums about the mean of all; those outside the fold are the negative of these, since all together are zero.
        dx, dz = -rows.sum(1, dtype=torch.float64), -target.sum(0)
        xx = torch.sub(whole.xx, matmul(rows.mT, rows))
        xx.baddbmm_(dx[:, :, None], dx[:, None], alpha=-1 / count)
        xz = whole.xz - (target.to(rows).mT @ rows).mT.double() - dx[:, :, None] * dz / count
        rest.append(Moments(count, whole.x + dx / count, whole.z + dz / count, xx, xz))
    return rest
