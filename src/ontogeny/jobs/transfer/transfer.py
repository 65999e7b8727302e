"""Probe or vector of one checkpoint on another, for all pairs: what carries over, what it changes there (arXiv:2402.19465).

A trace reads each checkpoint once and leaves its directions behind; then each target is loaded once more, and all vectors are tried on it
while it is there. So no checkpoint is loaded more than twice, and once where a run already holds the trace.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.batching import Workload
from ontogeny.activations.capture import capture
from ontogeny.activations.workload import ConceptRows, build_workload
from ontogeny.data.concept import Concept
from ontogeny.dynamics.measured_checkpoints import measured_checkpoints
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.run_json import TRANSFERS_FOLDER
from ontogeny.jobs.trace.plan import TracePlan, check_plan_matches_run, plan_trace
from ontogeny.jobs.trace.reread import concept_as_traced, trace_settings_of
from ontogeny.jobs.trace.trace import trace
from ontogeny.jobs.transfer.measure import (
    EffectMeter,
    TransferOutcome,
    answer_margin_outcome,
    indices_in,
    probe_readout_outcome,
    sub_workload,
)
from ontogeny.jobs.transfer.plan import (
    AVERAGED_COUNTS,
    TRANSFER_VERSION,
    TransferSettings,
    check_transfer,
    checkpoints_to_average,
    choose_neutral_texts,
    transfer_targets,
)
from ontogeny.jobs.transfer.rows import (
    cross_auroc_rows,
    shuffled_label_directions,
    transfer_effect_rows,
    unmeasured_row,
)
from ontogeny.jobs.transfer.sources import TransferSource, average_sources, read_sources, transfer_site
from ontogeny.jobs.transfer.summary import summarise_transfer
from ontogeny.lineage import Checkpoint, Lineage, prefetch_checkpoints
from ontogeny.measurements.rows import CheckpointStamp, RowContext
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import nearest_tokenizer
from ontogeny.models.model import Model
from ontogeny.models.reusable import ReusableModel
from ontogeny.sites import Site
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run

_SAME_SITE_NOTE = (
    "the vector is put where the probe reads, at the last layer: a dot product. Give answers, or another --site"
)
DEFAULT_READING_SETTINGS = TraceSettings(sites="resid", fits=("logistic", "mass_mean"))
"""How a checkpoint is traced where no run says otherwise."""


@dataclass(frozen=True)
class TransferRunOptions:
    """What decides how models are had, and none of the numbers."""

    device: str = "cpu"
    tokenizer: Path | None = None
    allow_pickle: bool = False
    delete_behind: bool = False
    command: str | None = None
    watch: ProgressCallback = ignore_progress


def transfer(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: str | Path,
    options: TransferSettings | None = None,
    settings: TraceSettings | None = None,
    *,
    traced: bool = False,
    how: TransferRunOptions | None = None,
) -> Run:
    """Write the rows of a transfer into the run at `out`, traced first where it is not; `traced`: it must be, and nothing is traced.

    Raises:
        BadInput: nothing can be carried over, or the run at `out` is another one.
    """
    options, out, how = options or TransferSettings(), Path(out), how or TransferRunOptions()
    check_transfer(lineage, concepts, tokenizer=how.tokenizer)
    job, run = ensure_traced(lineage, concepts, out, settings, how, into=options.into, traced=traced)
    with run_lock(run.folder):
        asked = {**asdict(options), "neutral": len(options.neutral)}
        told = {concept.name: asked for concept in job.concepts}
        run.describe(run.about | {TRANSFERS_FOLDER: run.about.get(TRANSFERS_FOLDER, {}) | told})
        _TransferRun(job, run, options, how).all()
    return run


def ensure_traced(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: Path,
    settings: TraceSettings | None,
    how: TransferRunOptions,
    *,
    into: str | None = None,
    traced: bool = False,
) -> tuple[TracePlan, Run]:
    """The run at `out` with what it lacks of these checkpoints traced into it; `traced`: it must not lack any.

    Raises:
        BadInput: it does, it is another run, or there is no such target.
    """
    settings, concepts = settings_of_run(out, settings, concepts, must=traced)
    job = plan_trace(lineage, concepts, settings, allow_pickle=how.allow_pickle)
    transfer_targets(job, into)
    run = check_plan_matches_run(job, out)
    missing = job.missing(run)
    if missing and traced:
        first = next(iter(missing))
        raise BadInput(
            f"{out} holds no {missing[first][0].name} at {first.stage} {first.name}, of these texts and weights. Trace it."
        )
    if missing:
        trace(
            lineage,
            concepts,
            out,
            settings,
            device=how.device,
            tokenizer=how.tokenizer,
            allow_pickle=how.allow_pickle,
            delete_behind=how.delete_behind,
            command=how.command,
            on_progress=how.watch,
        )
    return job, run


def settings_of_run(
    out: Path, settings: TraceSettings | None, concepts: Sequence[Concept], *, must: bool = False
) -> tuple[TraceSettings, list[Concept]]:
    """The settings of the run that is there, and the concepts as it read them; those given where there is none.

    Raises:
        BadInput: there must be a run, and is none.
    """
    if not must and not Run(out).about_path.is_file():
        return settings or DEFAULT_READING_SETTINGS, list(concepts)
    run = Run.open(out)
    return settings or trace_settings_of(run), [concept_as_traced(run, concept) for concept in concepts]


@dataclass(frozen=True, eq=False)
class _ConceptPlan:
    """One concept: the vectors of all checkpoints at its site."""

    concept: Concept
    site: Site
    sources: Mapping[Checkpoint, TransferSource]
    neutral: tuple[str, ...]
    neutral_from: str


class _TransferRun:
    def __init__(self, job: TracePlan, run: Run, options: TransferSettings, how: TransferRunOptions) -> None:
        self.job, self.run, self.options, self.how = job, run, options, how
        self.standing = ReusableModel(how.device, getattr(torch, job.settings.dtype), how.allow_pickle)
        self.plans = [self._plan(concept) for concept in job.concepts]
        self.cut: tuple[object, tuple[Workload, Mapping[str, ConceptRows]]] | None = None

    def all(self) -> None:
        """Visit every target that lacks a unit, then relate them."""
        into = transfer_targets(self.job, self.options.into)
        todo = {c: [p for p in self.plans if c in p.sources and not self.run.done(self._unit(p, c))] for c in into}
        todo = {checkpoint: plans for checkpoint, plans in todo.items() if plans}
        done = len(into) - len(todo)
        for checkpoint, folder in prefetch_checkpoints(tuple(todo), delete_behind=self.how.delete_behind):
            if isinstance(folder, BadInput):
                raise folder
            began = time.perf_counter()
            self.how.watch(TraceProgress(checkpoint.name, done, len(into), "loading"))
            model, _ = self.standing.load(folder, self.how.tokenizer or nearest_tokenizer(folder))
            for plan in todo[checkpoint]:
                self.how.watch(TraceProgress(checkpoint.name, done, len(into), f"trying {plan.concept.name}"))
                self._visit(plan, checkpoint, model)
            told = {
                "transfer": checkpoint.name,
                "stage": checkpoint.stage,
                "units": [self._unit(p, checkpoint) for p in todo[checkpoint]],
            }
            self.run.log({**told, "seconds": time.perf_counter() - began})
            done += 1
        self.how.watch(TraceProgress("", len(into), len(into), "relating checkpoints"))
        for plan in self.plans:
            summarise_transfer(self.run, self.job, self.job.designs[plan.concept.name], plan.site)

    def _plan(self, concept: Concept) -> _ConceptPlan:
        units = {self.job.units[c, concept.name]: c for c in self.job.checkpoints}
        visits = [visit for visit in measured_checkpoints(self.run, concept.name) if visit.unit in units]
        if len(visits) < 2:
            raise BadInput(
                f"{concept.name} could be read at {len(visits)} checkpoint only, and nothing can be carried over."
            )
        site, at = transfer_site(self.run, visits[-1], self.options.site)
        held = {units[s.visit.unit]: s for s in read_sources(self.run, visits, at) if s.visit}
        neutral, told = choose_neutral_texts(concept, self.job.concepts, self.options.neutral)
        return _ConceptPlan(concept, site, held, neutral, told)

    def _unit(self, plan: _ConceptPlan, target: Checkpoint) -> str:
        """Its name begins with target and concept: whatever is asked of these two next takes its place."""
        options = {k: v for k, v in asdict(self.options).items() if k != "into"}
        given = [s.visit.unit for s in plan.sources.values() if s.visit]
        asked = [TRANSFER_VERSION, options, str(plan.site), given, plan.neutral, self._averages(plan, target) != []]
        return f"{self._prefix(plan, target)}{content_digest(asked)}"

    def _prefix(self, plan: _ConceptPlan, target: Checkpoint) -> str:
        return f"transfer-{content_digest([plan.concept.name, target.stage, target.name])}-"

    def _averages(self, plan: _ConceptPlan, target: Checkpoint) -> list[TransferSource]:
        """For the target that was asked for, and the last checkpoint of each stage."""
        if self.options.into is None and target != [c for c in self.job.checkpoints if c.stage == target.stage][-1]:
            return []
        return average_sources(
            [plan.sources[c] for c in checkpoints_to_average(self.job, target) if c in plan.sources], AVERAGED_COUNTS
        )

    def _visit(self, plan: _ConceptPlan, target: Checkpoint, model: Model) -> None:
        design, own = self.job.designs[plan.concept.name], plan.sources[target]
        work, rows = self._cut(model)
        x, reads = _activations(model, work, rows[plan.concept.name], plan.site)
        about = RowContext(
            plan.concept.name, str(plan.concept.position), len(design.split.test), self.job.settings.seed
        )
        tried = [*plan.sources.values(), *self._averages(plan, target)]
        records, raw = cross_auroc_rows(design, about, x, plan.site, tried, own)
        centre = x[design.split.train].double().mean(0)
        kept = {f"raw/{method}": scores for method, scores in raw.items()}
        kept |= {f"centre/{m}": (torch.stack([s.probes[m] for s in tried]).double() @ centre).float() for m in raw}
        same_place = not plan.concept.answers and plan.site == Site("resid", model.layers)
        if self.options.effect and same_place:
            records.append(unmeasured_row(about, plan.site, "transfer_effect", _SAME_SITE_NOTE))
        elif self.options.effect:
            outcome = self._outcome(plan, model, work, reads, own)
            bench = EffectMeter.of(model, plan.site, outcome, plan.neutral, self.options.equal_cost)
            shuffled = shuffled_label_directions(x, design, self.options.shuffles)
            changed = transfer_effect_rows(about, bench, plan.site, tried, own, self.options, shuffled)
            records += [_with_neutral_note(record, plan.neutral_from) for record in changed.records]
            kept |= {"effects": changed.effects.float(), "p": changed.p}
        header: dict[str, Any] = {
            "at": {
                "stage": target.stage,
                "step": target.step,
                "tokens": target.tokens,
                "revision": target.revision or target.name,
                "train_seed": target.train_seed,
            },
            "version": TRANSFER_VERSION,
            "concept": plan.concept.name,
            "controls": self.options.controls if "p" in kept else 0,
            "site": str(plan.site),
            "target": self.job.order(target),
            "sources": [source.told | {"order": s} for s, source in zip(self._orders(plan, tried), tried, strict=True)],
            "biases": {m: [source.biases[m] for source in tried] for m in raw},
        }
        unit = self._unit(plan, target)
        self._forget(self._prefix(plan, target), unit)
        stamp = CheckpointStamp(self.job.lineage.name, unit, **header["at"])
        self.run.keep(unit, stamp.on(records), header=header, scores=kept)

    def _orders(self, plan: _ConceptPlan, tried: Sequence[TransferSource]) -> Iterator[int | None]:
        orders = [self.job.order(checkpoint) for checkpoint in plan.sources]
        yield from (orders[i] if i < len(orders) else None for i in range(len(tried)))

    def _outcome(
        self, plan: _ConceptPlan, model: Model, work: Workload, reads: Tensor, own: TransferSource
    ) -> TransferOutcome:
        design = self.job.designs[plan.concept.name]
        if plan.concept.answers:
            return answer_margin_outcome(model, design)
        assert own.visit is not None
        sites = own.visit.sites["resid"]
        last = Site("resid", model.layers)
        if last not in sites:
            raise BadInput(
                f"{plan.concept.name} has no answers, and {self.run.folder} no probe at {last} that could say what a vector changes. "
                f"Trace {last} too, give the concept answers, or pass --no-effect."
            )
        key = "mass_mean/resid/direction"
        probe = self.run.directions(own.visit.unit, [key])[key][sites.index(last), :, 0]
        return probe_readout_outcome(model, design, work, reads, probe)

    def _cut(self, model: Model) -> tuple[Workload, Mapping[str, ConceptRows]]:
        if self.cut is None or self.cut[0] is not model.tokenizer:
            found = build_workload(
                self.job.concepts, model.tokenizer, model.context, truncate=self.job.settings.truncate
            )
            self.cut = model.tokenizer, found
        return self.cut[1]

    def _forget(self, prefix: str, but: str) -> None:
        for path in (self.run.folder / "records").glob(f"{prefix}*.parquet"):
            if path.stem != but:
                self.run.drop(path.stem)


def _activations(
    model: Model, work: Workload, rows: ConceptRows, site: Site
) -> tuple[Float[Tensor, "example d"], Tensor]:
    """Of one concept's texts alone, at one site; the answers are not scored here."""
    reads = rows.reads.tolist()
    return capture(model, sub_workload(work, reads), [site]).parts["resid"][0].cpu()[indices_in(reads)], rows.reads


def _with_neutral_note(record: Any, neutral_from: str) -> Any:
    return replace(record, note=record.note or neutral_from) if record.metric == "transfer_cost" else record
