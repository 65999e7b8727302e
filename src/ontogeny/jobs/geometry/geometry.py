"""Geometry job: each checkpoint read once, compared with its partners, and the step at which each similarity forms."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ontogeny.embeddings.formation import SimilarityCurve, formation_rows
from ontogeny.embeddings.matrices import EmbeddingSpace
from ontogeny.embeddings.model_geometry import GeometrySettings, ModelGeometry, SpaceGeometry, model_geometry
from ontogeny.embeddings.own_rows import own_geometry_rows
from ontogeny.embeddings.pair_rows import compare_geometries
from ontogeny.errors import CheckpointError
from ontogeny.jobs import resumable
from ontogeny.jobs.geometry.plan import GeometryPlan, Place, Visit, plan_geometry
from ontogeny.jobs.inputs import output_folder
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import open_model
from ontogeny.records import Record
from ontogeny.storage.failures import Failure
from ontogeny.storage.files import content_digest
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.jobs.inputs import LineageSource

_FORMATION = "formation-of-geometry"


@shows_progress
def embedding_geometry(
    sources: "GeometryPlan | Sequence[LineageSource]",
    out: str | Path | None = None,
    texts: Sequence[str] = (),
    settings: GeometrySettings | None = None,
    *,
    model: ModelOptions | None = None,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Compare the geometry of token embeddings and hidden states between models and over the checkpoints of each (arXiv:2503.21073).

    Args:
        sources: A plan, or lineages, repositories or folders of models that share a tokenizer.
        out: Run directory, new or of an earlier comparison whose first model is the same; by default a temporary one.
        texts: Of the language that the models were trained on; without them frequencies come from the order of merges.
        settings: How many tokens, neighbours and draws.
        model: How models are loaded.
        command: The command line, for run.json.
        on_progress: Called with each step; by default a terminal or notebook shows a bar.

    Raises:
        BadInput: see `plan_geometry`, or no checkpoint could be read.
    """
    options = model or ModelOptions()
    plan = sources if isinstance(sources, GeometryPlan) else plan_geometry(sources, texts, settings, model=options)
    run = resumable.open_run_directory(output_folder(out, "geometry"), plan.lineages[0])
    if run.exists():
        repair_run(run)
    units, failures = [visit.unit for visit in plan.visits], list(plan.failures)
    missing = [visit for visit in plan.visits if not run.done(visit.unit)]
    sizes = {place.checkpoint: size for place, size in plan.sizes.items() if place.model == 0}
    described = {**asdict(plan.settings), "models": list(plan.names), "frequency": plan.tokens.frequency}
    with resumable.described_session(
        run, plan.lineages[0], units, sizes, failures, settings=described, device=options.device, command=command
    ):
        reader = _Reader(plan, options, {visit.place for visit in missing})
        for done, visit in enumerate(missing):
            began, c = time.perf_counter(), visit.place.checkpoint
            on_progress(TraceProgress(f"{plan.names[visit.place.model]} {c.label}", done, len(missing), "comparing"))
            try:
                _measure(run, reader, visit)
            except CheckpointError as error:
                failures.append(resumable.log_failure(run, Failure(c.name, c.stage, str(error))))
                continue
            run.log({"checkpoint": c.name, "stage": c.stage, "seconds": time.perf_counter() - began})
        resumable.check_any_done(run, units, failures)
        pairs = "coords['against'] is not null"
        resumable.drop_replaced(
            run, units, coords=("against", "other_model", "other_stage", "other_step", "space"), where=pairs
        )
        if missing:
            _summarise(run, plan)
    return run


