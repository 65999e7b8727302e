"""Causal part of a trace: ablate each concept's direction at the last checkpoint of each stage and see whether its answers get worse.

One unit a checkpoint and concept with questions, apart from the units of the trace, so that a finished run can be asked afterwards. The
p-values of a run are corrected together.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, measured_checkpoints
from ontogeny.dynamics.summary import best_site
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import TraceProgress
from ontogeny.jobs.resumable import fetch_ahead, visit_checkpoints
from ontogeny.jobs.trace.execution import TraceExecution
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.answer_ablation import ablate_answers, ablation_axes, ablation_rows
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import CAUSAL_CONTROLS
from ontogeny.models.model import Model
from ontogeny.models.reusable import ReusableModel
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics.holm import holm_p
from ontogeny.storage.failures import Failure
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

_CAUSAL_VERSION = 1
_PREFERRED_METHOD = "mass_mean"
"""Its direction is what differs between the classes; that of a logistic probe also cancels noise."""


@dataclass(frozen=True)
class _Ablation:
    """One concept at one checkpoint."""

    design: Design
    visit: MeasuredCheckpoint
    best: BestSite
    method: str
    unit: str
    seed: int

    @classmethod
    def of(
        cls, run: Run, design: Design, visits: list[MeasuredCheckpoint], at: MeasuredCheckpoint, seed: int
    ) -> "_Ablation":
        best = best_site(run, visits)
        method = _PREFERRED_METHOD if _PREFERRED_METHOD in at.methods else best.method
        key = [_CAUSAL_VERSION, at.unit, method, str(best.site), CAUSAL_CONTROLS, seed]
        return cls(design, at, best, method, f"{_prefix(design, at)}-{content_digest(key)}", seed)

    def records(self, run: Run, model: Model) -> list[Record]:
        """Its rows; absent ones with a reason if the ablation cannot be made."""
        name, site = f"{self.method}/{self.best.part}/direction", self.best.site
        direction = run.directions(self.visit.unit, [name])[name][self.best.at]
        try:
            axes = ablation_axes(direction)
            ablation = ablate_answers(model, self.design, axes, site, controls=CAUSAL_CONTROLS, seed=self.seed)
        except BadInput as error:
            about = self.design.row_context(self.seed, split="all")
            return [about.row("ablation_effect", math.nan, site, method=self.method, reason=str(error))]
        return ablation_rows(self.design, ablation, site, self.method, self.seed)


def measure_causes(plan: TracePlan, run: Run, execution: TraceExecution) -> list[Failure]:
    """Measure the ablations that the run lacks, and correct their p-values; returns the checkpoints that could not be read."""
    missing: dict[Checkpoint, list[_Ablation]] = {}
    for checkpoint, ablation in _ablations(plan, run):
        if not run.done(ablation.unit):
            missing.setdefault(checkpoint, []).append(ablation)
    failures: list[Failure] = []
    if missing:
        visit = _visitor(plan, run, execution, missing)
        fetched = fetch_ahead(missing, execution.model, delete_behind=execution.delete_behind)
        failures = visit_checkpoints(run, fetched, visit, tolerant=True)
    _keep_corrected(run, plan.lineage.name)
    return failures


def _ablations(plan: TracePlan, run: Run) -> Iterator[tuple[Checkpoint, _Ablation]]:
    """The concepts with questions at the last measured checkpoint of each stage."""
    by_name = {(checkpoint.stage, checkpoint.name): checkpoint for checkpoint in plan.checkpoints}
    for design in plan.designs.values():
        if not design.concept.answers:
            continue
        visits = measured_checkpoints(run, design.concept.name)
        last: Mapping[str, MeasuredCheckpoint] = {visit.stage: visit for visit in visits}
        for visit in last.values():
            checkpoint = by_name.get((visit.stage, visit.checkpoint))
            if checkpoint is not None:
                yield checkpoint, _Ablation.of(run, design, visits, visit, plan.settings.seed)


def _visitor(
    plan: TracePlan, run: Run, execution: TraceExecution, missing: Mapping[Checkpoint, list[_Ablation]]
) -> Callable[[Checkpoint, Path], None]:
    reusable, done = ReusableModel(execution.model, scores_vocabulary=True), 0

    def visit(checkpoint: Checkpoint, folder: Path) -> None:
        nonlocal done
        began = time.perf_counter()
        model, _ = reusable.load(folder)
        for ablation in missing[checkpoint]:
            name = ablation.design.concept.name
            execution.on_progress(TraceProgress(checkpoint.label, done, len(missing), f"ablating {name}"))
            stamp = CheckpointStamp.of(plan.lineage.name, ablation.unit, checkpoint)
            run.keep(ablation.unit, stamp.on(ablation.records(run, model)))
            run.forget(_prefix(ablation.design, ablation.visit), but=ablation.unit)
        done += 1
        units = [ablation.unit for ablation in missing[checkpoint]]
        seconds = {"ablate": time.perf_counter() - began}
        run.log({"checkpoint": checkpoint.name, "stage": checkpoint.stage, "units": units, "seconds": seconds})

    return visit


def _prefix(design: Design, visit: MeasuredCheckpoint) -> str:
    """The beginning of the unit's name; one unit of a stage and concept stays."""
    return f"causal-{content_digest([design.concept.name, visit.stage])}"


def _keep_corrected(run: Run, lineage: str) -> None:
    """The p of all ablations of the run, corrected together by Holm's method."""
    rows = run.records("metric = 'ablation_p' and value is not null and not isnan(value)")
    rows = rows.sort_values(["concept", "stage", "step"], kind="stable")
    unit = f"causes-{content_digest([_CAUSAL_VERSION, rows['unit'].tolist()])}"
    if len(rows) and not run.done(unit):
        corrected = holm_p(torch.tensor(rows["value"].tolist(), dtype=torch.float64)).tolist()
        records = [_corrected_row(row, p, len(rows)) for row, p in zip(rows.itertuples(), corrected, strict=True)]
        run.keep(unit, CheckpointStamp(lineage, unit=unit).sign(records))
    run.forget("causes-", but=unit)


def _corrected_row(row: Any, p: float, looks: int) -> Record:
    return make_record(
        "ablation_p_corrected",
        p,
        site=Site.parse(row.site),
        n=int(row.n),
        note=f"Holm's correction over {looks} ablation{'s' * (looks > 1)}",
        stage=row.stage,
        step=_whole(row.step),
        revision=row.revision,
        train_seed=_whole(row.train_seed),
        concept=row.concept,
        position=row.position,
        method=row.method,
        split=row.split,
        seed=int(row.seed),
    )


def _whole(number: Any) -> int | None:
    """A number of a table, whose nulls are NaN or NA."""
    import pandas as pd

    return None if pd.isna(number) else int(number)
