"""First-order effects: exact in the limit, equal in both modes, close to retraining; γ telescopes exactly; bad input is one line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ontogeny.attribution.baselines import bm25_scores, gradient_dot_scores, order_scores
from ontogeny.attribution.checkpoint_tiers import activation_difference, check_same_shapes, checkpoint_scores
from ontogeny.attribution.loss_derivatives import FlatNetwork
from ontogeny.attribution.metasmoothness import metasmoothness, share_linearity
from ontogeny.attribution.path import PathStage, record_path
from ontogeny.attribution.recorded_tiers import (
    behaviour_value,
    embedding_scores,
    reverse_scores,
    stage_embeddings,
)
from ontogeny.attribution.retraining import RetrainedEffects, retrained_effects
from ontogeny.errors import BadInput
from ontogeny.statistics.rank_correlation import rank_correlation
from ontogeny.training.loop import TrainingConfig

FEATURES = 5


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1))


def data(direction: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, (x @ direction > 0).double()


DIRECTIONS = torch.eye(FEATURES, dtype=torch.float64)[:3] + 0.3
QUERIES = data(DIRECTIONS.sum(0), 64, 99)


def loss(network: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return nn.functional.binary_cross_entropy_with_logits(
        network(x.to(next(iter(network.parameters()), x).dtype))[:, 0], y
    )


def query_loss(network: nn.Module) -> Tensor:
    x, y = QUERIES
    return nn.functional.binary_cross_entropy_with_logits(network(x)[:, 0], y)


def stages(config: TrainingConfig, order: int = 0) -> Sequence[PathStage]:
    def batches(stage: int) -> Any:
        x, y = data(DIRECTIONS[stage], 256, stage)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            rows = torch.from_numpy(np.random.default_rng([order, stage, step]).integers(0, 256, 32))
            return x[rows], y[rows]

        return batch

    return [PathStage(f"stage {i}", query_batch_loss, batches(i), config) for i in range(3)]


def query_batch_loss(network: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return nn.functional.binary_cross_entropy_with_logits(network(x)[:, 0], y)


SGD = TrainingConfig(12, 0.1, warmup=0, weight_decay=0.01, optimiser="sgd", momentum=0.5, clip=5.0)
ADAM = TrainingConfig(12, 0.01, warmup=2, weight_decay=0.1, betas=(0.9, 0.98), clip=1.0)


@pytest.mark.parametrize("config", [SGD, ADAM], ids=["sgd", "adamw"])
def test_scores_are_the_derivative_of_training_by_the_share_of_a_stage(config: TrainingConfig) -> None:
    """At share 1 the first-order effect equals the slope of γ(final) in the share of the stage's updates."""
    path = record_path(make, stages(config), dtype=torch.float64)
    scores, h = reverse_scores(path, query_loss).scores, 1e-5
    for stage in range(3):
        ends = [
            record_path(make, stages(config), skip=stage, scale=1 + sign * h, dtype=torch.float64) for sign in (1, -1)
        ]
        high, low = (behaviour_value(end, end.final.parameters, query_loss) for end in ends)
        # Clip factors count as constants, so that finite differences agree only where nothing is clipped.
        assert scores[stage] == pytest.approx((high - low) / (2 * h), rel=2e-2 if config is ADAM else 1e-4, abs=1e-6)


@pytest.mark.parametrize("config", [SGD, ADAM], ids=["sgd", "adamw"])
def test_forward_and_reverse_mode_agree(config: TrainingConfig) -> None:
    path = record_path(make, stages(config), dtype=torch.float64)
    backward = reverse_scores(path, query_loss)
    forward = embedding_scores(path, stage_embeddings(path), query_loss)
    assert backward.scores == pytest.approx(forward, rel=1e-9)
    assert backward.hessian_products == 36
    thin = reverse_scores(path, query_loss, curvature="thinned", every=4)
    assert thin.hessian_products == 9
    assert reverse_scores(path, query_loss, curvature="none").hessian_products == 0


def test_first_order_with_curvature_is_nearer_to_retraining_than_without() -> None:
    config = TrainingConfig(40, 0.2, warmup=0, weight_decay=0.0, optimiser="sgd", momentum=0.0, clip=1e9)
    path = record_path(make, stages(config), dtype=torch.float64)
    whole = behaviour_value(path, path.final.parameters, query_loss)
    truth = np.array(
        [
            whole - behaviour_value(other, other.final.parameters, query_loss)
            for other in (record_path(make, stages(config), skip=i, dtype=torch.float64) for i in range(3))
        ]
    )
    error = {
        mode: np.abs(np.array(reverse_scores(path, query_loss, curvature=mode).scores) - truth).sum()  # type: ignore[arg-type]
        for mode in ("hessian", "none")
    }
    assert error["hessian"] < error["none"]


def test_behaviour_telescopes_exactly_along_the_path() -> None:
    path = record_path(make, stages(ADAM), dtype=torch.float64)
    ends = [path.network.split(end) for end in path.ends]

    def value(weights: Any) -> np.ndarray:
        return np.array([behaviour_value(path, torch.cat([w.flatten() for w in weights.values()]), query_loss)])

    inside = [
        [value(path.network.split(step.state.parameters)) for step in path.steps if step.stage == i]
        + [value(ends[i + 1])]
        for i in range(3)
    ]
    scores = checkpoint_scores(ends, value, inside=inside)
    # The tiers take differences of weights in float32.
    assert np.concatenate(scores["telescoping"]) == pytest.approx(np.concatenate(scores["endpoint"]), abs=1e-12)
    assert sum(scores["endpoint"])[0] == pytest.approx((value(ends[-1]) - value(ends[0]))[0], abs=1e-12)
    assert set(scores) == {"telescoping", "endpoint", "subtraction", "addition"}


