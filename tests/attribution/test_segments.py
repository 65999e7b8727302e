"""Segments decay as a matrix exponential; the Gauss–Newton product is JᵀHJ; published moments are read, or refused with a reason."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ontogeny.attribution.loss_derivatives import FlatNetwork
from ontogeny.attribution.moments import momentum_rate, published_optimizer, rate_sum
from ontogeny.attribution.path import PathStage, record_path
from ontogeny.attribution.recorded_tiers import behaviour_gradient, reverse_scores
from ontogeny.attribution.segments import (
    Segment,
    adam_preconditioner,
    path_segment_scores,
    path_segments,
    segment_scores,
)
from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint
from ontogeny.training.loop import TrainingConfig, learning_rate_at

SIZE = 6


def positive_matrix(seed: int) -> torch.Tensor:
    a = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T


def vector(seed: int) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("adam", [False, True])
def test_effect_decays_as_the_matrix_exponential_of_later_segments(adam: bool) -> None:
    first, second, rate = positive_matrix(0), positive_matrix(1), 0.3
    scale = vector(2).abs() + 0.5 if adam else None
    p = torch.diag(scale) if scale is not None else torch.eye(SIZE, dtype=torch.float64)
    deltas, gradient = (vector(3), vector(4)), vector(5)
    segments = [
        Segment(stage, delta, rate, lambda v, m=matrix: m @ v, scale)
        for stage, (delta, matrix) in enumerate(zip(deltas, (first, second), strict=True))
    ]
    scores = segment_scores(segments, gradient, 2, rank=SIZE)

    def decay(matrix: torch.Tensor) -> torch.Tensor:
        return torch.linalg.matrix_exp(-rate * p @ matrix)

    def mean_decay(matrix: torch.Tensor) -> torch.Tensor:
        a = rate * p @ matrix
        return torch.linalg.solve(a, torch.eye(SIZE, dtype=torch.float64) - decay(matrix))

    assert scores[1] == pytest.approx(float(gradient @ mean_decay(second) @ deltas[1]), rel=1e-6)
    assert scores[0] == pytest.approx(float(gradient @ decay(second) @ mean_decay(first) @ deltas[0]), rel=1e-6)


def test_flat_loss_leaves_the_linearised_effect() -> None:
    segments = [Segment(stage, vector(stage), 1.0, torch.zeros_like) for stage in (0, 1)]
    scores = segment_scores(segments, vector(9), 2)
    assert scores == pytest.approx([float(vector(9) @ vector(stage)) for stage in (0, 1)])
    with pytest.raises(BadInput, match="segment"):
        segment_scores([], vector(0), 1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def loss(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


BATCH = (torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(7) % 3)


def test_gauss_newton_product_is_the_outer_product_of_the_outputs_derivatives() -> None:
    flat = FlatNetwork(network())
    at, direction = flat.vector(), torch.randn(43, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def outputs(v: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(flat.network, flat.split(v), (BATCH[0],)).flatten()

    jacobian = torch.autograd.functional.jacobian(outputs, at)
    hessian = torch.autograd.functional.hessian(
        lambda z: nn.functional.cross_entropy(z.view(7, 3), BATCH[1]), outputs(at)
    )
    product = flat.gauss_newton_product(at, loss, BATCH, direction)
    assert torch.allclose(product, jacobian.T @ hessian @ (jacobian @ direction), atol=1e-12)
    assert float(product @ direction) >= 0
    straight = FlatNetwork(nn.Linear(4, 3).double())
    ones = torch.ones(15, dtype=torch.float64)
    products = [
        f(straight.vector(), loss, BATCH, ones) for f in (straight.hessian_product, straight.gauss_newton_product)
    ]
    assert torch.allclose(*products), "they agree where the outputs are linear in the parameters"


def test_gauss_newton_and_segments_name_the_stage_that_the_hessian_names() -> None:
    other = (BATCH[0], (BATCH[1] + 1) % 3)
    stages = [
        PathStage(name, loss, lambda step, b=b: b, TrainingConfig(15, 0.02, warmup=0, weight_decay=0.0))
        for name, b in (("right", BATCH), ("wrong", other))
    ]
    path = record_path(network, stages, dtype=torch.float64)

    def behaviour(net: nn.Module) -> torch.Tensor:
        return loss(net, BATCH)

    exact, outer = (reverse_scores(path, behaviour, curvature=c).scores for c in ("hessian", "gauss_newton"))  # type: ignore[arg-type]
    coarse = path_segment_scores(path, behaviour, path_segments(path, per_stage=2))
    assert all(scores[1] > 0 > scores[0] - scores[1] for scores in (exact, outer, coarse))
    # Few steps in a flat region: all reduce to the gradient times the change.
    short = record_path(
        network, [PathStage("a", loss, lambda step: BATCH, TrainingConfig(1, 1e-6, warmup=0))], dtype=torch.float64
    )
    change = short.final.parameters - short.ends[0]
    expected = float(behaviour_gradient(short, behaviour) @ change)
    assert path_segment_scores(short, behaviour, path_segments(short)) == pytest.approx([expected], rel=1e-3)


def published(folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Checkpoint:
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net, BATCH).backward()
        optimizer.step()
    folder.mkdir(parents=True)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    return Checkpoint(str(folder), stage="sft", step=steps)


def test_moments_are_read_by_name_and_in_the_order_of_the_trainer(tmp_path: Path) -> None:
    net = network()
    matrices = [p for p in net.parameters() if p.ndim >= 2]
    others = [p for p in net.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    checkpoint = published(tmp_path / "adam", net, adam, 4)
    read = published_optimizer(checkpoint, net, allow_pickle=True)
    expected = torch.cat(
        [adam_preconditioner(adam.state[p]["exp_avg_sq"].float().flatten(), 4, 0.99, 1e-8) for p in net.parameters()]
    )
    assert read.preconditioner is not None
    assert torch.allclose(read.preconditioner, expected)
    assert torch.allclose(read.decay, FlatNetwork(net).decay(0.1).float())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    slow = published_optimizer(published(tmp_path / "sgd", net, sgd, 2), net, allow_pickle=True)
    assert slow.preconditioner is None
    assert momentum_rate(1.0, slow) == pytest.approx(10.0)


def test_missing_or_foreign_moments_are_refused_with_the_tiers_that_remain(tmp_path: Path) -> None:
    net = network()
    nowhere = Checkpoint(str(tmp_path), stage="sft", step=3)
    with pytest.raises(BadInput, match=r"moments of sft 3.*all other tiers remain"):
        published_optimizer(nowhere, net)
    with pytest.raises(BadInput, match=r"learning rates of sft 3.*all other tiers remain"):
        rate_sum(nowhere)
    adam = published(tmp_path / "a", net, torch.optim.AdamW(net.parameters()), 1)
    with pytest.raises(BadInput, match="allow_pickle"):
        published_optimizer(adam, net)
    with pytest.raises(BadInput, match="of this training"):
        published_optimizer(adam, nn.Linear(2, 2), allow_pickle=True)
    with pytest.raises(BadInput, match="another shape"):
        published_optimizer(adam, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), allow_pickle=True)
    state = torch.load(tmp_path / "a" / "optimizer.pt", weights_only=True)  # noqa: TID251
    del state["state"][1]["exp_avg_sq"]
    torch.save(state, tmp_path / "a" / "optimizer.pt")
    with pytest.raises(BadInput, match=r"lacks exp_avg_sq.*all other tiers remain"):
        published_optimizer(adam, net, allow_pickle=True)
    (tmp_path / "a" / "optimizer.pt").write_bytes(b"no pickle")
    with pytest.raises(BadInput, match="cannot be read as the state of an optimizer"):
        published_optimizer(adam, net, allow_pickle=True)


def test_rates_are_summed_over_all_steps(tmp_path: Path) -> None:
    config = TrainingConfig(20, 1e-3, warmup=5)
    run = tmp_path / "checkpoint-10"
    run.mkdir()
    (tmp_path / "training.json").write_text(json.dumps({"training": vars(config)}))
    checkpoint = Checkpoint(str(run), step=10)
    assert rate_sum(checkpoint) == pytest.approx(sum(learning_rate_at(i, config) for i in range(1, 11)))
    log = [{"step": 4, "learning_rate": 1e-3}, {"step": 8, "learning_rate": 5e-4}, {"step": 12, "learning_rate": 9.0}]
    (run / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    assert rate_sum(checkpoint) == pytest.approx(4 * 1e-3 + 6 * 5e-4)
