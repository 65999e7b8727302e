"""What a vector changes in a model: the margin of the concept's answers, else what the model's own probe reads at the end of the stream.

Answers: log P(the positive class's answer) − log P(the other), on questions of held-out groups, the vector added at the last token of
the prompt and behind it. A question that begins with an example's text asks for that example's class; of any other the right answer is
the positive one. Without answers: the score of the target's own mass-mean probe at its last layer, in spreads of its unsteered scores,
the vector added to all tokens of held-out texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.batching import Workload
from ontogeny.activations.capture import capture
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
_READOUT = "readout"
_ANSWERS = "answers"
_BATCH_SIZE = 256
"""Answers that run together: what a pass costs beside its products is paid for each vector."""


@dataclass(frozen=True, eq=False)
class TransferOutcome:
    """What is looked at, one number a question or text; more is more of the positive class."""

    kind: str
    """`answers` (nats) or `readout` (spreads of the probe's scores)."""
    groups: Int[Tensor, " unit"]
    of: Callable[[Sequence[Edit]], Float[Tensor, " unit"]]
    where: str


def answer_signs(concept: Concept) -> list[int]:
    """Of each question +1 where the right answer is the positive class's, −1 where the wrong one is."""
    labels: dict[str, bool] = {example.text: bool(example.target) for example in concept.examples}
    begins = sorted(labels, key=len, reverse=True)
    found = []
    for answer in concept.answers:
        text = next((text for text in begins if answer.prompt.startswith(text)), None)
        found.append(1 if text is None or labels[text] else -1)
    return found


def answer_margin_outcome(model: Model, design: Design) -> TransferOutcome:
    """The margin of the questions whose groups no vector was fitted on.

    Raises:
        BadInput: the held-out groups ask nothing.
    """
    concept, groups = design.concept, answer_groups(design)
    learned = set(design.groups[design.split.train].tolist())
    asked = [i for i, group in enumerate(groups.tolist()) if group not in learned]
    if len({int(groups[i]) for i in asked}) < 2:
        raise BadInput(
            f"{concept.name} asks nothing of its held-out groups, so there is no effect on answers. Add questions, or pass --no-effect."
        )
    signs = torch.tensor([answer_signs(concept)[i] for i in asked], dtype=torch.float64)
    pairs = [
        (concept.answers[i].prompt, said)
        for i in asked
        for said in (concept.answers[i].right, concept.answers[i].wrong)
    ]
    ready = CachedPrompts.of(model, tokenize_answers(model, pairs), batch=_BATCH_SIZE)

    def margin(edits: Sequence[Edit]) -> Tensor:
        told = log_likelihoods(ready.scores(edits))
        return signs * (told[0::2] - told[1::2])

    return TransferOutcome(_ANSWERS, groups[asked], margin, "last")


def probe_readout_outcome(
    model: Model, design: Design, work: Workload, reads: Tensor, probe: DirectionVector
) -> TransferOutcome:
    """The model's own probe at its last layer, on held-out texts."""
    last, held = Site("resid", model.layers), design.split.test.tolist()
    chosen = [int(reads[i]) for i in held]
    few = sub_workload(work, chosen)

    def projected(edits: Sequence[Edit]) -> Tensor:
        with steer(model, edits):
            seen = capture(model, few, [last])
        return (seen.parts["resid"][0].cpu().double() @ probe.double())[indices_in(chosen)]

    spread = projected([]).std()
    scale = float(spread) if spread > 0 else float("nan")
    return TransferOutcome(_READOUT, design.groups[design.split.test], lambda edits: projected(edits) / scale, "all")


def sub_workload(work: Workload, reads: Sequence[int]) -> Workload:
    """The part of a workload that these reads need; a read wanted twice is done once."""
    wanted = list(dict.fromkeys(reads))
    sequences = list(dict.fromkeys(work.reads[i].sequence for i in wanted))
    at = {sequence: i for i, sequence in enumerate(sequences)}
    return Workload(
        sequences=tuple(work.sequences[s] for s in sequences),
        reads=tuple(type(work.reads[i])(at[work.reads[i].sequence], work.reads[i].weights) for i in wanted),
        content=tuple(work.content[s] for s in sequences) if work.content else (),
    )


def indices_in(reads: Sequence[int]) -> list[int]:
    """Of each read, where it stands among those of `only`."""
    order = {read: i for i, read in enumerate(dict.fromkeys(reads))}
    return [order[read] for read in reads]


@dataclass(frozen=True, eq=False)
class VectorEffect:
    """One vector on one model."""

    change: Float[Tensor, " unit"]
    """Steered minus unsteered."""
    alpha: float
    """How many of its lengths were added."""


@dataclass(frozen=True, eq=False)
class EffectMeter:
    """A model, a site, and what is looked at there: vectors are tried on it one after the other."""

    model: Model
    site: Site
    outcome: TransferOutcome
    base: Float[Tensor, " unit"]
    neutral: tuple[str, ...]
    equal_cost: float | None

    @classmethod
    def of(
        cls, model: Model, site: Site, outcome: TransferOutcome, neutral: Sequence[str], equal_cost: float | None = None
    ) -> "EffectMeter":
        return cls(model, site, outcome, outcome.of([]), tuple(neutral), equal_cost)

    def edits(self, vector: DirectionVector) -> list[Edit]:
        return [Edit(self.site, Add(vector), self.outcome.where)]  # type: ignore[arg-type]

    def tried(self, vector: DirectionVector) -> VectorEffect:
        """With the vector as it is, or at the equal cost.

        Raises:
            BadInput: no alpha costs as much.
        """
        alpha = (
            1.0
            if self.equal_cost is None
            else alpha_at_equal_kl(self._cost_at(vector), self.equal_cost, tolerance=0.05)
        )
        return VectorEffect(self.outcome.of(self.edits(alpha * vector)) - self.base, alpha)

    def cost(self, vector: DirectionVector) -> Float[Tensor, " text"]:
        """Divergence from the unsteered model on each neutral text, nats per token."""
        edits = [Edit(self.site, Add(vector), "all")]
        return measure_side_effects(self.model, self.neutral, edits).divergence

    def _cost_at(self, vector: DirectionVector) -> Callable[[float], float]:
        return lambda alpha: float(self.cost(alpha * vector).mean()) if alpha else 0.0
