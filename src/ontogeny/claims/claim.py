"""A claim of a paper, and its verdict: held, did not hold, or undecided, from the effect of each seed and a null run.

The interval is Student's t over seeds (two-sided, 95 %). A claim holds if the interval lies above its threshold and the same test does
not hold on the null run, in which the claimed cause is absent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pandas as pd

from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import ClaimShape
from ontogeny.statistics.bootstrap import student_t_quantile

_ROUNDING = 1e-7
"""Below this an effect is zero but for the rounding of single precision."""

ClaimVerdict = Literal["held", "did not hold", "undecided"]
MIN_CLAIM_SEEDS = 3
"""With fewer seeds no claim is decided."""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper on a study."""

    name: str
    text: str
    """The claim, as a sentence."""
    source: str
    """Paper, section and figure."""
    reported: str
    """What the paper reports, with its number."""
    shape: ClaimShape
    null: str
    """`control` of the null run, in which the claim must not hold."""

    @property
    def metrics(self) -> frozenset[str]:
        """Metrics that the claim reads."""
        return frozenset(quantity.metric for quantity in _quantities(self.shape))


@dataclass(frozen=True)
class ClaimEffect:
    """Mean effect over seeds with its 95 % interval; NaN with a reason if it could not be computed."""

    value: float
    low: float
    high: float
    seeds: int
    above: int
    """Seeds whose effect is above the threshold."""
    reason: str = ""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict and the evidence."""

    claim: Claim
    verdict: ClaimVerdict
    effect: ClaimEffect
    null: ClaimEffect
    note: str

    @property
    def sentence(self) -> str:
        """The verdict with its evidence, in one sentence."""
        return f"{self.verdict}: {self.evidence}"

    @property
    def evidence(self) -> str:
        """The effect with its interval, the number of seeds and the null run."""
        if math.isnan(self.effect.value):
            return f"{self.note}."
        effect = self.effect
        interval = _number_text(effect.value)
        if math.isfinite(effect.low):  # one seed has none
            interval += f" [{_number_text(effect.low)}, {_number_text(effect.high)}]"
        threshold = f"above {self.claim.shape.threshold:g} in {self.effect.above} of {self.effect.seeds} seeds"
        null = "not measured" if math.isnan(self.null.value) else _number_text(self.null.value)
        note = f"; {self.note}" if self.note else ""
        return f"{self.claim.shape.unit} {interval}, {threshold}; null run {null}{note}."


def _number_text(value: float) -> str:
    """Three digits; what is left of a sum that should be zero is zero."""
    return f"{0.0 if abs(value) < _ROUNDING else value:.3g}".replace("-", "−")


def judge_claim(claim: Claim, records: pd.DataFrame) -> JudgedClaim:
    """Judge a claim on the records of a study."""
    effect = summarise_effects(claim.shape.effects(records), claim.shape.threshold)
    null = summarise_effects(claim.shape.under(claim.null).effects(records), claim.shape.threshold)
    verdict, note = _verdict(effect, claim.shape.threshold)
    if verdict == "held" and _verdict(null, claim.shape.threshold)[0] == "held":
        verdict, note = "undecided", "the null run shows the same"
    elif verdict == "held" and math.isnan(null.value):
        verdict, note = "undecided", f"the null run has no effect to compare with: {null.reason}"
    return JudgedClaim(claim, verdict, effect, null, note)


def judge_claims(claims: Sequence[Claim], records: pd.DataFrame) -> list[JudgedClaim]:
    """Judge all claims of a study, in their order."""
    return [judge_claim(claim, records) for claim in claims]


def summarise_effects(effects: dict[int, float], threshold: float, *, level: float = 0.95) -> ClaimEffect:
    """Mean and Student's t interval of the effects of all seeds; seeds without an effect are left out and counted."""
    known = np.array([value for value in effects.values() if math.isfinite(value)])
    if len(known) == 0:
        reason = "no seed has this quantity" if not effects else f"the effect is undefined in all {len(effects)} seeds"
        return ClaimEffect(math.nan, math.nan, math.nan, 0, 0, reason)
    mean, above = float(known.mean()), int((known > threshold).sum())
    if len(known) < 2:
        return ClaimEffect(mean, -math.inf, math.inf, 1, above)
    half = student_t_quantile(float(len(known) - 1), level) * float(known.std(ddof=1)) / math.sqrt(len(known))
    lost = len(effects) - len(known)
    reason = f"{lost} of {len(effects)} seeds have no effect" if lost else ""
    return ClaimEffect(mean, mean - half, mean + half, len(known), above, reason)


def _verdict(effect: ClaimEffect, threshold: float) -> tuple[ClaimVerdict, str]:
    if math.isnan(effect.value):
        return "undecided", effect.reason
    if effect.seeds < MIN_CLAIM_SEEDS:
        return "undecided", f"a verdict needs {MIN_CLAIM_SEEDS} seeds"
    if effect.low > threshold:
        return "held", effect.reason
    return ("did not hold", effect.reason) if effect.high <= threshold else ("undecided", effect.reason)


def _quantities(shape: object) -> list[Quantity]:
    found = []
    for item in fields(shape):  # type: ignore[arg-type]
        value = getattr(shape, item.name)
        found += [value] if isinstance(value, Quantity) else [value.quantity] if isinstance(value, Event) else []
    return found
