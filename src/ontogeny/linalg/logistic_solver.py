"""Regularised logistic regression for many sites and label sets at once, by truncated Newton with conjugate gradients.

Minimises ½‖w‖² + C Σ ω·loss (scikit-learn's objective, intercept not penalised) with logistic (k = 1) or softmax (k > 1) loss. All
problems share one product with the features per step, so 12 problems cost little more than one. Source: truncated Newton for
logistic regression, Lin, Weng & Keerthi, JMLR 9 (2008).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.linalg.matmul import matmul

_MAX_NEWTON_STEPS = 30
_MAX_CG_STEPS = 200
"""Per Newton step."""
_EXACT_TOLERANCE = 1e-3
"""Below it, the objective's change along a step is smaller than float32 resolves."""
_SINGLE_TOLERANCE = 1e-4
"""Least tolerance that float32 reaches: below it, rounding errors of the gradient are taken for convergence."""
_BLOCK = 2**20
"""Scores of all problems that are held at once: sites are independent, and are solved in blocks."""
_Preconditioner = Callable[[Float[Tensor, "site r column k"]], Float[Tensor, "site r column k"]]


def solve_logistic(
    features: Float[Tensor, "site example r"],
    target: Float[Tensor, "example column k"],
    weight: Float[Tensor, "example column"],
    strength: Float[Tensor, "site column"],
    start: Float[Tensor, "site r column k"] | None = None,
    *,
    tolerance: float,
    factored: bool = False,
) -> Float[Tensor, "site r column k"]:
    """Weights of each problem; the last feature is the constant 1, whose weight (the intercept) is not penalised.

    A problem has converged when its gradient, in the norm of the preconditioner, has fallen to `tolerance` of that at zero. It is
    frozen then, so that its result does not depend on the other problems of the batch.

    Args:
        features: Orthogonal columns; otherwise set `factored`, with one strength per site, and check `is_factorable`.
        weight: Weight of each example in each problem.
        strength: C of each problem.
        start: Initial weights; by default zero.
        tolerance: Below 1e-4, float32 features are solved to 1e-3 and from there in float64.
    """
    sites = max(1, _BLOCK // max(1, target.numel()))
    if len(features) > sites:
        starts = [None] * -(-len(features) // sites) if start is None else torch.split(start, sites)
        return torch.cat(
            [
                solve_logistic(block, target, weight, c, begin, tolerance=tolerance, factored=factored)
                for block, c, begin in zip(
                    torch.split(features, sites), torch.split(strength, sites), starts, strict=True
                )
            ]
        )
    if tolerance < _SINGLE_TOLERANCE and features.dtype == torch.float32:
        near = solve_logistic(features, target, weight, strength, start, tolerance=_EXACT_TOLERANCE, factored=factored)
        doubles = (part.double() for part in (features, target, weight, strength, near))
        return solve_logistic(*doubles, tolerance=tolerance, factored=factored).to(features)
    penalty = features.new_ones(features.shape[2], 1, 1)
    penalty[-1] = 0
    cost = strength[:, None] * weight
    first = torch.zeros_like(target).expand(len(features), *target.shape)
    theta = features.new_zeros(len(features), features.shape[2], *target.shape[1:]) if start is None else start.clone()
    u = first.clone() if start is None else linear_scores(features, theta)
    p = _probability(first)
    at = (
        _cholesky_preconditioner(features, penalty, strength[:, 0] / 4)
        if factored
        else _diagonal_preconditioner(features, penalty)
    )
    gradient = _adjoint(features, cost[..., None] * (p - target))
    zero = (gradient * at(_curvature(cost, p))(gradient)).sum((1, 3)).sqrt()
    stuck = torch.zeros_like(zero, dtype=torch.bool)
    for _ in range(_MAX_NEWTON_STEPS):
        p = _probability(u)
        gradient = _adjoint(features, cost[..., None] * (p - target)) + penalty * theta
        precondition = at(_curvature(cost, p))
        size = (gradient * precondition(gradient)).sum((1, 3)).sqrt()
        live = (size > tolerance * zero) & ~stuck
        if not live.any():
            break
        forcing = (size / zero).sqrt().clamp(max=0.3)
        step, u_step = _conjugate_gradients(features, cost, p, penalty, precondition, -gradient, forcing, live)
        given = (target, cost, penalty, theta, u, step, u_step, gradient)
        wide = [part.double() for part in given] if tolerance < _EXACT_TOLERANCE else given
        t = _line_search(*wide).to(theta)
        # No step lowers the objective: the remaining gradient is a rounding error.
        stuck |= live & (t == 0)
        theta += t[:, None, :, None] * step
        u += t[:, None, :, None] * u_step
    return theta


def is_factorable(features: Float[Tensor, "site example r"], strength: Float[Tensor, " site"]) -> bool:
    """Whether rounding in a Cholesky factor of the Hessian stays below the penalty, which is 1."""
    largest = features.square().sum(1).amax(1) * strength / 4
    return bool((features.shape[2] * torch.finfo(features.dtype).eps * largest < 1).all())


def cross_entropy_loss(u: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy in nats; the last axis of `u` is one log-odds, or one score per class."""
    if u.shape[-1] == 1:
        return (torch.nn.functional.softplus(u) - target * u)[..., 0]
    return u.logsumexp(-1) - (target * u).sum(-1)


def linear_scores(features: Tensor, theta: Tensor) -> Tensor:
    """Features times weights, for all problems."""
    # The thin factor is on the left: MKL is up to 14 times slower with few columns on the right.
    thin = matmul(theta.flatten(2).mT, features.mT)
    return thin.mT.reshape(*features.shape[:2], *theta.shape[2:])


def _adjoint(features: Tensor, q: Tensor) -> Tensor:
    thin = matmul(q.flatten(2).mT, features)
    return thin.mT.reshape(len(features), features.shape[2], *q.shape[2:])


def _probability(u: Tensor) -> Tensor:
    return u.sigmoid() if u.shape[-1] == 1 else u.softmax(-1)


def _hessian_product(p: Tensor, v: Tensor) -> Tensor:
    """Second derivative of the loss, applied to v."""
    return p * (1 - p) * v if p.shape[-1] == 1 else p * (v - (p * v).sum(-1, keepdim=True))


def _curvature(cost: Tensor, p: Tensor) -> Float[Tensor, "site column 1"]:
    """Mean over the examples and classes: one value per class would admit the common shift to which softmax is invariant."""
    return (cost[..., None] * p * (1 - p)).sum(-1, keepdim=True).mean(1) / max(p.shape[-1] - 1, 1)


def _diagonal_preconditioner(features: Tensor, penalty: Tensor) -> Callable[[Tensor], _Preconditioner]:
    """Inverse of the Hessian at the mean curvature, for orthogonal features."""
    power = features.square().sum(1)[:, :, None, None]

    def at(curvature: Tensor) -> _Preconditioner:
        # A constant feature beside a free intercept has no curvature: keep the division finite.
        scale = penalty + power * curvature[:, None] + 1e-12
        return lambda r: r / scale

    return at


def _cholesky_preconditioner(
    features: Tensor, penalty: Tensor, largest: Float[Tensor, " site"]
) -> Callable[[Tensor], _Preconditioner]:
    """The same for any features, by one Cholesky factor per site at its `largest` curvature.

    At a smaller curvature the Hessian is at least that share of it, so the gradient's norm is never underestimated.
    """
    hessian = matmul(features.mT, features) * largest[:, None, None]
    hessian.diagonal(dim1=1, dim2=2).add_(penalty[:, 0, 0] + 1e-12)
    factor = torch.linalg.cholesky(hessian)

    def at(curvature: Tensor) -> _Preconditioner:
        share = (curvature / largest[:, None, None]).clamp(max=1)[:, None]
        return lambda r: _solve_factored(factor, r.flatten(2)).reshape(r.shape) / share

    return at


def _solve_factored(factor: Tensor, b: Tensor) -> Tensor:
    # Two triangular solves: cholesky_solve takes twice as long for few columns.
    half = torch.linalg.solve_triangular(factor, b, upper=False)
    solution: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return solution


def _conjugate_gradients(
    features: Tensor,
    cost: Tensor,
    p: Tensor,
    penalty: Tensor,
    precondition: _Preconditioner,
    b: Tensor,
    forcing: Tensor,
    live: Tensor,
) -> tuple[Tensor, Tensor]:
    """x with H x ≈ b, and features @ x for the line search."""
    x, ux, r = torch.zeros_like(b), torch.zeros_like(p), b.clone()
    z = precondition(r)
    d = z.clone()
    rz = (r * z).sum((1, 3))
    goal = forcing.square() * rz
    for _ in range(_MAX_CG_STEPS):
        on = live & (rz > goal)
        if not on.any():
            break
        ud = linear_scores(features, d)
        hd = _adjoint(features, cost[..., None] * _hessian_product(p, ud)) + penalty * d
        alpha = torch.where(on, rz / (d * hd).sum((1, 3)), 0)[:, None, :, None]
        x += alpha * d
        ux += alpha * ud
        r -= alpha * hd
        z = precondition(r)
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
    """Largest of 1, ½, ¼, … that lowers each problem's objective (Armijo); 0 if none does."""
    slope = (gradient * step).sum((1, 3))
    linear, square = (penalty * theta * step).sum((1, 3)), (penalty * step.square()).sum((1, 3)) / 2
    here = cross_entropy_loss(u, target)
    t = torch.ones_like(slope)
    todo = slope < 0
    for _ in range(12):
        there = cross_entropy_loss(u + t[:, None, :, None] * u_step, target)
        change = (cost * (there - here)).sum(1) + t * linear + t.square() * square
        todo = todo & (change > 1e-4 * t * slope)
        if not todo.any():
            break
        t = torch.where(todo, t / 2, t)
    return torch.where((slope < 0) & ~todo, t, 0)
