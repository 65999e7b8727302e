"""Ablation of a concept's direction: do the answers to its questions get worse by more than along random directions of equal norm?

A probe that reads a concept does not show that the model uses it. The direction is removed at one site from every token of prompt and
answer; each control moves every token by as much, along a random direction.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.interventions import Ablate
from ontogeny.measurements.behaviour import answer_groups
from ontogeny.measurements.design import Design
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics import bootstrap
from ontogeny.statistics.nulls import null_interval
from ontogeny.statistics.permutation import tail_p
from ontogeny.steering.log_likelihood import log_likelihoods, token_log_likelihoods, tokenize_answers
from ontogeny.steering.steer import Edit, Edits, control_edits

_TOLERANCE = 1e-4
"""Relative singular value below which an axis is not a direction of its own."""
_LEAST_P = 1e-5
"""The tail of a few dozen controls is not known any finer."""


@dataclass(frozen=True, eq=False)
class AnswerAblation:
    """Changes of the margin of the right over the wrong answer, nats."""

    change: Float[Tensor, " answer"]
    null: Float[Tensor, " control"]
    """Mean change by each control."""

    @property
    def p(self) -> float:
        """One-sided p that the answers get worse by more than along random directions."""
        return tail_p(-float(self.change.mean()), -self.null, least=_LEAST_P)


def ablation_axes(direction: Float[Tensor, "d k"]) -> Float[Tensor, "d axis"]:
    """Orthonormal axes of a probe's directions; of classes, one fewer than there are, since they are relative to each other.

    Raises:
        BadInput: no direction of finite length, such as that of classes with equal means.
    """
    if not direction.isfinite().all() or float(direction.norm()) == 0:
        raise BadInput("an ablation needs a direction of finite length: the class means coincide, or the fit failed.")
    left, values, _ = torch.linalg.svd(direction.double(), full_matrices=False)
    return left[:, values > _TOLERANCE * values[0]]


@torch.no_grad()
def ablate_answers(
    model: Model, design: Design, axes: Float[Tensor, "d axis"], site: Site, *, controls: int, seed: int
) -> AnswerAblation:
    """Ablate the axes at a site from all tokens of the concept's questions, and measure the controls.

    Raises:
        BadInput: a question that exceeds the context, or a model that scores no answers.
    """
    concept = design.concept
    pairs = [(answer.prompt, text) for answer in concept.answers for text in (answer.right, answer.wrong)]
    answers = tokenize_answers(model, pairs, template=concept.template)

    def margins(edits: Edits) -> Float[Tensor, " answer"]:
        scores = log_likelihoods(token_log_likelihoods(model, answers, edits)).view(-1, 2)
        return scores[:, 0] - scores[:, 1]

    plain = margins(())
    edits = [Edit(site, Ablate(axes.to(next(model.network.parameters()))))]
    seeds = range(seed * controls, (seed + 1) * controls)
    null = [float((margins(one) - plain).mean()) for one in control_edits(edits, seeds)]
    return AnswerAblation(margins(edits) - plain, torch.tensor(null, dtype=torch.float64))


def ablation_rows(design: Design, ablation: AnswerAblation, site: Site, method: str, seed: int) -> list[Record]:
    """The effect with its interval over groups of questions, that of random directions, and the p."""
    change, n = ablation.change, len(ablation.change)
    groups = answer_groups(design)
    weights = bootstrap.group_weights(groups, samples=len(design.weights), seed=seed)
    samples = bootstrap.mean_samples(change[None], weights)[:, 0]
    ends = bootstrap.percentile_interval(change.mean(), samples, groups=len(groups.unique()))
    about = design.row_context(seed, n=n, split="all")
    note = f"{len(ablation.null)} random directions of equal norm"
    return [
        about.row("ablation_effect", float(change.mean()), site, interval=ends.ends, method=method),
        about.row(
            "ablation_effect",
            float(ablation.null.mean()),
            site,
            interval=null_interval(ablation.null),
            method=method,
            control="random_direction",
            note=note,
        ),
        about.row("ablation_p", ablation.p, site, method=method, note=note),
    ]
