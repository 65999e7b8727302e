"""Products by oneDNN are the plain products, in every shape that may meet them; where they cannot be, the plain ones stand."""

import pytest
import torch

from ontogeny.linalg.matmul import matmul

SHAPES = [((300, 200), (200, 150)), ((3, 200, 160), (3, 160, 170)), ((2, 180), (180, 3)), ((5, 1, 300), (5, 300, 4))]


@pytest.mark.parametrize(("left", "right"), SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_is_the_product(left, right, turned):
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(left, generator=draw), torch.randn(right, generator=draw)
    if turned:
        a, b = a.mT.contiguous().mT, b.mT.contiguous().mT
    exact = (a.double() @ b.double()).float()
    assert torch.allclose(matmul(a, b), exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_other_numbers_are_left_to_torch():
    a = torch.randn(200, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(matmul(a, a), a @ a)
    b = a.float().requires_grad_()
    matmul(b, b).sum().backward()
    assert b.grad is not None


def test_a_wrong_one_is_found_out(monkeypatch):
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(matmul, "_agrees", matmul._agrees.__wrapped__)
    monkeypatch.setattr(matmul, "_by_onednn", lambda x, y: (x @ y) * 1.001)
    assert not matmul._agrees()
    assert torch.equal(matmul(a, a), a @ a)
