"""Weight differences and their subspaces: orientation for Linear and Conv1D, nulls of equal rank and norm, restored weights."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.fine_tuning.null_changes import gradient_change, loss_gradients, random_change
from ontogeny.fine_tuning.subspaces import (
    aligned_share,
    energy_rank,
    random_aligned_shares,
    random_orthonormal,
    singular_vectors,
)
from ontogeny.fine_tuning.weight_differences import block_matrices, changed_weights, parameter_differences
from ontogeny.models.model import Model, load_model

IDS = torch.tensor([[5, 17, 40, 9, 77]])


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest, tiny) -> Model:
    """GPT-2 stores its matrices transposed, Llama does not."""
    return load_model(tiny(request.param))


def test_matrices_map_inputs_to_outputs(model: Model) -> None:
    matrices = block_matrices(model)
    assert {m.is_transposed for m in matrices} == {model.network.config.model_type == "gpt2"}
    assert {str(m.site) for m in matrices} == {"attn.1", "mlp.1", "attn.2", "mlp.2"}
    for matrix in matrices:
        x = torch.randn(3, matrix.weight.shape[1])
        bias = matrix.module(torch.zeros_like(x))
        torch.testing.assert_close(matrix.module(x) - bias, x @ matrix.weight.T)


@pytest.mark.parametrize("planted", ["inside", "outside"])
def test_a_planted_change_lies_where_it_was_put(model: Model, planted: str) -> None:
    """The change writes along u and reads along v, wherever the layer keeps its rows and columns."""
    matrix = max(block_matrices(model), key=lambda m: m.weight.shape[0])  # more outputs than inputs
    space = singular_vectors(matrix.weight)
    d, inside = matrix.weight.shape
    u, v = torch.randn(d), torch.randn(inside)
    projected = space.left @ (space.left.T @ u)
    u = projected if planted == "inside" else u - projected
    v = space.right @ (space.right.T @ v)
    change = torch.outer(u, v)
    with changed_weights(model.network, {matrix.parameter: matrix.stored(change)}):
        x = torch.randn(4, inside)
        moved = matrix.module(x)
    torch.testing.assert_close(moved - matrix.module(x), (x @ v)[:, None] * u, atol=1e-4, rtol=1e-4)
    top = singular_vectors(change)
    assert top.rank == 1
    assert aligned_share(top.left, top.values, space.left) == pytest.approx(float(planted == "inside"), abs=1e-4)
    assert aligned_share(top.right, top.values, space.right) == pytest.approx(1, abs=1e-4)


def test_weights_are_restored_bit_for_bit(model: Model) -> None:
    before = copy.deepcopy(model.network.state_dict())
    plain = model.network(IDS).logits
    other = copy.deepcopy(model.network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter))
    change = parameter_differences(model.network, other)
    with pytest.raises(RuntimeError), changed_weights(model.network, change, 0.7):
        raise RuntimeError
    with changed_weights(model.network, change, 0.0):
        assert model.network(IDS).logits.equal(plain)
    with changed_weights(model.network, change, 1.0):
        torch.testing.assert_close(model.network(IDS).logits, other(IDS).logits, atol=1e-4, rtol=1e-4)
    assert all(value.equal(before[name]) for name, value in model.network.state_dict().items())


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 12), st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_subspaces_keep_to_their_theorems(out: int, inside: int, rank: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rank = min(rank, out, inside)
    matrix = torch.randn(out, rank, generator=generator) @ torch.randn(rank, inside, generator=generator)
    whole = singular_vectors(matrix, 1.0)
    assert whole.rank == rank
    assert aligned_share(whole.left, whole.values, whole.left) == pytest.approx(1, abs=1e-5)
    basis = random_orthonormal(out, min(2, out), generator)
    share = aligned_share(whole.left, whole.values, basis)
    assert -1e-6 <= share <= 1 + 1e-6
    # Neither its size nor the side from which it is looked at matters.
    scaled, turned = singular_vectors(scale * matrix, 1.0), singular_vectors(matrix.T, 1.0)
    assert aligned_share(scaled.left, scaled.values, basis) == pytest.approx(share, abs=1e-4)
    assert aligned_share(turned.right, turned.values, basis) == pytest.approx(share, abs=1e-4)
    null = random_change(whole.values, (out, inside), generator)
    torch.testing.assert_close(singular_vectors(null, 1.0).values, whole.values, atol=1e-3, rtol=1e-3)


def test_random_directions_align_by_chance() -> None:
    shares = random_aligned_shares(torch.tensor([3.0, 2.0, 1.0]), d=20, k=5, draws=400, seed=0)
    assert float(shares.mean()) == pytest.approx(5 / 20, abs=0.02)
    assert energy_rank(torch.tensor([3.0, 1.0, 0.0])) == 1  # 9 of 10 are nine tenths
    assert energy_rank(torch.zeros(3)) == singular_vectors(torch.zeros(3, 3)).rank == 0


def test_the_loss_falls_along_the_neutral_gradient(tiny) -> None:
    model = load_model(tiny("gpt2"))
    texts = [torch.arange(5, 25), torch.arange(40, 47)]
    matrices = block_matrices(model)
    gradients = loss_gradients(model, texts, matrices, batch=1)
    assert not any(m.module.weight.grad is not None for m in matrices)

    def loss() -> float:
        with torch.no_grad():
            sums = [
                torch.nn.functional.cross_entropy(model.network(t[None]).logits[0, :-1], t[1:], reduction="sum")
                for t in texts
            ]
        return float(sum(sums)) / sum(len(t) - 1 for t in texts)

    matrix = matrices[-1]
    own = singular_vectors(gradients[matrix.parameter], 1.0)
    change = gradient_change(own.values, own)
    step = 1e-2 / float(change.norm())
    with changed_weights(model.network, {matrix.parameter: matrix.stored(change)}, step):
        lower = loss()
    with changed_weights(model.network, {matrix.parameter: matrix.stored(change)}, -step):
        higher = loss()
    # The change has the gradient's own singular values, so that it is minus the gradient.
    expected = 2 * step * float(gradients[matrix.parameter].norm()) ** 2
    assert higher - lower == pytest.approx(expected, rel=0.02)


def test_other_shapes_and_values_are_one_line(tiny) -> None:
    model, other = load_model(tiny("gpt2")), load_model(tiny("llama"))
    with pytest.raises(BadInput, match="same parameters"):
        parameter_differences(model.network, other.network)
    with pytest.raises(BadInput, match="one shape"):
        parameter_differences(torch.nn.Linear(2, 2), torch.nn.Linear(3, 2))
    with pytest.raises(BadInput, match="`change` must name parameters"), changed_weights(model.network, {"no": IDS}):
        pass
    for share in (0, -1, 1.5, float("nan")):
        with pytest.raises(BadInput, match="`share` must be above 0"):
            singular_vectors(torch.eye(2), share)
    with pytest.raises(BadInput, match="finite"):
        singular_vectors(torch.full((2, 2), torch.nan))
    with pytest.raises(BadInput, match="not be zero"):
        gradient_change(torch.ones(1), singular_vectors(torch.zeros(2, 2)))
    with pytest.raises(BadInput, match="at least two tokens"):
        loss_gradients(model, [torch.tensor([3])], block_matrices(model))
