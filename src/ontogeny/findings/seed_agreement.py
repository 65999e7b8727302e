"""Agreement of seeds: emergence steps of one concept over several seeds or runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ontogeny.findings.finding import Finding
from ontogeny.findings.sentences import format_step


@dataclass(frozen=True)
class SeedAgreement:
    """One concept over several training runs."""

    concept: str
    runs: int
    emerged: int
    stages: tuple[str, ...]
    """Stages in which it emerged; steps of two stages cannot be compared."""
    low: float
    """Earliest and latest emergence step."""
    high: float
    shared: tuple[float, float] | None
    """Steps that all intervals contain; None if two intervals are disjoint or one is missing."""
    bounded: bool = True
    """Whether each event has both ends of its interval."""

    @property
    def doublings(self) -> float:
        """Distance of the steps in doublings of step + 1; NaN with fewer than two."""
        return math.log2((self.high + 1) / (self.low + 1)) if self.emerged > 1 else math.nan


def seed_agreements(findings: Sequence[Finding]) -> list[SeedAgreement]:
    """The agreement of each concept, in order of appearance."""
    names = dict.fromkeys(finding.subject.concept for finding in findings)
    return [_agreement(name, [f for f in findings if f.subject.concept == name]) for name in names]


def _agreement(concept: str, own: Sequence[Finding]) -> SeedAgreement:
    events = [f.emergence for f in own if f.emergence is not None and f.emergence.known]
    steps = [event.step for event in events] or [math.nan]
    low, high = max((e.low for e in events), default=math.nan), min((e.high for e in events), default=math.nan)
    bounded = len(events) > 1 and not any(math.isnan(e.low) or math.isnan(e.high) for e in events)
    stages = tuple(dict.fromkeys(event.stage for event in events))
    shared = (low, high) if bounded and low <= high and len(stages) == 1 else None
    return SeedAgreement(concept, len(own), len(events), stages, min(steps), max(steps), shared, bounded)


def seed_agreement_sentence(agreement: SeedAgreement) -> str:
    """The agreement as a sentence that continues the concept's name ('`truth` …')."""
    if agreement.runs == 1:
        return "was traced in one run: nothing to compare."
    if agreement.emerged == 0:
        return f"is shown to emerge in none of {agreement.runs} runs."
    every = "both" if agreement.runs == 2 else f"all {agreement.runs}"
    share = every if agreement.emerged == agreement.runs else f"{agreement.emerged} of {agreement.runs}"
    if agreement.emerged == 1:
        return f"emerges in {share} runs, at step {format_step(agreement.low)}."
    if len(agreement.stages) > 1:
        return f"emerges in {share} runs, but in different stages: {', '.join(agreement.stages)}."
    span = f"steps {format_step(agreement.low)} to {format_step(agreement.high)}, {agreement.doublings:.1f} doublings apart"
    if agreement.low == agreement.high:
        span = f"step {format_step(agreement.low)} in each"
    if not agreement.bounded:
        return f"emerges in {share} runs, {span}; not every interval has two ends, so the steps cannot be compared."
    if agreement.shared is None:
        return f"emerges in {share} runs, {span}; their intervals do not all overlap: the step depends on the run."
    first, last = (format_step(step) for step in agreement.shared)
    return f"emerges in {share} runs, {span}; their intervals all hold steps {first} to {last}: no difference is shown."
