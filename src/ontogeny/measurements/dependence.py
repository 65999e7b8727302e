"""Dependence (HSIC) of the residual stream on input and label, and the spectrum of its activations.

The input X is the mean embedding of a text's tokens; in the `paper` protocol, the first block's output at the read position
(arXiv:2402.19465). Computed on at most `MAX_DEPENDENCE_EXAMPLES` training examples.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.linalg.moments import Moments
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
    moments: Moments | None = None,
) -> list[Record]:
    """HSIC and normalised HSIC of all layers under each kernel, the permutation baseline of the label, and the spectrum.

    Args:
        moments: Those of the training examples, if known.
    """
    used, kernels = design.dependence_rows, settings.kernels
    about = replace(about, split=None)  # nothing is fitted
    if settings.protocol == "paper":
        # As published: z-scored over all rows, and the first block's output for X.
        z = zscore(x)
        first = next((i for i, site in enumerate(sites) if site.layer == 1), 0)
        t, given, kernels = z[:, used], z[first, used], ("gaussian_50",)
    else:
        t, given = x[:, used], inputs[used]
    by_kernel = dependence_by_kernel(
        t,
        given,
        _label(design)[used],
        kernels,
        permutations=design.dependence_permutations,
        standardise=settings.protocol != "paper",
    )
    rows = [row for kernel, of in by_kernel.items() for row in _kernel_rows(about, of, kernel, len(used), sites)]
    if moments is not None and (design.test_folds is not None or torch.equal(used, design.split.train)):
        return rows + _spectrum_rows(about, x[:, design.split.train], sites, moments.variances)
    return rows + _spectrum_rows(about, x[:, used], sites, None)


def _kernel_rows(about: RowContext, of: Dependence, kernel: str, n: int, sites: Sequence[Site]) -> list[Record]:
    rows = partial(site_rows, about, sites=sites, method=kernel, n=n, reason=_NO_VARIANCE)
    records: list[Record] = []
    for metric in ("hsic_tx", "hsic_ty", "nhsic_tx", "nhsic_ty", "effective_dimension"):
        records += rows(metric, getattr(of, metric))
    for metric, null in (("hsic_ty", of.hsic_ty_shuffled), ("nhsic_ty", of.nhsic_ty_shuffled)):
        if null is not None:
            ends = Interval(low=torch.full_like(null.mean, torch.nan), high=null.high)
            records += rows(metric, null.mean, control="shuffled", interval=ends)
    return records


def _spectrum_rows(
    about: RowContext,
    t: Float[Tensor, "site row d"],
    sites: Sequence[Site],
    variances: Float[Tensor, "site component"] | None,
) -> list[Record]:
    shape = geometry(t, k=_SPECTRUM_COMPONENTS, variances=variances)
    rows = partial(site_rows, about, sites=sites, method="pca", n=t.shape[1], reason=_NO_VARIANCE)
    records = rows("participation_ratio", shape.participation_ratio) + rows("effective_rank", shape.effective_rank)
    for rank in range(_SPECTRUM_COMPONENTS):
        records += rows("variance_share", shape.variance_share[:, rank], coords={"rank": str(rank + 1)})
    return records


def _label(design: Design) -> Float[Tensor, "example q"]:
    """0 and 1 for two classes, one column per class for more, a number as it is."""
    if design.concept.kind == "classes":
        return (design.y[:, None] == torch.arange(len(design.concept.classes), device=design.y.device)).float()
    return design.y.float()[:, None]
