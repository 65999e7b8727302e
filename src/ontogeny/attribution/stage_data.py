"""Texts that a stage was trained on: their loss gradient, their activations, and the decay of earlier changes under them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ontogeny.attribution.behaviours import last_states, next_token_loss
from ontogeny.attribution.checkpoint_tiers import Weights
from ontogeny.attribution.loss_derivatives import FlatNetwork, math_attention
from ontogeny.attribution.moments import momentum_rate, published_optimizer, rate_sum
from ontogeny.attribution.optimizer_steps import Vector
from ontogeny.attribution.plan import AttributionPlan
from ontogeny.attribution.segments import Segment, segment_scores
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.neurons.mean_ablation import first_tokens

if TYPE_CHECKING:
    from ontogeny.attribution.rows import StageResults

import numpy as np

_BATCH = 16


@dataclass(frozen=True, eq=False)
class StageData:
    """Tokenized texts of a stage."""

    stage: str
    batches: tuple[tuple[Int[Tensor, " token"], ...], ...]

    @classmethod
    def of(cls, model: Model, stage: str, texts: Sequence[str]) -> "StageData":
        """Tokenize the texts of a stage.

        Raises:
            BadInput: no text has two tokens.
        """
        rows = [row for row in first_tokens(model, list(texts), model.context) if len(row) > 1]
        if not rows:
            raise BadInput(
                f"`stage_data` of {stage} needs texts of at least two tokens, got none: give its training texts."
            )
        return cls(stage, tuple(tuple(rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)))

    @property
    def count(self) -> int:
        """Number of texts."""
        return sum(map(len, self.batches))

    def gradient(self, model: Model) -> dict[str, Tensor]:
        """Gradient of the mean loss at the model's weights, by parameter."""
        network = model.network
        network.zero_grad(set_to_none=True)
        with math_attention():
            for batch in self.batches:
                torch.autograd.backward(next_token_loss(network, batch, model.device) * len(batch) / self.count)
        gradient = {name: p.grad.detach().clone() for name, p in network.named_parameters() if p.grad is not None}
        network.zero_grad(set_to_none=True)
        return gradient

    @torch.no_grad()
    def states(self, model: Model, layers: set[int]) -> dict[int, Float[Tensor, "example d"]]:
        """Activations at the last token of each text, by layer of the residual stream."""
        return {
            layer: torch.cat(
                [last_states(model.network, batch, model.device, layer).float().cpu() for batch in self.batches]
            )
            for layer in layers
        }

    def gauss_newton_product(self, model: Model, vector: Vector, direction: Vector) -> Vector:
        """Product of the Gauss–Newton matrix of the mean loss at a parameter vector with a direction."""
        flat = FlatNetwork(model.network)
        total = torch.zeros_like(vector)

        def loss(network: nn.Module, batch: Any) -> Tensor:
            return next_token_loss(network, batch, model.device)

        for batch in self.batches:
            total += flat.gauss_newton_product(vector, loss, batch, direction) * (len(batch) / self.count)
        return total


def segment_effects(
    result: "StageResults",
    plan: AttributionPlan,
    data: Mapping[str, StageData],
    deltas: Mapping[str, Weights],
    ends: Mapping[str, Weights],
    slope: Weights,
    model: Model,
    allow_pickle: bool,
) -> None:
    """Scores of the tier `segments`; a stage whose data, rates or moments are missing leaves itself and all earlier ones without."""
    segments: list[Segment] = []
    names = [stage.name for stage in plan.path]
    first = len(names)
    for index in reversed(range(len(names))):
        name = names[index]
        if name not in data:
            break
        try:
            segments.insert(0, _segment(index, plan, data[name], deltas[name], ends[name], model, allow_pickle))
        except BadInput as error:
            for earlier in names[: index + 1]:
                result.reasons["segments"][earlier] = str(error)
            break
        first = index
    if not segments:
        return
    gradient = _flat(slope, ends[names[first]])
    scores = segment_scores(segments, gradient, len(names))
    for index in range(first, len(names)):
        result.scores["segments"][names[index]] = np.array([scores[index]])


def _segment(
    index: int, plan: AttributionPlan, own: StageData, delta: Weights, end: Weights, model: Model, allow_pickle: bool
) -> Segment:
    last = plan.path[index].checkpoints[-1]
    optimizer = published_optimizer(last, model.network, allow_pickle=allow_pickle)
    at = _flat(end, end)
    return Segment(
        index,
        _flat(delta, end),
        momentum_rate(rate_sum(last), optimizer),
        lambda direction: own.gauss_newton_product(model, at, direction),
        optimizer.preconditioner,
        optimizer.decay,
    )


def _flat(weights: Weights, order: Weights) -> Vector:
    """Weights as one vector; a tensor without a gradient is zero."""
    return torch.cat(
        [(weights[name] if name in weights else torch.zeros_like(order[name])).float().flatten() for name in order]
    )