def test_linearised_tier_is_the_limit_of_subtraction_for_small_changes() -> None:
    config = TrainingConfig(3, 1e-5, warmup=0, weight_decay=0.0, optimiser="sgd", momentum=0.0, clip=1e9)
    path = record_path(make, stages(config), dtype=torch.float64)

    def value(weights: Any) -> np.ndarray:
        return np.array([behaviour_value(path, torch.cat([w.flatten() for w in weights.values()]), query_loss)])

    def gradient(weights: Any) -> Any:
        vector = torch.cat([w.flatten() for w in weights.values()])
        return path.network.split(path.network.gradient(vector, lambda network, _: query_loss(network), None))

    scores = checkpoint_scores([path.network.split(end) for end in path.ends], value, gradient)
    assert np.concatenate(scores["linearised"]) == pytest.approx(np.concatenate(scores["endpoint"]), rel=1e-2)


def test_noise_ceiling_is_high_where_orders_agree_and_low_where_they_are_noise() -> None:
    rng = np.random.default_rng(0)
    signal = np.broadcast_to(rng.standard_normal((4, 1, 3, 2)), (4, 6, 3, 2))
    assert RetrainedEffects(signal + 0.01 * rng.standard_normal((4, 6, 3, 2))).noise_ceiling > 0.95
    assert abs(RetrainedEffects(rng.standard_normal((4, 6, 3, 2))).noise_ceiling) < 0.4


def test_retrained_effects_have_one_axis_per_question() -> None:
    config = TrainingConfig(4, 0.1, warmup=0, optimiser="sgd", clip=1e9)
    effects = retrained_effects(
        make, lambda order: stages(config, order), [query_loss], seeds=[0, 1], orders=[0, 1], dtype=torch.float64
    )
    assert effects.effects.shape == (2, 2, 3, 1)
    assert effects.mean.shape == (3, 1)
    assert rank_correlation(np.arange(4.0), np.arange(4.0) ** 3) == pytest.approx(1.0)


def test_metasmoothness_is_high_for_smooth_training_and_low_for_a_chaotic_one() -> None:
    smooth = TrainingConfig(15, 0.05, warmup=0, optimiser="sgd", momentum=0.0, weight_decay=0.0, clip=1e9)
    wild = TrainingConfig(40, 60.0, warmup=0, optimiser="sgd", momentum=0.9, weight_decay=0.0, clip=1e9)
    assert metasmoothness(make, stages(smooth), 0, dtype=torch.float64).reliable
    rough = metasmoothness(make, stages(wild), 0, dtype=torch.float64)
    assert not rough.reliable
    assert "do not rely" in rough.sentence


def test_baselines_rank_as_they_are_defined() -> None:
    stages_of_text = [["the cat sat"], ["dogs bark loudly", "a dog barks"], ["numbers and sums"]]
    assert int(np.argmax(bm25_scores(stages_of_text, ["dogs bark"]))) == 1
    assert order_scores(3) == (1.0, 2.0, 3.0)
    path = record_path(make, stages(SGD), dtype=torch.float64)
    assert len(gradient_dot_scores(path, query_loss)) == 3
    direction = torch.tensor([1.0, 0.0])
    before = torch.zeros(4, 2)
    assert activation_difference(before, before + direction, direction) == pytest.approx(1.0)
    assert activation_difference(before, before, direction) == 0.0


def test_unsuitable_networks_and_behaviours_are_refused() -> None:
    with pytest.raises(BadInput, match="dropout"):
        FlatNetwork(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)).train())
    with pytest.raises(BadInput, match="float32"):
        FlatNetwork(nn.Linear(2, 2).bfloat16())
    with pytest.raises(BadInput, match="running"):
        FlatNetwork(nn.BatchNorm1d(2))
    path = record_path(make, stages(SGD), dtype=torch.float64)
    with pytest.raises(BadInput, match="differentiable"):
        reverse_scores(path, lambda network: (network(QUERIES[0]) > 0).double().mean())
    with pytest.raises(BadInput, match="same tensors"):
        check_same_shapes({"a": torch.zeros(2)}, {"a": torch.zeros(3)})
    with pytest.raises(BadInput, match="stage"):
        record_path(make, [])


def test_response_to_the_share_of_a_stage_is_straight_for_small_steps_and_bent_for_saturating_ones() -> None:
    small = TrainingConfig(5, 1e-4, warmup=0, weight_decay=0.0, optimiser="sgd", momentum=0.0, clip=1e9)
    straight = share_linearity(make, stages(small), 1, query_loss, dtype=torch.float64)
    assert straight == pytest.approx(1.0, abs=0.02)

    def saturating(network: nn.Module) -> Tensor:
        return torch.sigmoid(-12 * (query_loss(network) - 0.5))

    long = TrainingConfig(60, 0.5, warmup=0, weight_decay=0.0, optimiser="sgd", momentum=0.0, clip=1e9)
    assert share_linearity(make, stages(long), 1, saturating, dtype=torch.float64) < 0.7