class _Reader:
    """Geometries by checkpoint; each is loaded once as long as its partners come soon after it."""

    def __init__(self, plan: GeometryPlan, options: ModelOptions, wanted: set[Place]) -> None:
        self.plan, self.options, self.wanted = plan, options, wanted
        self.read = OrderedDict[Place, ModelGeometry]()
        self.own = dict[Place, list[Record]]()

    def geometry(self, place: Place) -> ModelGeometry:
        """The geometry of a checkpoint, from memory or from its model; the rows of its own are made on the way."""
        if place in self.read and (place not in self.wanted or place in self.own):
            self.read.move_to_end(place)
            return self.read[place]
        plan, rows = self.plan, list[Record]()

        def read_own(space: EmbeddingSpace, whole: Tensor, geometry: SpaceGeometry) -> None:
            if place in self.wanted:
                rows.extend(own_geometry_rows(space, whole, geometry, plan.tokens, plan.settings))

        network = open_model(place.checkpoint, self.options)
        self.read[place] = model_geometry(network, plan.tokens, plan.places, plan.settings, on_space=read_own)
        if place in self.wanted:
            self.own[place] = rows
        while len(self.read) > plan.cache_size:
            self.read.popitem(last=False)
        return self.read[place]


def _measure(run: Run, reader: _Reader, visit: Visit) -> None:
    plan, place = reader.plan, visit.place
    geometry = reader.geometry(place)
    records, scores = list(reader.own[place]), {}
    for against, partner in visit.partners:
        coords = {
            "against": against,
            "other_model": plan.names[partner.model],
            "other_stage": partner.checkpoint.stage,
            "other_step": str(partner.checkpoint.step),
        }
        other = reader.geometry(partner)
        compared = compare_geometries(geometry, other, plan.tokens, plan.places, plan.settings, coords)
        records += compared.records
        for space, influence in compared.influences.items():
            scores[f"{against}/{partner.model}/{space}"] = influence.float()
    stamp = CheckpointStamp.of(plan.names[place.model], visit.unit, place.checkpoint)
    run.keep(visit.unit, stamp.on(records), scores=scores or {"none": torch.zeros(1)})
    reader.own.pop(place)
    reader.wanted.discard(place)


def _summarise(run: Run, plan: GeometryPlan) -> None:
    """Rows of the step at which each similarity to the last checkpoint, and to another model, forms in each stage."""
    curves = []
    table = run.records(
        "metric = 'embedding_similarity' and coords['form'] = 'centred' and coords['against'] in ('last', 'model')"
    )
    finished = {visit.unit: visit for visit in plan.visits if run.done(visit.unit)}
    table = table[table["unit"].isin(finished) & table["value"].notna() & table["method"].eq("pearson")]
    for column in ("space", "against", "other_model"):
        table[column] = [coords[column] for coords in table["coords"]]
    table = table[table["step"].notna()]
    for key, rows in table.groupby(["lineage", "stage", "space", "against", "other_model"], sort=False):
        name, stage, space, against, other = map(str, key)
        own = rows[rows["control"].isna()].sort_values("step")
        nulls = rows[rows["step"].eq(own["step"].max())]
        floors = {c: nulls[nulls["control"].eq(c)]["value"].tolist() for c in ("frequency_matched", "shuffled")}
        floor, floor_name = next(((found[0], c) for c, found in floors.items() if found), (0.0, "zero"))
        # The first weights of a run stay in its last ones: what they share is not formed by training.
        if against == "last" and own["step"].iloc[0] == 0 and own["value"].iloc[0] > floor:
            floor, floor_name = own["value"].iloc[0], "step_0"
        at = f"{against}/{plan.names.index(other)}/{space}"
        influences = [run.scores(unit, [at])[at].double() for unit in own["unit"]]
        coords = {"space": space, "against": against, "other_model": other, "model": name, "floor_name": floor_name}
        curves.append(SimilarityCurve(stage, coords, own["step"].tolist(), own["value"].tolist(), influences, floor))
    unit = f"{_FORMATION}-{content_digest(sorted(finished))}"
    if curves:
        run.keep(unit, CheckpointStamp(plan.names[0], unit).sign(formation_rows(curves, seed=plan.settings.seed)))
    run.forget(_FORMATION, but=unit)
