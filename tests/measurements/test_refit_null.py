"""Null of refits: a site at which all texts have the same activations is at chance, and does not hide the other sites."""

import torch

from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.measurements.refit_null import refit_null


def test_constant_site_is_at_chance_and_leaves_the_maxima_alone() -> None:
    g = torch.Generator().manual_seed(0)
    y, folds = torch.arange(60) % 2 == 0, torch.arange(60) // 2 % 5
    x = torch.randn(2, 60, 16, generator=g)
    x[1, :, 0] += 3.0 * y
    x[0] = torch.randn(16, generator=g)
    permutations = torch.stack([torch.randperm(60, generator=g) for _ in range(100)])
    for method in ("mass_mean", "logistic"):
        strength = None if method == "mass_mean" else torch.ones(2)
        null = refit_null(method, x, y, folds, permutations, basis=PrincipalAxes.of(x), strength=strength)
        assert null.observed[0] == 0.5
        assert null.p[0] == 1
        assert null.observed[1] > 0.85
        assert null.maxima.max() < null.observed[1]
        assert null.p[1] < 0.02
