"""Requests as all stages read them, and what they do with them: activations, inputs of each matrix, log-odds of a refusal."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ontogeny.activations.activations import activations_at_token
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.fine_tuning.settings import WeightChangeSettings
from ontogeny.fine_tuning.weight_differences import BlockMatrix
from ontogeny.models.forward import forward_padded
from ontogeny.models.model import Model
from ontogeny.records import IntervalEnds
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights, interval_ends
from ontogeny.statistics.splits import group_folds, number_groups
from ontogeny.statistics.unique import unique_inverse
from ontogeny.steering.refusal_prompts import PromptTemplate
from ontogeny.steering.refusal_score import first_token_log_odds

REQUEST_KINDS = ("harmful", "harmless")


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests as token ids, which are the same for all stages."""

    ids: list[Int[Tensor, " token"]]
    first: list[list[int]]
    """First tokens of refusals after each request."""
    harmful: Bool[Tensor, " request"]
    groups: Int[Tensor, " request"]
    fold: Int[Tensor, " request"]
    """Two halves without a common group."""
    weights: Float[Tensor, "sample request"]
    """Bootstrap of the groups."""

    @classmethod
    def read(cls, model: Model, concept: Concept, settings: WeightChangeSettings) -> "Requests":
        """Requests in the template and the tokens of one model.

        Raises:
            BadInput: a concept that is not binary, too few requests of a kind, or one that exceeds the context.
        """
        if concept.kind != "binary":
            raise BadInput(
                f"`requests` must be a binary concept, got {concept.name} of kind {concept.kind}: name another one."
            )
        sides = [[e for e in concept.examples if bool(e.target) is harmful] for harmful in (True, False)]
        chosen = [example for side in sides for example in side[: settings.requests]]
        harmful = torch.tensor([bool(example.target) for example in chosen])
        groups = number_groups(example.group for example in chosen)
        if any(len({e.group for e in chosen if bool(e.target) is kind}) < 4 for kind in (True, False)):
            raise BadInput(
                f"`requests` must have at least four groups of each kind, got {len(sides[0])} harmful and {len(sides[1])} harmless "
                "requests: give more, in groups of their own."
            )
        template = PromptTemplate.of_stage(model, settings.template)
        ids, first = template.with_first_tokens(model, [example.text for example in chosen], settings.phrases)
        fold = group_folds(groups, harmful, "binary", k=2, seed=settings.seed)
        weights = group_weights(groups, samples=settings.samples, seed=settings.seed).double()
        return cls(ids, first, harmful, groups, fold, weights)

    def of(self, kind: str) -> Bool[Tensor, " request"]:
        return self.harmful if kind == "harmful" else ~self.harmful

    def count(self, kind: str) -> int:
        """Number of groups with requests of a kind."""
        return unique_inverse(self.groups[self.of(kind)])[0]

    def mean(self, values: Float[Tensor, " request"], kind: str) -> tuple[float, Float[Tensor, " sample"]]:
        """Mean over the requests of a kind, and its bootstrap samples, which are paired over calls."""
        inside = self.of(kind)
        weights = self.weights[:, inside]
        return float(values[inside].double().mean()), weights @ values[inside].double() / weights.sum(1)

    def estimate(self, values: Float[Tensor, " request"], kind: str) -> tuple[float, IntervalEnds]:
        """Mean over the requests of a kind with its interval."""
        value, samples = self.mean(values, kind)
        return value, interval_ends(value, samples, groups=self.count(kind))

    def log_odds(self, model: Model) -> Float[Tensor, " request"]:
        """Log-odds that the next token begins a refusal."""
        return first_token_log_odds(model, self.ids, self.first)

    def streams(self, model: Model) -> Float[Tensor, "block request d"]:
        """The stream after each block, at the last token."""
        sites = [Site("resid", layer) for layer in range(1, model.layers + 1)]
        return activations_at_token(model, self.ids, [-1] * len(self.ids), sites)

    def matrix_inputs(self, model: Model, matrices: Sequence[BlockMatrix]) -> Mapping[str, Float[Tensor, "request in"]]:
        """Input of each matrix at the last token, by name of the parameter."""
        lengths = torch.tensor([len(row) for row in self.ids])
        inputs = {
            matrix.parameter: torch.full((len(self.ids), matrix.weight.shape[1]), torch.nan) for matrix in matrices
        }

        @contextlib.contextmanager
        def watch(rows: list[int]) -> Iterator[None]:
            with contextlib.ExitStack() as hooks:
                for matrix in matrices:
                    reader = _last_token_reader(inputs[matrix.parameter], rows, lengths[rows])
                    hooks.callback(matrix.module.register_forward_pre_hook(reader).remove)
                yield

        for _ in forward_padded(model, self.ids, batch=32, body=True, context=watch):
            pass
        return inputs


def _last_token_reader(
    table: Float[Tensor, "request in"], rows: list[int], lengths: Int[Tensor, " row"]
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def read(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        # Some families pass all tokens of a batch as one row.
        value = args[0] if args[0].ndim == 3 else args[0].reshape(len(rows), -1, args[0].shape[-1])
        table[rows] = value[torch.arange(len(rows)), lengths - 1].float().cpu()

    return read
