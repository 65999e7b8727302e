"""Platt scaling: the maximum of a reference, probabilities that sum to 1, finite where classes are apart."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ontogeny.errors import BadInput
from ontogeny.statistics.platt import fit_platt_scaling


def test_equals_a_reference_and_is_finite_where_classes_are_apart() -> None:
    torch.manual_seed(0)
    scores = 3 * torch.randn(300, 1).double() + 2
    y = (torch.rand(300) < torch.sigmoid(0.8 * scores[:, 0] - 1)).long()
    fitted = fit_platt_scaling(scores, y)
    positive, negative = int(y.sum()), int((1 - y).sum())
    # Soft targets as two weighted copies of each example.
    share = torch.where(y == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    reference = LogisticRegression(C=1e8, tol=1e-10).fit(
        torch.cat([scores, scores]).numpy(), [1] * 300 + [0] * 300, sample_weight=torch.cat([share, 1 - share]).numpy()
    )
    assert float(fitted.slope[0]) == pytest.approx(reference.coef_[0, 0], rel=1e-3)
    assert float(fitted.intercept[0]) == pytest.approx(reference.intercept_[0], rel=1e-3)
    apart = fit_platt_scaling(torch.tensor([[-1e4]] * 9 + [[1e4]] * 9), torch.arange(18) // 9)
    assert apart.probabilities(torch.tensor([[1e4]]))[0].tolist() == pytest.approx([1 / 11, 10 / 11], rel=1e-3)


def test_several_classes_sum_to_one_and_a_missing_class_is_refused() -> None:
    torch.manual_seed(0)
    y = torch.arange(90) % 3
    scores = torch.eye(3)[y] * 4 + torch.randn(90, 3)
    shares = fit_platt_scaling(scores, y).probabilities(scores)
    assert shares.sum(1).tolist() == pytest.approx([1.0] * 90)
    assert float((shares.argmax(1) == y).double().mean()) > 0.9
    for bad in (y * 0, y + 1):
        with pytest.raises(BadInput, match="all 3 classes"):
            fit_platt_scaling(scores, bad)
    with pytest.raises(BadInput, match="finite"):
        fit_platt_scaling(scores * float("nan"), y)
