"""Isomap: a bent ring lies flat again, in its order; points in parts are refused."""

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.linalg.isomap import isomap


def test_a_bent_ring_lies_flat_in_its_order() -> None:
    angle = 2 * np.pi * np.arange(24) / 24
    ring = np.stack([np.cos(angle), np.sin(angle), 0.3 * np.cos(2 * angle), 0.3 * np.sin(2 * angle)], axis=1)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 9)))[0][:4]
    flat = isomap(ring @ turn, neighbours=2)
    assert flat.shape == (24, 2)
    steps = np.diff(np.unwrap(np.arctan2(flat[:, 1], flat[:, 0])))
    np.testing.assert_allclose(np.abs(steps), 2 * np.pi / 24, rtol=0.02)
    assert len(set(np.sign(steps))) == 1
    radius = np.linalg.norm(flat, axis=1)
    assert radius.max() / radius.min() < 1.05


def test_parts_and_too_few_points_are_one_line() -> None:
    points = np.random.default_rng(0).standard_normal((24, 3)) * 0.1
    points[12:] += 100
    with pytest.raises(BadInput, match="in parts"):
        isomap(points, neighbours=3, most=6)
    with pytest.raises(BadInput, match="at least 4 finite"):
        isomap(points[:3])
