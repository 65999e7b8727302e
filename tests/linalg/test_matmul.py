"""Matrix products by oneDNN equal the plain products in every shape; otherwise the plain product is used."""

import pytest
import torch

import ontogeny.linalg.matmul as module
from ontogeny.linalg.matmul import matmul

SHAPES = [((300, 200), (200, 150)), ((3, 200, 160), (3, 160, 170)), ((2, 180), (180, 3)), ((5, 1, 300), (5, 300, 4))]


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_matches_the_exact_product(left, right, transposed):
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(left, generator=draw), torch.randn(right, generator=draw)
    if transposed:
        a, b = a.mT.contiguous().mT, b.mT.contiguous().mT
    exact = (a.double() @ b.double()).float()
    assert torch.allclose(matmul(a, b), exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_other_dtypes_and_gradients_use_torch():
    a = torch.randn(200, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(matmul(a, a), a @ a)
    b = a.float().requires_grad_()
    matmul(b, b).sum().backward()
    assert b.grad is not None


def test_rejects_a_wrong_onednn_product(monkeypatch):
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(module, "_agrees", module._agrees.__wrapped__)
    monkeypatch.setattr(module, "_by_onednn", lambda x, y: (x @ y) * 1.001)
    assert not module._agrees()
    assert torch.equal(matmul(a, a), a @ a)
