"""MINE: mutual information of two variables by a small network, as a bound on held-out examples, in nats (arXiv:1801.04062).

The network maximises E_P[f] − log E_{P⊗Q}[exp f] on the training examples. The number is that bound on the others, where every pair of two
examples stands for the product of the marginals. It has a high variance and is at most about the logarithm of the number of held-out
examples (arXiv:1811.04251); it does not estimate the information of a deterministic network, which is infinite.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.principal_axes import PrincipalAxes

_EMA = 0.99
"""Decay of the moving average in the gradient of the logarithm, which corrects its bias."""
_MIN_EXAMPLES = 8


def mine(
    a: Float[Tensor, "*cell example p"],
    b: Float[Tensor, "*cell example q"],
    *,
    held_out: Bool[Tensor, " example"] | None = None,
    components: int = 8,
    hidden: int = 32,
    steps: int = 150,
    rate: float = 1e-2,
    seed: int = 0,
) -> Float[Tensor, "*cell"]:
    """Held-out bound on the mutual information of each cell, nats; all cells are trained as one batch.

    Args:
        held_out: Examples on which the bound is taken; by default every second one.
        components: Both variables are reduced to this many principal components, each scaled to variance 1.
        hidden: Width of the two hidden layers of each network.
        seed: Of the initial weights and the shuffles.

    Returns:
        NaN where a variable is constant or not finite.

    Raises:
        BadInput: different numbers of examples, or fewer than 8.
    """
    if a.shape[:-1] != b.shape[:-1] or a.shape[-2] < _MIN_EXAMPLES:
        raise BadInput(
            f"mine needs the same cells and at least {_MIN_EXAMPLES} examples of each variable, got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    cells = a.shape[:-2]
    x, known_x = _reduced(a.reshape(-1, *a.shape[-2:]), components)
    z, known_z = _reduced(b.reshape(-1, *b.shape[-2:]), components)
    test = torch.arange(a.shape[-2]) % 2 == 1 if held_out is None else held_out
    if bool(test.all()) or int(test.sum()) < 2:
        raise BadInput(
            f"`held_out` must leave examples to train on and hold at least two, got {int(test.sum())} of {len(test)}."
        )
    with torch.enable_grad():
        weights = _trained(x[:, ~test], z[:, ~test], hidden, steps, rate, seed)
    bound = _bound(weights, x[:, test], z[:, test])
    return torch.where(known_x & known_z, bound, torch.nan).reshape(cells)


def _reduced(x: Tensor, components: int) -> tuple[Float[Tensor, "cell example c"], Bool[Tensor, " cell"]]:
    """Whitened leading principal components, zeros in a cell that has none; and which cells have some."""
    wide = x.double()
    known = wide.isfinite().all((1, 2)) & ((wide - wide.mean(1, keepdim=True)).abs().amax((1, 2)) > 0)
    axes = PrincipalAxes.of(torch.where(known[:, None, None], wide, 0), standardise=False)
    features = axes.features[..., :components]
    spread = features.square().mean(1, keepdim=True).sqrt()
    scaled = torch.where(spread > 1e-9 * spread.amax(-1, keepdim=True), features / spread, 0)
    return scaled.nan_to_num().float(), known


def _trained(x: Tensor, z: Tensor, hidden: int, steps: int, rate: float, seed: int) -> list[Tensor]:
    cells, n, generator = len(x), x.shape[1], torch.Generator().manual_seed(seed)
    sizes = ((x.shape[2] + z.shape[2], hidden), (hidden, hidden), (hidden, 1))
    weights = []
    for inputs, outputs in sizes:
        # The same start in each cell, so that cells differ by their data alone.
        matrix = torch.randn(1, inputs, outputs, generator=generator) / math.sqrt(inputs)
        weights += [matrix.expand(cells, -1, -1).clone(), torch.zeros(cells, 1, outputs)]
    for weight in weights:
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0.1)
    average: Tensor | None = None
    for _ in range(steps):
        shuffled = z[:, torch.randperm(n, generator=generator)]
        joint, apart = _critic(weights, x, z), _critic(weights, x, shuffled)
        mean = apart.exp().mean(1)
        average = mean.detach() if average is None else _EMA * average + (1 - _EMA) * mean.detach()
        loss = (mean / average - joint.mean(1)).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return [weight.detach() for weight in weights]


def _critic(weights: list[Tensor], x: Tensor, z: Tensor) -> Float[Tensor, "cell example"]:
    value = torch.cat([x, z], -1)
    for i in range(0, len(weights), 2):
        value = torch.baddbmm(weights[i + 1], value, weights[i])
        if i < len(weights) - 2:
            value = torch.nn.functional.elu(value)
    return value[..., 0].clamp(-20, 20)


def _bound(weights: list[Tensor], x: Tensor, z: Tensor) -> Float[Tensor, " cell"]:
    n = x.shape[1]
    joint = _critic(weights, x, z).double().mean(1)
    each = [
        _critic(weights, x, z[:, torch.arange(n).roll(shift)]).double().logsumexp(1) for shift in range(1, n)
    ]  # one shift at a time: the pairs of all cells at once would not fit the cache
    return joint - (torch.stack(each).logsumexp(0) - math.log(n * (n - 1)))
