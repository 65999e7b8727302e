"""Regularised logistic regression for many sites and many label sets at once: Newton steps solved by conjugate gradients.

Minimises ½‖w‖² + C Σ ω·loss (scikit-learn's objective, the intercept free), the loss logistic (k = 1) or softmax (k > 1). All
problems share one product with the features per step, so 12 problems cost little more than one. Source: truncated Newton for
logistic regression, Lin, Weng & Keerthi, JMLR 9 (2008).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.products import product

STEPS = 30
"""Newton steps at most."""
INNER = 200
"""Conjugate-gradient iterations in one Newton step at most."""


def solve(
    features: Float[Tensor, "site example r"],
    target: Float[Tensor, "example column k"],
    weight: Float[Tensor, "example column"],
    strength: Float[Tensor, "site column"],
    start: Float[Tensor, "site r column k"] | None = None,
    *,
    tolerance: float,
) -> Float[Tensor, "site r column k"]:
    """Weights of each problem; the last feature is the constant 1 whose weight, the intercept, is not penalised.

    A problem has converged when its gradient, in the norm of the preconditioner, has fallen to `tolerance` of that at zero.
    It is frozen then, so its answer does not depend on its neighbours in the batch.
    """
    penalty = features.new_ones(features.shape[2], 1, 1)
    penalty[-1] = 0
    cost = strength[:, None] * weight
    first = torch.zeros_like(target).expand(len(features), *target.shape)
    theta = features.new_zeros(len(features), features.shape[2], *target.shape[1:]) if start is None else start.clone()
    u = first.clone() if start is None else apply(features, theta)
    power = features.square()

    p = _probability(first)
    gradient = _adjoint(features, cost[..., None] * (p - target))
    scale = _preconditioner(power, cost, p, penalty)
    zero = (gradient.square() / scale).sum((1, 3)).sqrt()
    stuck = torch.zeros_like(zero, dtype=torch.bool)
    for _ in range(STEPS):
        p = _probability(u)
        gradient = _adjoint(features, cost[..., None] * (p - target)) + penalty * theta
        scale = _preconditioner(power, cost, p, penalty)
        size = (gradient.square() / scale).sum((1, 3)).sqrt()
        live = (size > tolerance * zero) & ~stuck
        if not live.any():
            break
        forcing = (size / zero).sqrt().clamp(max=0.3)
        step, u_step = _conjugate_gradients(features, cost, p, penalty, scale, -gradient, forcing, live)
        t = _line_search(target, cost, penalty, theta, u, step, u_step, gradient)
        # No step lowers the objective: what is left of the gradient is rounding.
        stuck |= live & (t == 0)
        theta += t[:, None, :, None] * step
        u += t[:, None, :, None] * u_step
    return theta


def loss(u: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats of each score: the last axis holds one log-odds, or one score a class."""
    if u.shape[-1] == 1:
        return (torch.nn.functional.softplus(u) - target * u)[..., 0]
    return u.logsumexp(-1) - (target * u).sum(-1)


def apply(features: Tensor, theta: Tensor) -> Tensor:
    # The thin factor on the left: batched products with few columns on the right are up to 14 times slower in MKL.
    thin = product(theta.flatten(2).mT, features.mT)
    return thin.mT.reshape(*features.shape[:2], *theta.shape[2:])


def _adjoint(features: Tensor, q: Tensor) -> Tensor:
    thin = product(q.flatten(2).mT, features)
    return thin.mT.reshape(len(features), features.shape[2], *q.shape[2:])


def _probability(u: Tensor) -> Tensor:
    return u.sigmoid() if u.shape[-1] == 1 else u.softmax(-1)


def _curve(p: Tensor, v: Tensor) -> Tensor:
    """Second derivative of the loss, applied to v."""
    return p * (1 - p) * v if p.shape[-1] == 1 else p * (v - (p * v).sum(-1, keepdim=True))


def _preconditioner(power: Tensor, cost: Tensor, p: Tensor, penalty: Tensor) -> Tensor:
    """Diagonal of the Hessian with every example's curvature at the mean: exact for the eigenbasis of equal curvatures."""
    # One value for all classes: scaling them apart would let rounding into the shift that softmax does not see.
    curvature = (cost[..., None] * p * (1 - p)).sum(-1, keepdim=True).mean(1) / max(p.shape[-1] - 1, 1)
    # A feature without spread under a free intercept has no curvature at all: keep the division finite.
    return penalty + power.sum(1)[:, :, None, None] * curvature[:, None] + 1e-12


def _conjugate_gradients(
    features: Tensor, cost: Tensor, p: Tensor, penalty: Tensor, scale: Tensor, b: Tensor, forcing: Tensor, live: Tensor
) -> tuple[Tensor, Tensor]:
    """x with H x ≈ b, and features @ x, which the line search needs and which comes for free."""
    x, ux, r = torch.zeros_like(b), torch.zeros_like(p), b.clone()
    z = r / scale
    d = z.clone()
    rz = (r * z).sum((1, 3))
    goal = forcing.square() * rz
    for _ in range(INNER):
        on = live & (rz > goal)
        if not on.any():
            break
        ud = apply(features, d)
        hd = _adjoint(features, cost[..., None] * _curve(p, ud)) + penalty * d
        alpha = torch.where(on, rz / (d * hd).sum((1, 3)), 0)[:, None, :, None]
        x += alpha * d
        ux += alpha * ud
        r -= alpha * hd
        z = r / scale
        new = (r * z).sum((1, 3))
        d = z + torch.where(on, new / rz, 0)[:, None, :, None] * d
        rz = torch.where(on, new, rz)
    return x, ux


def _line_search(
    target: Tensor,
    cost: Tensor,
    penalty: Tensor,
    theta: Tensor,
    u: Tensor,
    step: Tensor,
    u_step: Tensor,
    gradient: Tensor,
) -> Tensor:
    """Largest of 1, ½, ¼, … that lowers each problem's objective (Armijo), 0 where none does."""
    slope = (gradient * step).sum((1, 3))
    linear, square = (penalty * theta * step).sum((1, 3)), (penalty * step.square()).sum((1, 3)) / 2
    here = loss(u, target)
    t = torch.ones_like(slope)
    todo = slope < 0
    for _ in range(12):
        there = loss(u + t[:, None, :, None] * u_step, target)
        change = (cost * (there - here)).sum(1) + t * linear + t.square() * square
        todo = todo & (change > 1e-4 * t * slope)
        if not todo.any():
            break
        t = torch.where(todo, t / 2, t)
    return torch.where((slope < 0) & ~todo, t, 0)
