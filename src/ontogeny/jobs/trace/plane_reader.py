"""Reads checkpoints again and places the held-out examples of two classes in the plane of one probe."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.activations import Activations
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload
from ontogeny.dynamics.example_scores import example_coords
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, one_fold_readout
from ontogeny.jobs.progress import TraceProgress
from ontogeny.jobs.resumable import fetch_ahead, visit_checkpoints
from ontogeny.jobs.trace.execution import TraceExecution
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.jobs.trace.planes import PLANE_METHOD, Plane, plane_prefix
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.metrics.separability import auroc
from ontogeny.models.model import Model
from ontogeny.models.reusable import ReusableModel
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.storage.failures import Failure
from ontogeny.storage.run import Run

_MOST_EXAMPLES = 200


@dataclass(frozen=True)
class _Basis:
    """Two orthogonal unit vectors and the point that both axes count from."""

    axes: Float[Tensor, "2 d"]
    origin: Float[Tensor, " 2"]

    @classmethod
    def of(cls, direction: Float[Tensor, " d"], bias: float, train: Float[Tensor, "example d"]) -> "_Basis":
        """From a probe and the activations on which it was fitted; the threshold of the probe is at 0."""
        norm = direction.norm()
        probe = (direction / norm).double()
        centred = train.double() - train.double().mean(0)
        rest = centred - (centred @ probe)[:, None] * probe
        second = torch.linalg.svd(rest, full_matrices=False).Vh[0]
        second = second - (second @ probe) * probe
        second = second / second.norm()
        second = second * (1.0 if second[second.abs().argmax()] > 0 else -1.0)
        middle = (train.double() @ second).mean()
        return cls(torch.stack([probe, second]), torch.stack([torch.tensor(-bias / float(norm)).to(middle), middle]))

    def coordinates(self, x: Float[Tensor, "example d"]) -> Float[Tensor, "example 2"]:
        return x.double() @ self.axes.T - self.origin


def measure_planes(plan: TracePlan, run: Run, execution: TraceExecution, missing: Sequence[Plane]) -> list[Failure]:
    """Place the examples of these concepts; returns the checkpoints that could not be read."""
    reader = _PlaneReader(plan, run, execution)
    # First the last checkpoints, which have the bases.
    failures = reader.visit([(plane, plane.last) for plane in missing])
    known = [plane for plane in missing if plane.unit in reader.bases]
    failures += reader.visit([(plane, visit) for plane in known for visit in plane.visits if visit != plane.last])
    for plane in known:
        run.keep(plane.unit, CheckpointStamp(plan.lineage.name, plane.unit).sign(reader.rows[plane.unit]))
        run.forget(plane_prefix(plane.design), but=plane.unit)
    return failures


class _PlaneReader:
    """Reads checkpoints and places the examples of the concepts."""

    def __init__(self, plan: TracePlan, run: Run, execution: TraceExecution) -> None:
        self._plan, self._run, self._execution = plan, run, execution
        self._reusable = ReusableModel(execution.model, scores_vocabulary=False)
        self.bases: dict[str, _Basis] = {}
        self.rows: defaultdict[str, list[Record]] = defaultdict(list)

    def visit(self, places: Sequence[tuple[Plane, MeasuredCheckpoint]]) -> list[Failure]:
        by_name = {(checkpoint.stage, checkpoint.name): checkpoint for checkpoint in self._plan.checkpoints}
        todo: dict[Checkpoint, list[tuple[Plane, MeasuredCheckpoint]]] = {}
        for plane, at in places:
            if checkpoint := by_name.get((at.stage, at.checkpoint)):
                todo.setdefault(checkpoint, []).append((plane, at))
        done = 0

        def visit_one(checkpoint: Checkpoint, folder: Path) -> None:
            nonlocal done
            self._execution.on_progress(TraceProgress(checkpoint.label, done, len(todo), "placing examples"))
            self._place(checkpoint, folder, todo[checkpoint])
            done += 1

        fetched = fetch_ahead(todo, self._execution.model, delete_behind=self._execution.delete_behind)
        return visit_checkpoints(self._run, fetched, visit_one, tolerant=True)

    def _place(self, checkpoint: Checkpoint, folder: Path, places: Sequence[tuple[Plane, MeasuredCheckpoint]]) -> None:
        began, settings = time.perf_counter(), self._plan.settings
        model, _ = self._reusable.load(folder)
        activations = _read(model, [plane for plane, _ in places], truncate=settings.truncate)
        for plane, at in places:
            x = activations[plane.design.concept.name]
            if plane.unit not in self.bases:
                self.bases[plane.unit] = _basis(self._run, plane, x)
            rows = _plane_rows(plane, self.bases[plane.unit], x, settings.seed)
            self.rows[plane.unit] += stamp_checkpoint(rows, at)
        units = [plane.unit for plane, _ in places]
        seconds = {"place": time.perf_counter() - began}
        self._run.log({"checkpoint": checkpoint.name, "stage": checkpoint.stage, "units": units, "seconds": seconds})


def _read(model: Model, planes: Sequence[Plane], *, truncate: bool) -> dict[str, Float[Tensor, "example d"]]:
    """The activations of each concept's texts at its best site."""
    concepts = [replace(plane.design.concept, answers=()) for plane in planes]
    sites = list(dict.fromkeys(str(plane.best.site) for plane in planes))
    work, rows = build_workload(concepts, model.tokenizer, model.context, truncate=truncate)
    captured = capture_workload(model, work, model.sites(sites))
    read = {concept.name: Activations.of(concept, captured, rows[concept.name]) for concept in concepts}
    return {
        plane.design.concept.name: read[plane.design.concept.name][plane.best.site].float().cpu() for plane in planes
    }


def _basis(run: Run, plane: Plane, x: Float[Tensor, "example d"]) -> _Basis:
    at = plane.last.sites[plane.best.part].index(plane.best.site)
    direction, bias = one_fold_readout(run, plane.whole, plane.last.unit, PLANE_METHOD, plane.best.part, at)
    return _Basis.of(direction, bias, x[plane.design.split.train])


def _plane_rows(plane: Plane, basis: _Basis, x: Float[Tensor, "example d"], seed: int) -> Iterator[Record]:
    design, best = plane.design, plane.best
    test, y = design.split.test, design.y_test
    context = design.row_context(seed)
    placed = basis.coordinates(x[test])
    value = float(auroc(placed[None, :, 0].float(), y)[0])
    yield context.row("plane_auroc", value, best.site, method=PLANE_METHOD, reason="degenerate scores")
    shown = _evenly(test, _MOST_EXAMPLES)
    for index, (across, up) in zip(test[shown].tolist(), placed[shown].tolist(), strict=True):
        coords = example_coords(design.concept, index)
        for metric, coordinate in (("plane_probe", across), ("plane_orthogonal", up)):
            yield context.row(
                metric,
                coordinate,
                best.site,
                n=1,
                method=PLANE_METHOD,
                reason="the activation is not finite",
                coords=coords,
            )


def _evenly(test: Tensor, most: int) -> Tensor:
    return torch.linspace(0, len(test) - 1, min(len(test), most), dtype=torch.float64).round().long()
