"""Surface baselines of a run's concepts: measured once, before the first checkpoint."""

from collections.abc import Mapping
from typing import Any

from ontogeny.data.concept import Concept
from ontogeny.jobs.run_json import describe_concept
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.measurements import surface_baselines
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import settings_for_key
from ontogeny.storage.files import content_digest
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.run import Run

SurfaceAudits = Mapping[str, tuple[Concept, surface_baselines.SurfaceAudit]]
"""By unit, the baselines that a run lacks."""


def audit_concepts(
    plan: TracePlan, run: Run, before: Mapping[str, Any] | None
) -> tuple[list[dict[str, Any]], SurfaceAudits]:
    """The concepts as run.json lists them, and the surface baselines that the run lacks.

    Args:
        before: The content of run.json; None of a new run.
    """
    known = {c["name"]: tuple(c["warnings"]) for c in before["concepts"] if c.get("hash")} if before else {}
    audits, concepts = {}, []
    for concept in plan.concepts:
        unit = f"surface-{content_digest([concept.name, concept.hash, settings_for_key(plan.settings)])}"
        if not (run.done(unit) and concept.name in known):
            design = plan.designs[concept.name]
            audits[unit] = concept, surface_baselines.audit_surface(concept, design.split, folds=design.test_folds)
            known[concept.name] = audits[unit][1].warnings
        concepts.append(describe_concept(concept, known[concept.name]))
    return concepts, audits


def keep_surface_audits(plan: TracePlan, run: Run, audits: SurfaceAudits) -> None:
    """Write surface baselines into the run, in the place of those of other settings or of an earlier version."""
    for unit, (concept, found) in audits.items():
        of_concept = f"unit like 'surface-%' and concept = {sql_text(concept.name)}"
        for old in run.query(f"select distinct unit from records where {of_concept}").unit.tolist():
            run.drop(old)
        rows = surface_baselines.surface_records(concept, found)
        kept = {f"surface_{name}": scores for name, scores in found.held_out.items()}
        run.keep(unit, CheckpointStamp(plan.lineage.name, unit).on(rows), scores=kept)
