"""Transfer: try the probes and vectors of each checkpoint on every other one (arXiv:2402.19465).

A trace reads each checkpoint once and keeps its directions. Then each target is loaded once more, and all vectors are tried on it. So no
checkpoint is loaded more than twice, and only once if a run already holds the trace.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ontogeny.activations.batching import Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import ConceptRows, build_workload
from ontogeny.data.concept import Concept
from ontogeny.dynamics.measured_checkpoints import measured_checkpoints, one_fold_readout
from ontogeny.errors import BadInput
from ontogeny.jobs import resumable
from ontogeny.jobs.inputs import as_concepts, as_lineage, output_folder
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress, shows_progress
from ontogeny.jobs.run_json import TRANSFERS_FOLDER
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.jobs.trace.trace import trace
from ontogeny.jobs.transfer.measure import (
    EffectMeter,
    TransferOutcome,
    answer_margin_outcome,
    probe_readout_outcome,
)
from ontogeny.jobs.transfer.plan import (
    AVERAGED_COUNTS,
    TRANSFER_VERSION,
    TransferSettings,
    check_transfer,
    checkpoints_to_average,
    choose_neutral_texts,
    open_trace,
    transfer_targets,
)
from ontogeny.jobs.transfer.rows import (
    SiteRows,
    cross_auroc_rows,
    shuffled_label_directions,
    transfer_effect_rows,
)
from ontogeny.jobs.transfer.sources import TransferSource, average_sources, read_sources, transfer_site
from ontogeny.jobs.transfer.summary import summarise_transfer
from ontogeny.lineage import Checkpoint
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model
from ontogeny.models.reusable import ReusableModel
from ontogeny.sites import Site
from ontogeny.storage.files import content_digest
from ontogeny.storage.repair import repair_run
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.jobs.inputs import ConceptSources, LineageSource

_SAME_SITE_NOTE = (
    "the vector is put where the probe reads, at the last layer: a dot product. Give answers, or another --site"
)


@shows_progress
def transfer(
    source: "LineageSource",
    concepts: "ConceptSources",
    out: str | Path | None = None,
    settings: TransferSettings | None = None,
    *,
    reading: TraceSettings | None = None,
    traced: bool = False,
    model: ModelOptions | None = None,
    delete_behind: bool = False,
    command: str | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> Run:
    """Write the rows of a transfer into the run at `out`; what it lacks of the trace is traced first.

    Args:
        source: Lineage, repository on the Hub, folder of checkpoints, or lineage.toml.
        concepts: One or several: names of plug-ins, files, data frames, or `Concept` objects.
        out: Run directory of a trace, or a new one; by default a temporary one.
        settings: Which vectors are moved where, and what is measured.
        reading: Settings of the trace; by default those of the run, or `DEFAULT_READING_SETTINGS`.
        traced: Raise an error if the run lacks a unit of the trace, instead of tracing it.
        model: How models are loaded; its dtype is that of the trace.
        delete_behind: Delete each downloaded checkpoint after its visit.
        command: The command line, for run.json.
        on_progress: Called with each step; by default a terminal or notebook shows a bar.

    Raises:
        BadInput: nothing can be transferred, or the run at `out` was made in another way.
    """
    settings, options = settings or TransferSettings(), model or ModelOptions()
    lineage, concepts = as_lineage(source, allow_pickle=options.allow_pickle), as_concepts(concepts)
    out = output_folder(out, "transfer")
    check_transfer(lineage, concepts, has_tokenizer=options.tokenizer is not None)
    if not traced:
        repair_run(Run(Path(out)))
    plan, run = open_trace(lineage, concepts, out, reading, traced=traced, model=options)
    transfer_targets(plan, settings.into)
    complete_trace(plan, run, options, delete_behind=delete_behind, command=command, on_progress=on_progress)
    job = _Transfer(plan, run, settings, options, on_progress)
    with resumable.job_session(run, job.units.values()):
        described = {name: asdict(settings) | {"neutral": len(settings.neutral)} for name in job.concepts}
        run.describe(run.about | {TRANSFERS_FOLDER: run.about.get(TRANSFERS_FOLDER, {}) | described})
        job.run_all(delete_behind=delete_behind)
    return run


def complete_trace(plan: TracePlan, run: Run, options: ModelOptions, **execution: Any) -> None:
    """Trace what the run lacks, and relate its checkpoints if that was interrupted; `execution` as for `trace`."""
    if plan.missing(run) or not run.about.get("finished", False):
        options = replace(options, dtype=plan.settings.dtype)
        trace(plan.lineage, plan.concepts, run.folder, plan.settings, model=options, **execution)


@dataclass(frozen=True, eq=False)
class _ConceptTransfer:
    """One concept with its vectors of all checkpoints, at one site."""

    concept: Concept
    site: Site
    sources: Mapping[Checkpoint, TransferSource]
    neutral: tuple[str, ...]
    neutral_note: str


class _Transfer:
    """All concepts of one transfer, and the model that is reused for all targets."""

    def __init__(
        self,
        plan: TracePlan,
        run: Run,
        settings: TransferSettings,
        options: ModelOptions,
        on_progress: ProgressCallback,
    ) -> None:
        self.plan, self.run, self.settings, self.options, self.on_progress = plan, run, settings, options, on_progress
        self.targets = transfer_targets(plan, settings.into)
        self.concepts = {concept.name: self._prepare(concept) for concept in plan.concepts}
        self.units = {
            (target, name): self._unit_key(one, target)
            for target in self.targets
            for name, one in self.concepts.items()
            if target in one.sources
        }
        self.reusable = ReusableModel(replace(options, dtype=plan.settings.dtype))
        self.tokenizer: object = None
        self.workload: tuple[Workload, Mapping[str, ConceptRows]] = Workload(()), {}

    def run_all(self, *, delete_behind: bool) -> None:
        """Visit the targets that lack a unit, then summarise all."""
        missing, total = resumable.missing_units(self.run, self.units), len(self.targets)
        done = total - len(missing)

        def visit(target: Checkpoint, folder: Path) -> None:
            nonlocal done
            began = time.perf_counter()
            self.on_progress(TraceProgress(target.label, done, total, "loading"))
            model, _ = self.reusable.load(folder)
            for name in missing[target]:
                self.on_progress(TraceProgress(target.label, done, total, f"trying {name}"))
                self._measure(self.concepts[name], target, model)
            units = [self.units[target, name] for name in missing[target]]
            entry = {"transfer": target.name, "stage": target.stage, "units": units}
            self.run.log({**entry, "seconds": time.perf_counter() - began})
            done += 1

        fetched = resumable.fetch_ahead(missing, self.options, delete_behind=delete_behind)
        resumable.visit_checkpoints(self.run, fetched, visit, tolerant=False)
        self.on_progress(TraceProgress("", total, total, "relating checkpoints"))
        for name, one in self.concepts.items():
            summarise_transfer(self.run, self.plan, self.plan.designs[name].one_fold(), one.site)

    def _prepare(self, concept: Concept) -> _ConceptTransfer:
        checkpoints = {self.plan.units[c, concept.name]: c for c in self.plan.checkpoints}
        measured = [entry for entry in measured_checkpoints(self.run, concept.name) if entry.unit in checkpoints]
        if len(measured) < 2:
            raise BadInput(
                f"{concept.name} must be measured at two checkpoints or more to be transferred, got {len(measured)}."
            )
        site, at = transfer_site(self.run, measured[-1], self.settings.site)
        sources = {
            checkpoints[s.measured.unit]: s
            for s in read_sources(self.run, self.plan.designs[concept.name], measured, at)
            if s.measured
        }
        neutral, note = choose_neutral_texts(concept, self.plan.concepts, self.settings.neutral)
        return _ConceptTransfer(concept, site, sources, neutral, note)

    def _unit_key(self, one: _ConceptTransfer, target: Checkpoint) -> str:
        """Target and concept come first, so that a unit of other settings is replaced."""
        settings = {name: value for name, value in asdict(self.settings).items() if name != "into"}
        sources = [s.measured.unit for s in one.sources.values() if s.measured]
        averaged = self._averages(one, target) != []
        # Earlier versions asked the questions of a concept in a template without it.
        asked = ["asked in template"] if one.concept.template and one.concept.answers and self.settings.effect else []
        key = content_digest([TRANSFER_VERSION, settings, str(one.site), sources, one.neutral, averaged, *asked])
        return f"{_unit_prefix(one.concept, target)}{key}"

    def _averages(self, one: _ConceptTransfer, target: Checkpoint) -> list[TransferSource]:
        """Averaged vectors, for the only target or the last checkpoint of each stage."""
        last = [c for c in self.plan.checkpoints if c.stage == target.stage][-1]
        if self.settings.into is None and target != last:
            return []
        earlier = checkpoints_to_average(self.plan, target)
        return average_sources([one.sources[c] for c in earlier if c in one.sources], AVERAGED_COUNTS)

    def _measure(self, one: _ConceptTransfer, target: Checkpoint, model: Model) -> None:
        """Try all vectors of a concept on a target, and keep the unit."""
        name, own, unit = one.concept.name, one.sources[target], self.units[target, one.concept.name]
        design = self.plan.designs[name].one_fold()
        work, rows = self._workload(model)
        part, places = work.subset(rows[name].reads.tolist())
        x = capture_workload(model, part, [one.site]).parts["resid"][0].cpu()[places]
        build = SiteRows.of(design, one.site, self.plan.settings.seed)
        sources = [*one.sources.values(), *self._averages(one, target)]
        records, raw = cross_auroc_rows(build, design, x, sources, own)
        centre = x[design.split.train].double().mean(0)
        kept = {f"raw/{method}": scores for method, scores in raw.items()}
        kept |= {f"centre/{m}": (torch.stack([s.probes[m] for s in sources]).double() @ centre).float() for m in raw}
        if self.settings.effect and not one.concept.answers and one.site == Site("resid", model.layers):
            records.append(build.row("transfer_effect", math.nan, {}, n=0, note=_SAME_SITE_NOTE))
        elif self.settings.effect:
            outcome = self._outcome(one, model, rows[name], own)
            meter = EffectMeter.of(model, one.site, outcome, one.neutral, self.settings.equal_cost)
            shuffled = shuffled_label_directions(x, design, self.settings.shuffles)
            effects = transfer_effect_rows(build, meter, sources, own, self.settings, shuffled)
            for record in effects.records:
                note = one.neutral_note if record.metric == "transfer_cost" else None
                records.append(replace(record, note=record.note or note))
            kept |= {"effects": effects.effects.float(), "p": effects.p}
        stamp = CheckpointStamp.of(self.plan.lineage.name, unit, target)
        orders = [self.plan.order(checkpoint) for checkpoint in one.sources] + [None] * (
            len(sources) - len(one.sources)
        )
        header = {
            "at": {key: value for key, value in asdict(stamp).items() if key not in ("lineage", "unit")},
            "version": TRANSFER_VERSION,
            "concept": name,
            "controls": self.settings.controls if "p" in kept else 0,
            "site": str(one.site),
            "target": self.plan.order(target),
            "sources": [s.row_coords | {"order": order} for order, s in zip(orders, sources, strict=True)],
            "biases": {m: [source.biases[m] for source in sources] for m in raw},
        }
        for path in (self.run.folder / "records").glob(f"{_unit_prefix(one.concept, target)}*.parquet"):
            if path.stem != unit:
                self.run.drop(path.stem)
        self.run.keep(unit, stamp.on(records), header=header, scores=kept)

    def _outcome(self, one: _ConceptTransfer, model: Model, rows: ConceptRows, own: TransferSource) -> TransferOutcome:
        whole = self.plan.designs[one.concept.name]
        design = whole.one_fold()
        if one.concept.answers:
            return answer_margin_outcome(model, design)
        assert own.measured is not None
        sites, last = own.measured.sites["resid"], Site("resid", model.layers)
        if last not in sites:
            raise BadInput(
                f"{one.concept.name} has no answers, and {self.run.folder} no probe at {last} to measure the effect of a vector with: "
                f"trace {last} too, give the concept answers, or turn `effect` off."
            )
        probe, _ = one_fold_readout(self.run, whole, own.measured.unit, "mass_mean", "resid", sites.index(last))
        return probe_readout_outcome(model, design, self._workload(model)[0], rows.reads, probe)

    def _workload(self, model: Model) -> tuple[Workload, Mapping[str, ConceptRows]]:
        if self.tokenizer is not model.tokenizer:
            concepts, truncate = self.plan.concepts, self.plan.settings.truncate
            self.workload = build_workload(concepts, model.tokenizer, model.context, truncate=truncate)
            self.tokenizer = model.tokenizer
        return self.workload


def _unit_prefix(concept: Concept, target: Checkpoint) -> str:
    return f"transfer-{content_digest([concept.name, target.stage, target.name])}-"
