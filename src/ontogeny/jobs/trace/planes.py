"""Planes: held-out examples of two classes in the plane of one probe, at several checkpoints on one fixed basis.

The horizontal axis is the mass-mean probe of the last checkpoint, fitted on the first four of five folds; the vertical one is the first
principal component of their activations that is orthogonal to it. Only examples of the fold that neither axis was fitted on are placed,
since a probe separates its own training examples in any high-dimensional noise. A run keeps no activations, so that the checkpoints are
read again; one unit a concept, apart from the units of the trace.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, measured_checkpoints
from ontogeny.dynamics.summary import best_site
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.measurements.design import Design
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

PLANE_METHOD = "mass_mean"
"""Its direction is the difference of the classes; that of a logistic probe also cancels noise."""
_VERSION = 1


@dataclass(frozen=True)
class Plane:
    """One concept, with the checkpoints whose examples are placed."""

    whole: Design
    design: Design
    """Of one fold: its test examples are placed."""
    best: BestSite
    last: MeasuredCheckpoint
    visits: Sequence[MeasuredCheckpoint]
    unit: str


def missing_planes(plan: TracePlan, run: Run) -> list[Plane]:
    """The planes that the run lacks."""
    return [plane for plane in _planes(plan, run) if not run.done(plane.unit)]


def _planes(plan: TracePlan, run: Run) -> Iterator[Plane]:
    """The concepts of two classes whose best site has a probe of this kind."""
    for design in plan.designs.values():
        visits = measured_checkpoints(run, design.concept.name)
        if design.concept.kind != "binary" or not visits or PLANE_METHOD not in visits[-1].methods:
            continue
        best = best_site(run, visits)
        visits = [visit for visit in visits if best.site in visit.sites.get(best.part, ())]
        chosen = _spread(visits, plan.settings.planes)
        key = [_VERSION, design.concept.hash, str(best.site), plan.settings.seed, [visit.unit for visit in chosen]]
        yield Plane(
            design, design.one_fold(), best, visits[-1], chosen, f"{plane_prefix(design)}-{content_digest(key)}"
        )


def plane_prefix(design: Design) -> str:
    """Beginning of the units of a concept's plane."""
    return f"plane-{content_digest(design.concept.name)}"


def _spread(visits: Sequence[MeasuredCheckpoint], count: int) -> list[MeasuredCheckpoint]:
    """The last checkpoint of each later stage, and checkpoints of the first stage, evenly spread; in training order."""
    later = list({visit.stage: visit for visit in visits if visit.stage != visits[0].stage}.values())[-count:]
    first = [visit for visit in visits if visit.stage == visits[0].stage]
    room = min(count - len(later), len(first))
    spread = [first[round(i * (len(first) - 1) / (room - 1)) if room > 1 else -1] for i in range(room)]
    return [*spread, *later]
