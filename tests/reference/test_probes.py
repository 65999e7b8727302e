"""Probes against scikit-learn in float64 at the chosen strength: weights, scores and cross-validation."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from ontogeny.probes import logistic, ridge
from ontogeny.statistics.splits import balanced_folds

SHAPES = [(300, 40), (120, 200)]


def activations(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Correlated features of very unequal variance, far from the origin."""
    g = torch.Generator().manual_seed(seed)
    return 5 + (torch.randn(2, n, d, generator=g) * torch.arange(1, d + 1) ** -0.7) @ torch.randn(d, d, generator=g)


def labels(x: torch.Tensor, classes: int) -> torch.Tensor:
    """Labels that are partly readable at site 0."""
    g = torch.Generator().manual_seed(1)
    rule = x[0] @ torch.randn(x.shape[2], classes, generator=g)
    return (rule + rule.std() * torch.randn(rule.shape, generator=g)).argmax(1)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_logistic_matches_sklearn(shape: tuple[int, int], classes: int) -> None:
    x = activations(*shape)
    y = labels(x, classes)
    fitted = logistic.fit(x, y == 1 if classes == 2 else y, groups=torch.arange(shape[0]))
    scores = fitted.scores(x).double().numpy()
    for site in range(2):
        scaler = StandardScaler().fit(x[site].double().numpy())
        z = scaler.transform(x[site].double().numpy())
        strength = float(fitted.facts["strength"][site])
        peer = LogisticRegression(C=strength, tol=1e-9, max_iter=20000).fit(z, y.numpy())
        weights = (peer.coef_ / scaler.scale_).T
        found = fitted.direction[site].double().numpy()
        assert np.linalg.norm(found - weights) < 1e-4 * np.linalg.norm(weights)
        decision = peer.decision_function(z).reshape(shape[0], -1)
        assert scores[site] == pytest.approx(decision, abs=2e-3)
        said = scores[site].argmax(1) if classes > 2 else (scores[site][:, 0] > 0).astype(int)
        assert (said != peer.predict(z)).sum() <= 1
        assert np.linalg.norm(found) > 0


def test_strength_and_score_match_explicit_folds() -> None:
    x = activations(300, 40)
    y = labels(x, 2) == 1
    groups = torch.arange(300) // 3
    fitted = logistic.fit(x, y, groups=groups, seed=4)
    fold, count = balanced_folds(groups, y.float(), folds=logistic.FOLDS, seed=4)
    for site in range(2):
        z = StandardScaler().fit_transform(x[site].double().numpy())
        losses, areas = {}, {}
        for strength in (4 / (300 * 40 * share) for share in logistic.SHARES):
            loss, area, pairs = 0.0, 0.0, 0
            for f in range(count):
                train, held = (fold != f).numpy(), (fold == f).numpy()
                peer = LogisticRegression(C=strength, tol=1e-8, max_iter=20000).fit(z[train], y[train].numpy())
                u, t = peer.decision_function(z[held]), y[held].numpy()
                loss += float(np.logaddexp(0, np.where(t, -u, u)).sum())
                weight = int(t.sum() * (~t).sum())
                area, pairs = area + weight * roc_auc_score(t, u), pairs + weight
            losses[strength], areas[strength] = loss / 300, area / pairs
        best = min(losses, key=losses.__getitem__)
        assert float(fitted.facts["strength"][site]) == pytest.approx(best, rel=1e-5)
        assert float(fitted.facts["cv_loss"][site]) == pytest.approx(losses[best], rel=2e-3)
        assert float(fitted.facts["cv_score"][site]) == pytest.approx(areas[best], abs=3e-3)
        assert max(areas.values()) - min(areas.values()) > 0, "the strength must matter"


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_matches_sklearn_with_explicit_folds(shape: tuple[int, int]) -> None:
    x = activations(*shape)
    g = torch.Generator().manual_seed(2)
    y = x[0] @ torch.randn(shape[1], generator=g)
    y = (y - y.mean()) / y.std() + 0.5 * torch.randn(shape[0], generator=g)
    groups = torch.arange(shape[0]) // 2
    fitted = ridge.fit(x, y, groups=groups)
    fold, count = balanced_folds(groups, y.double(), folds=ridge.FOLDS, seed=0)
    for site in range(2):
        z = StandardScaler().fit_transform(x[site].double().numpy())
        scores = {}
        for alpha in (shape[0] * shape[1] * share for share in ridge.SHARES):
            said = np.zeros(shape[0])
            for f in range(count):
                train, held = (fold != f).numpy(), (fold == f).numpy()
                said[held] = Ridge(alpha=alpha).fit(z[train], y[train].double().numpy()).predict(z[held])
            scores[alpha] = r2_score(y.double().numpy(), said)
        best = max(scores, key=scores.__getitem__)
        assert float(fitted.facts["strength"][site]) == pytest.approx(best, rel=1e-5)
        assert float(fitted.facts["cv_score"][site]) == pytest.approx(scores[best], abs=1e-4)
        peer = Ridge(alpha=best).fit(z, y.double().numpy())
        assert fitted.scores(x)[site, :, 0].numpy() == pytest.approx(peer.predict(z), abs=1e-3)
    assert fitted.facts["cv_score"][0] > fitted.facts["cv_score"][1] + 0.2
