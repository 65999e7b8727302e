"""How a trace is executed, and which random initialisations it has to measure. Imports no model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ontogeny.data.concept import Concept
from ontogeny.jobs.progress import ProgressCallback, ignore_progress
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.jobs.trace.ray_cluster import RayCluster
from ontogeny.measurements.settings import settings_for_key
from ontogeny.models.loading import ModelOptions
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.activations.cache import ActivationCache


@dataclass(frozen=True)
class TraceExecution:
    """How a trace is executed. Does not change its results beyond floating-point noise."""

    model: ModelOptions
    delete_behind: bool = False
    """Delete each downloaded checkpoint after its visit."""
    cache: "ActivationCache | None" = None
    command: str | None = None
    on_progress: ProgressCallback = ignore_progress
    cluster: RayCluster | None = None
    """None: visit the checkpoints in this process."""
    freeze: bool = False
    """Also apply the probe of the first checkpoint at which a concept can be read to all later ones."""

    @property
    def device(self) -> str:
        """Device of a model, in the process that runs it."""
        return (self.cluster and self.cluster.device) or self.model.device


def concepts_without_floor(plan: TracePlan, run: Run) -> list[Concept]:
    """Concepts for which a random initialisation has to be measured, since the lineage has no step 0."""
    if not plan.settings.untrained or any(map(plan.is_untrained, plan.checkpoints)):
        return []
    # A step 0 that an earlier session visited counts as well.
    measured = set(run.query("select distinct concept from records where control = 'untrained'").concept)
    return [concept for concept in plan.concepts if concept.name not in measured]


def untrained_unit(plan: TracePlan, concept: Concept) -> str:
    """The unit of a concept on a random initialisation; a run has one, whichever checkpoint is read first."""
    return content_digest(["untrained", concept.name, concept.hash, settings_for_key(plan.settings)])
