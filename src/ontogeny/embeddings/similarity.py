"""Global similarity of two sets of vectors of the same tokens: correlation of their cosines over all pairs of tokens.

Source: arXiv:2503.21073. The cosines of two models of other widths can be compared, their coordinates cannot. Models whose cosines only
tell rare tokens from frequent ones resemble each other: the partial correlation counts what is left within each pair of frequency bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.embeddings.correlation import Correlation, deviation_products
from ontogeny.errors import BadInput
from ontogeny.linalg.matmul import matmul

WORKING_BYTES = 2**28
"""Memory of the blocks of pairs, 256 MiB, beside the vectors themselves, whatever the number of tokens."""
FEWEST_TOKENS = 10
_BINS = 20


@dataclass(frozen=True, eq=False)
class GlobalSimilarity:
    """Correlation of the cosines of two models."""

    pearson: Correlation
    partial: Correlation | None
    """Given the frequency bins of both tokens of a pair; None if frequencies are not known."""


def unit_length_rows(rows: Float[Tensor, "token d"], *, centred: bool) -> Float[Tensor, "token d"]:
    """Rows of length 1, after their mean is subtracted if `centred`; zero rows stay zero."""
    wide = rows.double()
    wide = wide - wide.mean(0) if centred else wide
    return torch.nn.functional.normalize(wide, dim=1).float()


def global_similarity(
    x: Float[Tensor, "token d"],
    y: Float[Tensor, "token e"],
    log_frequency: Float[Tensor, " token"] | None = None,
    *,
    centred: bool = False,
) -> GlobalSimilarity:
    """Correlation of the cosines of all pairs of tokens in two sets of vectors, from -1 to 1, with intervals over tokens.

    Invariant to a rotation and a scale of either set, and if `centred` to a translation. Two sets without a relation have 0.

    Args:
        x: Vectors of the tokens in one model.
        y: Vectors of the same tokens in another one, which may have another width.
        log_frequency: Of each token; the partial correlation is left out without it.

    Raises:
        BadInput: the sets differ in their number of tokens, or there are fewer than ten.
    """
    count = len(x)
    if len(y) != count or count < FEWEST_TOKENS:
        raise BadInput(
            f"two geometries must be compared on the same tokens, at least {FEWEST_TOKENS}, got {count} and {len(y)}: choose more tokens."
        )
    x, y = unit_length_rows(x, centred=centred), unit_length_rows(y, centred=centred)
    bins = torch.zeros(count, dtype=torch.long) if log_frequency is None else frequency_bins(log_frequency)
    sums = _sums_by_token(x, y, torch.nn.functional.one_hot(bins).float())
    every = torch.zeros_like(bins)
    pearson = _pair_correlation(sums.sum(1, keepdim=True), every)
    return GlobalSimilarity(pearson, None if log_frequency is None else _pair_correlation(sums, bins))


def frequency_bins(log_frequency: Float[Tensor, " token"]) -> Int[Tensor, " token"]:
    """Bins of neighbouring frequency ranks, at most 20 and of at least 20 tokens."""
    count = len(log_frequency)
    bins = max(1, min(_BINS, count // _BINS))
    return log_frequency.argsort(stable=True).argsort() * bins // count


def _sums_by_token(x: Tensor, y: Tensor, inside: Float[Tensor, "token bin"]) -> Float[Tensor, "token bin 6"]:
    """Sums of 1, both cosines, their squares and their product, of the pairs of each token with the other tokens of each bin."""
    count = len(x)
    size = max(1, WORKING_BYTES // (4 * count * 9))
    sums = torch.empty(count, inside.shape[1], 6, dtype=torch.float64)
    shift: list[float] = []
    for start in range(0, count, size):
        rows = torch.arange(start, min(start + size, count))
        a, b = matmul(x[rows], x.T), matmul(y[rows], y.T)
        # About the mean of the first block, so that no difference of large sums is taken.
        shift = shift or [float(a.mean()), float(b.mean())]
        a, b = a - shift[0], b - shift[1]
        one = torch.ones_like(a)
        for column, values in enumerate((one, a, b, a * a, a * b, b * b)):
            values[rows - start, rows] = 0  # a token is not a pair with itself
            sums[rows, :, column] = matmul(values, inside).double()
    return sums


def _pair_correlation(sums: Float[Tensor, "token bin 6"], bins: Int[Tensor, " token"]) -> Correlation:
    """Correlation over pairs within pairs of bins; without a token, its row and its column are left out."""
    count = sums.shape[1]
    cells = sums.new_zeros(count, count, 6).index_add_(0, bins, sums)
    before = deviation_products(cells)
    own = torch.nn.functional.one_hot(bins, count)[..., None]
    without = deviation_products(cells[bins] - sums * (1 + own))
    # The cell of another bin is in the table twice, as a row and as a column.
    change = ((before[bins] - without) * (2 - own)).sum(1)
    whole = before.sum((0, 1))
    return Correlation.of(whole, whole - change)


def shuffled_similarities(
    x: Float[Tensor, "token d"], y: Float[Tensor, "token e"], orders: Sequence[Int[Tensor, " token"]], *, centred: bool
) -> Float[Tensor, " order"]:
    """The similarity when the second set's tokens are taken in other orders; of few tokens, since all pairs are in memory."""
    one, other = (_centred_cosines(rows, centred=centred) for rows in (x, y))
    scale = one.norm() * other.norm()
    # Another order changes neither mean nor norm of the cosines.
    moved = (other.index_select(0, order).index_select(1, order) for order in orders)
    return torch.stack([torch.dot(one.view(-1), cosines.view(-1)) / scale for cosines in moved])


def _centred_cosines(rows: Float[Tensor, "token d"], *, centred: bool) -> Float[Tensor, "token token"]:
    """Cosines of all pairs about their mean, and 0 for a token with itself."""
    units = unit_length_rows(rows, centred=centred)
    cosines = units @ units.T
    cosines.fill_diagonal_(0)
    cosines -= cosines.sum() / (len(cosines) * (len(cosines) - 1))
    return cosines.fill_diagonal_(0)
