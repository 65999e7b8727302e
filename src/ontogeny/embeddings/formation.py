"""When a similarity forms: the step from which it stays above half-way from its floor to its last value, in each stage."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.records import Record, make_record
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.statistics.emergence import EmergenceEvent, correct_events, emergence_event

_SAMPLES = 400


@dataclass(frozen=True, eq=False)
class SimilarityCurve:
    """A similarity over the checkpoints of one stage."""

    stage: str | None
    coords: Mapping[str, str]
    steps: Sequence[int]
    values: Sequence[float]
    influences: Sequence[Float[Tensor, " token"]]
    """Contribution of each token at each step."""
    floor: float
    """Mean of the frequency-matched null, or of the shuffled one, at the last step; of a run with itself at least that at step 0."""


def formation_rows(curves: Sequence[SimilarityCurve], *, seed: int) -> list[Record]:
    """One row for each curve, corrected together; NaN with a reason where nothing forms."""
    events = correct_events([_event(curve, seed) for curve in curves])
    rows = []
    for curve, event in zip(curves, events, strict=True):
        known = not math.isnan(event.step)
        coords = {**curve.coords, "floor": f"{curve.floor:.3g}", "form": "centred"}
        coords |= {} if math.isnan(event.p) else {"p": f"{event.p:.3g}"}
        rows.append(
            make_record(
                "geometry_step",
                event.step,
                n=len(curve.influences[0]) if known else 0,
                interval=(event.low, event.high),
                note=event.reason or None,
                reason=event.reason or "the similarity does not form",
                stage=curve.stage,
                method="pearson",
                coords=coords,
                seed=seed,
            )
        )
    return rows


def _event(curve: SimilarityCurve, seed: int) -> EmergenceEvent:
    points = torch.tensor(list(curve.values), dtype=torch.float64)
    count = len(curve.influences[0])
    weights = group_weights(torch.arange(count), samples=_SAMPLES, seed=seed).double() - 1
    # To first order in the weights of tokens; the same tokens at every step.
    moved = [
        weights @ influence if len(influence) == count else weights.new_zeros(_SAMPLES)
        for influence in curve.influences
    ]
    samples = (points + torch.stack(moved, 1)).clamp(-1, 1)
    return emergence_event(torch.tensor(list(curve.steps)), points, samples, floor=curve.floor, seed=seed)
