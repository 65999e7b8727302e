"""Linear maps: an orthogonal map is recovered exactly, shuffled and random maps are at chance, shared token strings are paired."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.data.tokenization import shared_token_strings
from ontogeny.errors import BadInput
from ontogeny.linalg import linear_maps

FEW = settings(max_examples=15, deadline=None)


def orthogonal(d: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(drawn).Q


@FEW
@given(seed=st.integers(0, 1000), d=st.integers(3, 24))
def test_orthogonal_map_is_recovered_exactly(seed: int, d: int) -> None:
    x = torch.randn(10 * d + 20, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turn = orthogonal(d, seed + 1)
    found = linear_maps.fit_linear_map(x, x @ turn + 3.0, seed=seed)
    assert found.strength == 0.0
    assert found.r2 == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(found.matrix.double(), turn, atol=1e-4)
    vector = torch.randn(d, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(found.apply(vector), (vector.double() @ turn).float(), atol=1e-3)


@FEW
@given(seed=st.integers(0, 1000))
def test_true_map_is_above_shuffled_and_random_maps(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(400, 12, generator=generator)
    true = torch.randn(12, 40, generator=generator)
    y = x @ true + 0.5 * torch.randn(400, 40, generator=generator)
    vector = torch.randn(12, generator=generator)
    wanted = vector @ true

    def cosine(found: linear_maps.LinearMap) -> float:
        return float(torch.nn.functional.cosine_similarity(found.apply(vector), wanted, dim=0))

    fitted = linear_maps.fit_linear_map(x, y, seed=seed)
    assert fitted.r2 > 0.8
    assert cosine(fitted) > 0.95
    beside = [cosine(linear_maps.fit_shuffled_map(x, y, fitted.strength, seed=i)) for i in range(20)]
    beside += [cosine(linear_maps.random_map(12, 40, seed=i)) for i in range(20)]
    assert abs(sum(beside) / len(beside)) < 0.2
    assert max(beside) < cosine(fitted)


def test_unrelated_spaces_have_no_explained_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 30, generator=generator), torch.randn(60, 30, generator=generator)
    found = linear_maps.fit_linear_map(x, y)
    assert found.r2 < 0.05
    assert found.strength == max(linear_maps.RIDGE_STRENGTHS)


def test_pairs_of_a_text_are_held_out_together() -> None:
    """Twins of a row on both sides would make any map look perfect."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 40, generator=generator), torch.randn(30, 8, generator=generator)
    twins_x, twins_y, groups = x.repeat(4, 1), y.repeat(4, 1), torch.arange(30).repeat(4)
    assert linear_maps.fit_linear_map(twins_x, twins_y).r2 > 0.5
    assert linear_maps.fit_linear_map(twins_x, twins_y, groups).r2 < 0.1


def test_rejects_too_few_pairs() -> None:
    with pytest.raises(BadInput, match="at least 20 pairs, got 3"):
        linear_maps.fit_linear_map(torch.randn(3, 2), torch.randn(3, 2))


def test_shared_strings_ignore_space_marks_and_special_tokens() -> None:
    one = {"<s>": 0, "▁the": 1, "cat": 2, "Ġ": 3}
    other = {"<s>": 5, "Ġthe": 4, "cat": 9, "dog": 1}
    assert shared_token_strings(one, other, ["<s>"]) == [(1, 4), (2, 9)]
