"""Directions of features in decoders: probes of one sequence against the rest at each last token, averaged over the tokens."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.linalg.coherence import coherence
from ontogeny.linalg.logistic_solver import solve_logistic

ESTIMATORS = ("logistic", "mass_mean")


def feature_directions(
    stream: Float[Tensor, "model sequence token width"], ids: Int[Tensor, "sequence token"]
) -> Mapping[str, Float[Tensor, "model sequence width"]]:
    """Unit directions of every sequence, by estimator; all sequences count the same, whatever their frequency in training."""
    models, count, _, width = stream.shape
    sums = {name: torch.zeros(models, count, width) for name in ESTIMATORS}
    for token in ids.unique():
        at = ids == token
        x, owner = stream[:, at], at.nonzero()[:, 0]
        member = owner[:, None] == torch.arange(count)
        for name, normals in (("logistic", _logistic(x, member)), ("mass_mean", _mass_mean(x, member))):
            sums[name] += torch.nn.functional.normalize(normals, dim=2)
    return {name: torch.nn.functional.normalize(total, dim=2) for name, total in sums.items()}


def _logistic(x: Float[Tensor, "model example width"], member: Tensor) -> Float[Tensor, "model sequence width"]:
    """Normals of logistic probes with C = 1 on standardised activations; both classes have the same weight."""
    spread = x.std(1, keepdim=True).clamp(min=1e-6)
    scaled = (x - x.mean(1, keepdim=True)) / spread
    features = torch.cat([scaled, torch.ones(*x.shape[:2], 1)], dim=2)
    target = member.float()
    share = target.mean(0)
    weight = torch.where(member, 0.5 / share, 0.5 / (1 - share))
    strength = torch.ones(len(x), member.shape[1])
    theta = solve_logistic(features, target[:, :, None], weight, strength, tolerance=1e-3)
    return theta[:, :-1, :, 0].mT / spread


def _mass_mean(x: Float[Tensor, "model example width"], member: Tensor) -> Float[Tensor, "model sequence width"]:
    own = member.T.to(x)
    rest = 1 - own
    return own @ x / own.sum(1, keepdim=True) - rest @ x / rest.sum(1, keepdim=True)


def random_coherence(count: int, d: int, draws: int, seed: int) -> float:
    """Mean coherence of random directions."""
    drawn = torch.randn(draws, count, d, generator=torch.Generator().manual_seed(seed))
    return float(coherence(drawn).mean())
