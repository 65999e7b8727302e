"""Effect of a vector on a model: on the margin of the concept's answers, else on the model's own probe at the end of the stream.

Answers: log P(the positive class's answer) − log P(the other), on questions of held-out groups, with the vector added from the last
token of the prompt on. A question that begins with an example's text asks for the class of that example; otherwise the right answer is
the positive one. Without answers: the score of the target's own mass-mean probe at its last layer, in standard deviations of the
unsteered scores, with the vector added to all tokens of held-out texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.batching import Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.interventions import Add
from ontogeny.measurements.behaviour import answer_groups
from ontogeny.measurements.design import Design
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.steering.cached_prompts import CachedPrompts
from ontogeny.steering.log_likelihood import log_likelihoods, tokenize_answers
from ontogeny.steering.side_effects import alpha_at_equal_kl, measure_side_effects
from ontogeny.steering.steer import Edit, steer

DirectionVector = Float[Tensor, " d"]
_BATCH_SIZE = 256
"""Answers per forward pass; large, since the fixed cost of a pass is paid for each vector."""


@dataclass(frozen=True, eq=False)
class TransferOutcome:
    """Quantity that a vector should change: one number per question or text, higher for the positive class."""

    kind: str
    """`answers` (nats) or `readout` (standard deviations of the probe's scores)."""
    groups: Int[Tensor, " unit"]
    measure: Callable[[Sequence[Edit]], Float[Tensor, " unit"]]
    where: str
    """Tokens that are edited."""


def answer_signs(concept: Concept) -> list[int]:
    """For each question, +1 if the right answer is that of the positive class, else −1."""
    labels: dict[str, bool] = {example.text: bool(example.target) for example in concept.examples}
    longest_first = sorted(labels, key=len, reverse=True)
    signs = []
    for answer in concept.answers:
        text = next((text for text in longest_first if answer.prompt.startswith(text)), None)
        signs.append(1 if text is None or labels[text] else -1)
    return signs


def answer_margin_outcome(model: Model, design: Design) -> TransferOutcome:
    """The margin of the questions of held-out groups, asked in the template of the concept.

    Raises:
        BadInput: fewer than two held-out groups have questions.
    """
    concept, groups = design.concept, answer_groups(design)
    train = set(design.groups[design.split.train].tolist())
    held_out = [i for i, group in enumerate(groups.tolist()) if group not in train]
    if len({int(groups[i]) for i in held_out}) < 2:
        raise BadInput(
            f"{concept.name} must have questions in two held-out groups to measure an effect on answers: add questions, or turn "
            "`effect` off."
        )
    signs = torch.tensor([answer_signs(concept)[i] for i in held_out], dtype=torch.float64)
    answers = [concept.answers[i] for i in held_out]
    pairs = [(answer.prompt, text) for answer in answers for text in (answer.right, answer.wrong)]
    prompts = CachedPrompts.of(model, tokenize_answers(model, pairs, template=concept.template), batch=_BATCH_SIZE)

    def margin(edits: Sequence[Edit]) -> Tensor:
        scores = log_likelihoods(prompts.scores(edits))
        return signs * (scores[0::2] - scores[1::2])

    return TransferOutcome("answers", groups[held_out], margin, "last")


def probe_readout_outcome(
    model: Model, design: Design, work: Workload, reads: Tensor, probe: DirectionVector
) -> TransferOutcome:
    """The score of the model's own probe at its last layer, on held-out texts."""
    last, held_out = Site("resid", model.layers), design.split.test
    part, places = work.subset(reads[held_out].tolist())

    def projected(edits: Sequence[Edit]) -> Tensor:
        with steer(model, edits):
            captured = capture_workload(model, part, [last])
        return (captured.parts["resid"][0].cpu().double() @ probe.double())[places]

    std = projected([]).std()
    scale = float(std) if std > 0 else float("nan")
    return TransferOutcome("readout", design.groups[held_out], lambda edits: projected(edits) / scale, "all")


@dataclass(frozen=True, eq=False)
class VectorEffect:
    """Effect of one vector on one model."""

    effect: Float[Tensor, " unit"]
    """Steered minus unsteered."""
    alpha: float
    """Multiple of the vector that was added."""


@dataclass(frozen=True, eq=False)
class EffectMeter:
    """Measures the effects of vectors on one outcome, at one site of one model."""

    model: Model
    site: Site
    outcome: TransferOutcome
    base: Float[Tensor, " unit"]
    neutral: tuple[str, ...]
    target_kl: float | None

    @classmethod
    def of(
        cls, model: Model, site: Site, outcome: TransferOutcome, neutral: Sequence[str], target_kl: float | None = None
    ) -> "EffectMeter":
        """A meter with the unsteered outcome as its base."""
        return cls(model, site, outcome, outcome.measure([]), tuple(neutral), target_kl)

    def edits(self, vector: DirectionVector) -> list[Edit]:
        return [Edit(self.site, Add(vector), self.outcome.where)]  # type: ignore[arg-type]

    def measure(self, vector: DirectionVector) -> VectorEffect:
        """The effect of the vector as it is, or scaled to the target KL.

        Raises:
            BadInput: no alpha reaches the target KL.
        """
        alpha = 1.0
        if self.target_kl is not None:
            alpha = alpha_at_equal_kl(
                lambda alpha: float(self.cost(alpha * vector).mean()) if alpha else 0.0, self.target_kl, tolerance=0.05
            )
        return VectorEffect(self.outcome.measure(self.edits(alpha * vector)) - self.base, alpha)

    def cost(self, vector: DirectionVector) -> Float[Tensor, " text"]:
        """KL from the unsteered model on each neutral text, in nats per token."""
        edits = [Edit(self.site, Add(vector), "all")]
        return measure_side_effects(self.model, self.neutral, edits).divergence
