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

from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab.about import TRANSFERS
from ontogeny.lab.alone import alone
from ontogeny.lab.capture import capture
from ontogeny.lab.job import Job, prepare, refuse_contradictions
from ontogeny.lab.passes import Workload
from ontogeny.lab.progress import Progress, Watch, silent
from ontogeny.lab.rereading import as_traced, settings_of
from ontogeny.lab.rows import About, Stamp
from ontogeny.lab.settings import Settings
from ontogeny.lab.standing import Standing
from ontogeny.lab.texts import Rows, workload
from ontogeny.lab.trace import trace
from ontogeny.lab.transfer.effect import Bench, Outcome, by_answers, by_readout, only, places
from ontogeny.lab.transfer.plan import AVERAGES, VERSION, Options, check, neutral_texts, pool, targets
from ontogeny.lab.transfer.rows import effect_rows, read_rows, shuffled_directions, unmeasured
from ontogeny.lab.transfer.series import relate
from ontogeny.lab.transfer.sources import Source, averages, site_of, sources
from ontogeny.lab.visits import visited
from ontogeny.lineage import Checkpoint, Lineage, stream
from ontogeny.model import Model
from ontogeny.opening import tokenizer_near
from ontogeny.run import Run
from ontogeny.sites import Site
from ontogeny.store import digest

SAME_PLACE = (
    "the vector is put where the probe reads, at the last layer: a dot product. Give answers, or another --site"
)
READING = Settings(sites="resid", fits=("logistic", "mass_mean"))
"""How a checkpoint is traced where no run says otherwise."""


@dataclass(frozen=True)
class How:
    """What decides how models are had, and none of the numbers."""

    device: str = "cpu"
    tokenizer: Path | None = None
    allow_pickle: bool = False
    delete_behind: bool = False
    command: str | None = None
    watch: Watch = silent


def transfer(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: str | Path,
    options: Options | None = None,
    settings: Settings | None = None,
    *,
    traced: bool = False,
    how: How | None = None,
) -> Run:
    """Write the rows of a transfer into the run at `out`, traced first where it is not; `traced`: it must be, and nothing is traced.

    Raises:
        BadInput: nothing can be carried over, or the run at `out` is another one.
    """
    options, out, how = options or Options(), Path(out), how or How()
    check(lineage, concepts, tokenizer=how.tokenizer)
    job, run = ensure_traced(lineage, concepts, out, settings, how, into=options.into, traced=traced)
    with alone(run.folder):
        asked = {**asdict(options), "neutral": len(options.neutral)}
        told = {concept.name: asked for concept in job.concepts}
        run.describe(run.about | {TRANSFERS: run.about.get(TRANSFERS, {}) | told})
        _Transfer(job, run, options, how).all()
    return run


def ensure_traced(
    lineage: Lineage,
    concepts: Sequence[Concept],
    out: Path,
    settings: Settings | None,
    how: How,
    *,
    into: str | None = None,
    traced: bool = False,
) -> tuple[Job, Run]:
    """The run at `out` with what it lacks of these checkpoints traced into it; `traced`: it must not lack any.

    Raises:
        BadInput: it does, it is another run, or there is no such target.
    """
    settings, concepts = settled(out, settings, concepts, must=traced)
    job = prepare(lineage, concepts, settings, allow_pickle=how.allow_pickle)
    targets(job, into)
    run = refuse_contradictions(job, out)
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


def settled(
    out: Path, settings: Settings | None, concepts: Sequence[Concept], *, must: bool = False
) -> tuple[Settings, list[Concept]]:
    """The settings of the run that is there, and the concepts as it read them; those given where there is none.

    Raises:
        BadInput: there must be a run, and is none.
    """
    if not must and not Run(out).about_path.is_file():
        return settings or READING, list(concepts)
    run = Run.open(out)
    return settings or settings_of(run), [as_traced(run, concept) for concept in concepts]


@dataclass(frozen=True, eq=False)
class _Plan:
    """One concept: the vectors of all checkpoints at its site."""

    concept: Concept
    site: Site
    sources: Mapping[Checkpoint, Source]
    neutral: tuple[str, ...]
    neutral_from: str


