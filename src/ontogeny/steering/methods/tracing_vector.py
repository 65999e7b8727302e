"""The tracing paper's vector: the unit difference of the class means times the spread of the projections (arXiv:2402.19465, 1.5)."""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.direction import Direction
from ontogeny.errors import SingleClassError
from ontogeny.sites import Site


def tracing_vector(
    x: Float[Tensor, "site example d"],
    y: Bool[Tensor, " example"],
    sites: Sequence[Site],
    *,
    origin: str,
    sign: str = "",
    spread_of: Float[Tensor, "site other d"] | None = None,
) -> list[Direction]:
    """One direction a site. `spread_of` holds the rows whose spread counts, by default those of the means.

    The paper takes the rows that it evaluates on, too; that leaks a little and has to be asked for.

    Raises:
        OneClass: all labels are equal.
    """
    if y.all() or not y.any():
        raise SingleClassError("the tracing vector", n=len(y), label=bool(y[0]))
    difference = x[:, y].double().mean(1) - x[:, ~y].double().mean(1)
    gap = difference.norm(dim=1)
    unit = difference / gap[:, None]
    along = ((x if spread_of is None else spread_of).double() @ unit[:, :, None])[..., 0]
    spread = along.std(1, correction=1)
    return [
        Direction(
            (std * axis).float(),
            site,
            f"{origin}/tracing_vector",
            "std",
            facts={"gap": float(g), "std": float(std)},
            sign=sign,
        )
        for site, axis, std, g in zip(sites, unit, spread, gap, strict=True)
    ]
