"""Finished units as their files tell them, in developmental order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ontogeny.concept import Concept
from ontogeny.lab.job import Job
from ontogeny.lab.rows import About
from ontogeny.lineage import Checkpoint
from ontogeny.records import Record
from ontogeny.run import Run
from ontogeny.sites import Site
from ontogeny.store import read_header


@dataclass(frozen=True)
class Visit:
    """One concept at one checkpoint."""

    checkpoint: Checkpoint
    unit: str
    sites: dict[str, list[Site]]
    """Sites by part, in the order of the tensors."""
    methods: list[str]


@dataclass(frozen=True)
class Best:
    """Where a concept is read: chosen on train at the last checkpoint, then the same for all steps."""

    method: str
    site: Site
    at: int
    """Place among the sites of its part."""

    @property
    def part(self) -> str:
        return self.site.part


def visited(job: Job, run: Run, concept: Concept) -> list[Visit]:
    """The checkpoints of the job at which the concept was measured."""
    found = []
    for checkpoint in job.checkpoints:
        unit = job.units[checkpoint, concept.name]
        if run.done(unit):
            header: dict[str, Any] = read_header(run.folder / "directions" / f"{unit}.safetensors")
            sites = {part: [Site.parse(name) for name in names] for part, names in header["sites"].items()}
            found.append(Visit(checkpoint, unit, sites, list(header["methods"])))
    return found


def at_cell(about: About, visit: Visit, site: Site, metric: str, value: float, *, method: str, note: str | None = None) -> Record:
    """A row of a series that belongs to one checkpoint and site; NaN needs its reason as `note`."""
    c = visit.checkpoint
    return Record(
        metric=metric,
        value=value,
        stage=c.stage,
        step=c.step,
        tokens=c.tokens,
        revision=c.revision or c.name,
        train_seed=c.train_seed,
        concept=about.concept,
        site=str(site),
        layer=site.layer,
        head=site.head,
        position=about.position,
        method=method,
        split=about.split,
        n=0 if value != value else about.n,
        seed=about.seed,
        note=note,
    )


def common_methods(visits: Sequence[Visit]) -> list[str]:
    return [method for method in visits[0].methods if all(method in visit.methods for visit in visits)]
