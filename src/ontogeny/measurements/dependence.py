"""Dependence of the stream on the input and on the label, with the shape of the cloud beside it.

The input X is the mean embedding of a text's tokens; in the paper's protocol, the first block's output at the read position
(arXiv:2402.19465). Rows of the training groups, at most `design.DEPENDENCE_ROWS` of them.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.measurements.settings import TraceSettings
from ontogeny.metrics.dependence import Dependence, dependence_by_kernel, zscore
from ontogeny.metrics.geometry import geometry
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import Interval

_SPECTRUM_COMPONENTS = 10
_NO_VARIANCE = "no spread: all rows are equal here, or the Gram matrix is degenerate"


def dependence_rows(
    design: Design,
    about: RowContext,
    x: Float[Tensor, "site example d"],
    inputs: Float[Tensor, "example d"],
    sites: Sequence[Site],
    settings: TraceSettings,
    *,
    variances: Float[Tensor, "site d"] | None = None,
) -> list[Record]:
    """HSIC and normalised HSIC of all layers under each kernel, the label's permutation floor, and the spectrum.

    `variances` are the eigenvalues of the scatter of these rows, smallest first, where they are known.
    """
    used, kernels = design.dependence_rows, settings.kernels
    about = replace(about, split=None)  # nothing is fitted, so nothing is held out
    if settings.protocol == "paper":
        # z-scored over all rows, and the first block's output for X, as published.
        z = zscore(x)
        first = next((i for i, site in enumerate(sites) if site.layer == 1), 0)
        t, given, kernels = z[:, used], z[first, used], ("gaussian_50",)
    else:
        t, given = x[:, used], inputs[used]
    found = dependence_by_kernel(
        t,
        given,
        _label(design)[used],
        kernels,
        permutations=design.dependence_permutations,
        standardise=settings.protocol != "paper",
    )
    made = [r for kernel, here in found.items() for r in _kernel_rows(about, here, kernel, len(used), sites)]
    return made + _spectrum_rows(about, x[:, used], sites, variances)


def _kernel_rows(about: RowContext, found: Dependence, kernel: str, n: int, sites: Sequence[Site]) -> list[Record]:
    made: list[Record] = []
    for metric in ("hsic_tx", "hsic_ty", "nhsic_tx", "nhsic_ty", "effective_dimension"):
        values = getattr(found, metric)
        made += site_rows(about, metric, values, sites, method=kernel, n=n, reason=_NO_VARIANCE)
    for metric, floor in (("hsic_ty", found.hsic_ty_shuffled), ("nhsic_ty", found.nhsic_ty_shuffled)):
        if floor is not None:
            ends = Interval(low=torch.full_like(floor.mean, torch.nan), high=floor.high)
            made += site_rows(
                about,
                metric,
                floor.mean,
                sites,
                method=kernel,
                control="shuffled",
                interval=ends,
                n=n,
                reason=_NO_VARIANCE,
            )
    return made


def _spectrum_rows(
    about: RowContext, t: Float[Tensor, "site row d"], sites: Sequence[Site], variances: Float[Tensor, "site d"] | None
) -> list[Record]:
    shape, n = geometry(t, k=_SPECTRUM_COMPONENTS, variances=variances), t.shape[1]
    made = site_rows(
        about, "participation_ratio", shape.participation_ratio, sites, method="pca", n=n, reason=_NO_VARIANCE
    )
    made += site_rows(about, "effective_rank", shape.effective_rank, sites, method="pca", n=n, reason=_NO_VARIANCE)
    for rank in range(_SPECTRUM_COMPONENTS):
        share = shape.variance_share[:, rank]
        coords = {"rank": str(rank + 1)}
        made += site_rows(about, "variance_share", share, sites, method="pca", n=n, coords=coords, reason=_NO_VARIANCE)
    return made


def _label(design: Design) -> Float[Tensor, "example q"]:
    """0 and 1 for two classes, one column a class for more, the number itself for a number."""
    if design.concept.kind == "classes":
        return (design.y[:, None] == torch.arange(len(design.concept.classes), device=design.y.device)).float()
    return design.y.float()[:, None]