class _Transfer:
    def __init__(self, job: Job, run: Run, options: Options, how: How) -> None:
        self.job, self.run, self.options, self.how = job, run, options, how
        self.standing = Standing(how.device, getattr(torch, job.settings.dtype), how.allow_pickle)
        self.plans = [self._plan(concept) for concept in job.concepts]
        self.cut: tuple[object, tuple[Workload, Mapping[str, Rows]]] | None = None

    def all(self) -> None:
        """Visit every target that lacks a unit, then relate them."""
        into = targets(self.job, self.options.into)
        todo = {c: [p for p in self.plans if c in p.sources and not self.run.done(self._unit(p, c))] for c in into}
        todo = {checkpoint: plans for checkpoint, plans in todo.items() if plans}
        done = len(into) - len(todo)
        for checkpoint, folder in stream(tuple(todo), delete_behind=self.how.delete_behind):
            if isinstance(folder, BadInput):
                raise folder
            began = time.perf_counter()
            self.how.watch(Progress(checkpoint.name, done, len(into), "loading"))
            model, _ = self.standing.load(folder, self.how.tokenizer or tokenizer_near(folder))
            for plan in todo[checkpoint]:
                self.how.watch(Progress(checkpoint.name, done, len(into), f"trying {plan.concept.name}"))
                self._visit(plan, checkpoint, model)
            told = {
                "transfer": checkpoint.name,
                "stage": checkpoint.stage,
                "units": [self._unit(p, checkpoint) for p in todo[checkpoint]],
            }
            self.run.log({**told, "seconds": time.perf_counter() - began})
            done += 1
        self.how.watch(Progress("", len(into), len(into), "relating checkpoints"))
        for plan in self.plans:
            relate(self.run, self.job, self.job.designs[plan.concept.name], plan.site)

    def _plan(self, concept: Concept) -> _Plan:
        units = {self.job.units[c, concept.name]: c for c in self.job.checkpoints}
        visits = [visit for visit in visited(self.run, concept.name) if visit.unit in units]
        if len(visits) < 2:
            raise BadInput(
                f"{concept.name} could be read at {len(visits)} checkpoint only, and nothing can be carried over."
            )
        site, at = site_of(self.run, visits[-1], self.options.site)
        held = {units[s.visit.unit]: s for s in sources(self.run, visits, at) if s.visit}
        neutral, told = neutral_texts(concept, self.job.concepts, self.options.neutral)
        return _Plan(concept, site, held, neutral, told)

    def _unit(self, plan: _Plan, target: Checkpoint) -> str:
        """Its name begins with target and concept: whatever is asked of these two next takes its place."""
        options = {k: v for k, v in asdict(self.options).items() if k != "into"}
        given = [s.visit.unit for s in plan.sources.values() if s.visit]
        asked = [VERSION, options, str(plan.site), given, plan.neutral, self._averages(plan, target) != []]
        return f"{self._prefix(plan, target)}{digest(asked)}"

    def _prefix(self, plan: _Plan, target: Checkpoint) -> str:
        return f"transfer-{digest([plan.concept.name, target.stage, target.name])}-"

    def _averages(self, plan: _Plan, target: Checkpoint) -> list[Source]:
        """For the target that was asked for, and the last checkpoint of each stage."""
        if self.options.into is None and target != [c for c in self.job.checkpoints if c.stage == target.stage][-1]:
            return []
        return averages([plan.sources[c] for c in pool(self.job, target) if c in plan.sources], AVERAGES)

    def _visit(self, plan: _Plan, target: Checkpoint, model: Model) -> None:
        design, own = self.job.designs[plan.concept.name], plan.sources[target]
        work, rows = self._cut(model)
        x, reads = _activations(model, work, rows[plan.concept.name], plan.site)
        about = About(plan.concept.name, str(plan.concept.position), len(design.split.test), self.job.settings.seed)
        tried = [*plan.sources.values(), *self._averages(plan, target)]
        records, raw = read_rows(design, about, x, plan.site, tried, own)
        centre = x[design.split.train].double().mean(0)
        kept = {f"raw/{method}": scores for method, scores in raw.items()}
        kept |= {f"centre/{m}": (torch.stack([s.probes[m] for s in tried]).double() @ centre).float() for m in raw}
        same_place = not plan.concept.answers and plan.site == Site("resid", model.layers)
        if self.options.effect and same_place:
            records.append(unmeasured(about, plan.site, "transfer_effect", SAME_PLACE))
        elif self.options.effect:
            outcome = self._outcome(plan, model, work, reads, own)
            bench = Bench.of(model, plan.site, outcome, plan.neutral, self.options.equal_cost)
            shuffled = shuffled_directions(x, design, self.options.shuffles)
            changed = effect_rows(about, bench, plan.site, tried, own, self.options, shuffled)
            records += [_noted(record, plan.neutral_from) for record in changed.records]
            kept |= {"effects": changed.effects.float(), "p": changed.p}
        header: dict[str, Any] = {
            "at": {
                "stage": target.stage,
                "step": target.step,
                "tokens": target.tokens,
                "revision": target.revision or target.name,
                "train_seed": target.train_seed,
            },
            "version": VERSION,
            "concept": plan.concept.name,
            "controls": self.options.controls if "p" in kept else 0,
            "site": str(plan.site),
            "target": self.job.order(target),
            "sources": [source.told | {"order": s} for s, source in zip(self._orders(plan, tried), tried, strict=True)],
            "biases": {m: [source.biases[m] for source in tried] for m in raw},
        }
        unit = self._unit(plan, target)
        self._forget(self._prefix(plan, target), unit)
        stamp = Stamp(self.job.lineage.name, unit, **header["at"])
        self.run.keep(unit, stamp.on(records), header=header, scores=kept)

    def _orders(self, plan: _Plan, tried: Sequence[Source]) -> Iterator[int | None]:
        orders = [self.job.order(checkpoint) for checkpoint in plan.sources]
        yield from (orders[i] if i < len(orders) else None for i in range(len(tried)))

    def _outcome(self, plan: _Plan, model: Model, work: Workload, reads: Tensor, own: Source) -> Outcome:
        design = self.job.designs[plan.concept.name]
        if plan.concept.answers:
            return by_answers(model, design)
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
        return by_readout(model, design, work, reads, probe)

    def _cut(self, model: Model) -> tuple[Workload, Mapping[str, Rows]]:
        if self.cut is None or self.cut[0] is not model.tokenizer:
            found = workload(self.job.concepts, model.tokenizer, model.context, truncate=self.job.settings.truncate)
            self.cut = model.tokenizer, found
        return self.cut[1]

    def _forget(self, prefix: str, but: str) -> None:
        for path in (self.run.folder / "records").glob(f"{prefix}*.parquet"):
            if path.stem != but:
                self.run.drop(path.stem)


def _activations(model: Model, work: Workload, rows: Rows, site: Site) -> tuple[Float[Tensor, "example d"], Tensor]:
    """Of one concept's texts alone, at one site; the answers are not scored here."""
    reads = rows.reads.tolist()
    return capture(model, only(work, reads), [site]).parts["resid"][0].cpu()[places(reads)], rows.reads


def _noted(record: Any, neutral_from: str) -> Any:
    return replace(record, note=record.note or neutral_from) if record.metric == "transfer_cost" else record
