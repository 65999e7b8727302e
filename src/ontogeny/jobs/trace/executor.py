"""Trace executor: read all missing concepts of a checkpoint in one pass, measure each, and write one part per concept."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ontogeny.activations import parity
from ontogeny.activations.activations import Activations, template_rows
from ontogeny.activations.batching import Workload
from ontogeny.activations.cache import cache_key
from ontogeny.activations.capture import CaptureCounts, capture_workload
from ontogeny.activations.workload import ConceptRows, build_workload
from ontogeny.data.concept import Concept
from ontogeny.data.templates import template_name
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import TraceProgress
from ontogeny.jobs.resumable import fetch_ahead, visit_checkpoints
from ontogeny.jobs.trace.execution import TraceExecution, untrained_unit
from ontogeny.jobs.trace.frozen import FrozenProbes
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.lineage import Checkpoint
from ontogeny.measurements import behaviour
from ontogeny.measurements.measure import measure_concept
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models.model import Model, tokenizer_fingerprint, untrained_model
from ontogeny.models.multi_gpu import input_device
from ontogeny.models.reusable import ReusableModel, tokenizer_digest
from ontogeny.models.validation import validate_model
from ontogeny.records import Record
from ontogeny.storage.failures import Failure
from ontogeny.storage.run import Run

_HEADLINE_METRICS = ("auroc", "accuracy", "r2")
_UNTRAINED = "untrained"


@dataclass(frozen=True)
class _Network:
    """A checkpoint, or a random initialisation, that is to be measured."""

    name: str
    label: str
    """The name as people read it: base 1,200."""
    folder: Path
    fingerprint: str
    load: Callable[[], Model]
    stamps: Mapping[str, CheckpointStamp]
    """By concept."""
    header: Mapping[str, Any]
    """Header of the tensors that are kept."""
    live: bool = False
    """Whether it is a model in training, whose run gets its parity certificate from a saved checkpoint."""

    @property
    def trained(self) -> bool:
        return self.name != _UNTRAINED


class CheckpointExecutor:
    """Visits checkpoints in this process.

    Args:
        floor: The concepts that still lack the scores of a random initialisation.
        compact: Whether the unit parts of a checkpoint are merged after its visit.
    """

    def __init__(
        self,
        plan: TracePlan,
        run: Run,
        execution: TraceExecution,
        *,
        floor: Sequence[Concept],
        compact: bool = False,
    ) -> None:
        self.compact = compact
        self.plan, self.run, self.execution, self.floor = plan, run, execution, floor
        has_answers = any(concept.answers for concept in plan.concepts)
        self.reusable = ReusableModel(execution.model, scores_vocabulary=has_answers)
        self.frozen = FrozenProbes() if execution.freeze else None
        self.checkpoints_done = 0
        self.models_built = 0
        self.validated: set[str] = set()
        """Model types."""
        self.tokenizer: tuple[object, str] = (None, "")
        """With its fingerprint."""
        self.workloads: dict[tuple[object, ...], tuple[Workload, Mapping[str, ConceptRows]]] = {}

    def visit_all(self, missing: Mapping[Checkpoint, list[Concept]]) -> list[Failure]:
        """Measure the missing concepts of each checkpoint; one that cannot be read does not stop the others."""
        self.checkpoints_done = len(self.plan.checkpoints) - len(missing)
        fetched = fetch_ahead(missing, self.execution.model, delete_behind=self.execution.delete_behind)
        return self.visit(fetched, missing)

    def visit(
        self,
        fetched: Iterable[tuple[Checkpoint, Path | BadInput]],
        missing: Mapping[Checkpoint, list[Concept]],
    ) -> list[Failure]:
        """As `visit_all`, for checkpoints that are fetched already."""

        def visit(checkpoint: Checkpoint, folder: Path) -> None:
            self._visit(checkpoint, folder, missing[checkpoint])

        return visit_checkpoints(self.run, fetched, visit, tolerant=len(self.plan.checkpoints) > 1)

    def _visit(self, checkpoint: Checkpoint, folder: Path, concepts: list[Concept]) -> None:
        self._measure_floor(folder)
        if not concepts:
            return
        self._report(checkpoint.label, "loading")

        def load() -> Model:
            model, built = self.reusable.load(folder)
            self.models_built += built
            return model

        network = self._network(checkpoint, folder, load, untrained=self.plan.is_untrained(checkpoint))
        self._measure(network, concepts)
        if self.compact:
            units = [self.plan.units[checkpoint, concept.name] for concept in concepts]
            self.run.compact_checkpoint(checkpoint.stage, checkpoint.name, units)
        self.checkpoints_done += 1

    def measure_loaded(self, checkpoint: Checkpoint, model: Model, *, untrained: bool) -> None:
        """Measure all concepts of the plan on a model that is in memory, such as one in training, in place of a saved checkpoint.

        Args:
            untrained: Whether its weights are freshly initialised.
        """
        network = self._network(checkpoint, Path(checkpoint.source), lambda: model, untrained=untrained, live=True)
        self._measure(network, list(self.plan.concepts))

    def _network(
        self, checkpoint: Checkpoint, folder: Path, load: Callable[[], Model], *, untrained: bool, live: bool = False
    ) -> _Network:
        header = {
            "checkpoint": checkpoint.name,
            "stage": checkpoint.stage,
            "step": checkpoint.step,
            "tokens": checkpoint.tokens,
            "revision": checkpoint.name,
            "train_seed": checkpoint.train_seed,
            "order": self.plan.order(checkpoint),
            "untrained": untrained,
        }
        units = {concept.name: self.plan.units[checkpoint, concept.name] for concept in self.plan.concepts}
        stamps = {name: CheckpointStamp.of(self.plan.lineage.name, unit, checkpoint) for name, unit in units.items()}
        fingerprint = self.plan.weights[checkpoint].fingerprint
        return _Network(checkpoint.name, checkpoint.label, folder, fingerprint, load, stamps, header, live)

    def _measure_floor(self, folder: Path) -> None:
        """Measure a random initialisation for the concepts that lack one; tried once."""
        concepts, self.floor = list(self.floor), ()
        if not concepts:
            return
        options, seed = self.execution.model, self.plan.settings.seed

        def load() -> Model:
            self.models_built += 1
            return untrained_model(
                folder,
                seed=seed,
                device=options.device,
                dtype=options.torch_dtype,
                tokenizer=options.tokenizer_for(folder),
            )

        header = {"checkpoint": _UNTRAINED, "stage": None, "step": None, "order": -1, "untrained": False}
        stamps = {c.name: CheckpointStamp(self.plan.lineage.name, untrained_unit(self.plan, c)) for c in concepts}
        self._measure(
            _Network(_UNTRAINED, "untrained floor", folder, f"untrained {seed}", load, stamps, header), concepts
        )

    def _measure(self, network: _Network, concepts: list[Concept]) -> None:
        began, cache = time.perf_counter(), self.execution.cache
        keys = self._cache_keys(network, concepts) if cache else {}
        device = input_device(self.execution.model.device)
        cached = {name: cache.get(key, device) for name, key in keys.items()} if cache else {}
        activations = {name: entry for name, entry in cached.items() if entry is not None}
        unread = [concept for concept in concepts if concept.name not in activations]
        counts, loaded = CaptureCounts(), began
        if unread:
            model = network.load()
            if (model_type := model.network.config.model_type) not in self.validated:
                validate_model(model, answers=self.reusable.scores_vocabulary)
                self.validated.add(model_type)
            loaded = time.perf_counter()
            new, counts = self._read(model, network, unread)
            activations |= new
            if cache:
                for name, entry in new.items():
                    cache.put(keys[name], entry)
        read = time.perf_counter()
        for concept in concepts:
            self._report(network.label, f"measuring {concept.name}")
            self._keep(concept, activations[concept.name], network)
        self.run.log(
            {
                "checkpoint": network.name,
                "stage": network.header["stage"],
                "units": [network.stamps[concept.name].unit for concept in concepts],
                **asdict(counts),
                "models_built": self.models_built,
                "from_cache": len(concepts) - len(unread),
                "seconds": {"load": loaded - began, "read": read - loaded, "measure": time.perf_counter() - read},
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )
        self.models_built = 0

    def _read(
        self, model: Model, network: _Network, concepts: list[Concept]
    ) -> tuple[dict[str, Activations], CaptureCounts]:
        """Read the texts of these concepts in one pass."""
        work, rows = self._workload(model, concepts)
        if network.trained and not network.live:
            visits = [checkpoint.name for checkpoint in self.plan.checkpoints]
            parity.certify_parity(self.run, model, network.name, work.sequences, visits=visits)
        read = 0

        def on_batch(sequences: int) -> None:
            nonlocal read
            read += sequences
            self._report(network.label, "reading", read, len(work.sequences))

        settings = self.plan.settings
        captured = capture_workload(
            model, work, model.sites(settings.sites), share_prefixes=settings.share_prefixes, on_batch=on_batch
        )
        return {k.name: Activations.of(k, captured, rows[k.name]) for k in concepts}, captured.counts

    def _cache_keys(self, network: _Network, concepts: list[Concept]) -> dict[str, str]:
        options, settings, folder = self.execution.model, self.plan.settings, network.folder
        tokenizer = tokenizer_digest(options.tokenizer_for(folder) or folder)
        reading = (settings.sites, settings.dtype, settings.truncate)
        device = input_device(options.device)
        return {
            concept.name: cache_key(network.fingerprint, folder, tokenizer, concept, reading, device=device)
            for concept in concepts
        }

    def _keep(self, concept: Concept, activations: Activations, network: _Network) -> None:
        design, seed, stamp = self.plan.designs[concept.name], self.plan.settings.seed, network.stamps[concept.name]
        measured = measure_concept(design, activations.parts, activations.sites, activations.inputs, self.plan.settings)
        records = [*measured.records, *activations.truncation_rows(concept, seed)]
        records += template_rows(concept, activations.template, seed)
        if activations.margin is not None:
            records += behaviour.behaviour_rows(design, activations.margin, seed)
            measured.scores["answers"] = activations.margin
        rows = stamp.on(records) if network.trained else []
        if network.header["untrained"] or not network.trained:
            # Step 0 is the untrained model: its scores are repeated as the floor, so that all views find it in one place.
            rows += CheckpointStamp(stamp.lineage, stamp.unit).on(untrained_control_rows(records))
        self.run.keep(
            stamp.unit,
            rows,
            header={**network.header, **measured.header, "tokenizer": self.tokenizer[1]},
            directions=measured.directions if network.trained else None,
            scores=measured.scores,
        )
        if network.trained and self.frozen is not None:
            self.frozen.keep(self.run, design, activations, measured, stamp, network.header)
        if network.header["untrained"]:
            self.run.drop(untrained_unit(self.plan, concept))  # step 0 of the run itself is the better floor

    def _workload(self, model: Model, concepts: list[Concept]) -> tuple[Workload, Mapping[str, ConceptRows]]:
        # The checkpoints of a run share their tokenizer, so that texts are tokenised once for each set of concepts.
        if self.tokenizer[0] is not model.tokenizer:
            self.tokenizer = model.tokenizer, tokenizer_fingerprint(model)
        # Tokenizers of one vocabulary may have different templates.
        key = (self.tokenizer[1], *((k.name, template_name(model.tokenizer, k.template)) for k in concepts))
        if key not in self.workloads:
            self.workloads[key] = build_workload(
                concepts, model.tokenizer, model.context, truncate=self.plan.settings.truncate
            )
        return self.workloads[key]

    def _report(self, name: str, activity: str, done: int = 0, total: int = 0) -> None:
        progress = TraceProgress(name, self.checkpoints_done, len(self.plan.checkpoints), activity, done, total)
        self.execution.on_progress(progress)


def untrained_control_rows(records: Sequence[Record]) -> list[Record]:
    """The headline scores of an untrained network, as a control."""
    return [replace(r, control="untrained") for r in records if r.metric in _HEADLINE_METRICS and r.control is None]
