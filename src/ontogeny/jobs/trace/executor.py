"""One visit a checkpoint: all concepts that lack something there are read in one pass, measured, and written part by part."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ontogeny.activations import parity
from ontogeny.activations.activations import Activations
from ontogeny.activations.batching import Workload
from ontogeny.activations.cache import ActivationCache, cache_key
from ontogeny.activations.capture import CaptureCounts, capture
from ontogeny.activations.workload import ConceptRows, build_workload
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput, CheckpointError
from ontogeny.jobs.progress import ProgressCallback, TraceProgress
from ontogeny.jobs.trace.plan import Failure, TracePlan
from ontogeny.jobs.trace.ray_cluster import RayCluster
from ontogeny.lineage import Checkpoint, fetch_checkpoint, prefetch_checkpoints
from ontogeny.measurements import behaviour
from ontogeny.measurements.measure import measure_concept
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.models import model as models
from ontogeny.models import weight_swap
from ontogeny.models.loading import nearest_tokenizer
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.models.multi_gpu import input_device
from ontogeny.models.reusable import ReusableModel, tokenizer_digest
from ontogeny.models.validation import validate_model
from ontogeny.records import Record
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

_HEADLINE_METRICS = ("auroc", "accuracy", "r2")


@dataclass(frozen=True)
class ModelOptions:
    """What decides how a trace is made, and none of its numbers but in their last digits."""

    device: str
    tokenizer: Path | None
    allow_pickle: bool
    delete_behind: bool
    cache: ActivationCache | None
    command: str | None
    watch: ProgressCallback
    cluster: RayCluster | None = None
    """None: in this process."""


class CheckpointExecutor:
    """The state of one trace: the texts as this tokenizer cuts them, and whether the architecture was checked."""

    def __init__(self, job: TracePlan, run: Run, how: ModelOptions, *, floor: Sequence[Concept]) -> None:
        self.job, self.run, self.how, self.floor = job, run, how, floor
        self.dtype: torch.dtype = getattr(torch, job.settings.dtype)
        asks = any(concept.answers for concept in job.concepts)
        self.standing = ReusableModel(how.device, self.dtype, how.allow_pickle, scores_vocabulary=asks)
        self.built = 0
        self.checked: set[str] = set()
        self.vocabulary: tuple[object, str] = (None, "")
        self.cut: dict[tuple[str, ...], tuple[Workload, Mapping[str, ConceptRows]]] = {}

    def visit_all(self, missing: Mapping[Checkpoint, list[Concept]]) -> list[Failure]:
        """Visit each checkpoint that lacks a unit; a fault of one does not stop the others."""
        faults: list[Failure] = []
        done = len(self.job.checkpoints) - len(missing)
        get = partial(fetch_and_warm, allow_pickle=self.how.allow_pickle)
        for checkpoint, folder in prefetch_checkpoints(tuple(missing), delete_behind=self.how.delete_behind, fetch=get):
            if fault := self.visit(checkpoint, folder, missing[checkpoint], done):
                faults.append(fault)
            done += 1
        return faults

    def visit(
        self, checkpoint: Checkpoint, folder: Path | BadInput, concepts: list[Concept], done: int = 0
    ) -> Failure | None:
        """Do all that is missing of a checkpoint; a fault of its own, which is logged, does not stop the others."""
        try:
            if isinstance(folder, BadInput):
                raise folder
            self._visit(checkpoint, folder, concepts, done)
        except BadInput as error:
            if len(self.job.checkpoints) == 1 or not _is_checkpoint_failure(error):
                raise
            self.run.log({"checkpoint": checkpoint.name, "stage": checkpoint.stage, "failed": str(error)})
            return Failure(checkpoint.name, checkpoint.stage, str(error))
        return None

    def _visit(self, checkpoint: Checkpoint, folder: Path, concepts: list[Concept], done: int) -> None:
        def stamp(concept: Concept) -> CheckpointStamp:
            return CheckpointStamp.of(self.job.lineage.name, self.job.units[checkpoint, concept.name], checkpoint)

        header: dict[str, object] = {
            "checkpoint": checkpoint.name,
            "stage": checkpoint.stage,
            "step": checkpoint.step,
            "tokens": checkpoint.tokens,
            "revision": checkpoint.revision or checkpoint.name,
            "train_seed": checkpoint.train_seed,
            "order": self.job.order(checkpoint),
            "untrained": self.job.untrained(checkpoint),
        }
        self._untrained(folder, done)
        self._say(checkpoint.name, done, "loading")

        def load() -> Model:
            model, built = self.standing.load(folder, self._tokenizer_of(folder))
            self.built += built
            return model

        keys = self._keys(self.job.prints[checkpoint], folder, concepts)
        self._measure(load, keys, checkpoint.name, done, concepts, stamp, header)

    def _untrained(self, folder: Path, done: int) -> None:
        """A random initialisation as the floor of the concepts that lack one; tried once."""
        concepts, self.floor = list(self.floor), ()
        if not concepts:
            return

        def load() -> Model:
            self.built += 1
            return models.untrained_model(
                folder,
                seed=self.job.settings.seed,
                device=self.how.device,
                dtype=self.dtype,
                tokenizer=self._tokenizer_of(folder),
            )

        header: dict[str, object] = {
            "checkpoint": "untrained",
            "stage": None,
            "step": None,
            "order": -1,
            "untrained": False,
        }
        keys = self._keys(f"untrained {self.job.settings.seed}", folder, concepts)
        self._measure(
            load,
            keys,
            "untrained",
            done,
            concepts,
            lambda c: CheckpointStamp(self.job.lineage.name, untrained_unit(self.job, c)),
            header,
        )

    def _measure(
        self,
        load: Callable[[], Model],
        keys: Mapping[str, str],
        name: str,
        done: int,
        concepts: list[Concept],
        stamp: Callable[[Concept], CheckpointStamp],
        header: dict[str, object],
    ) -> None:
        began = time.perf_counter()
        found = {
            c.name: self.how.cache.get(keys[c.name], input_device(self.how.device)) if self.how.cache else None
            for c in concepts
        }
        unread = [concept for concept in concepts if found[concept.name] is None]
        counts, loaded = CaptureCounts(), began
        if unread:
            model = load()
            architecture = model.network.config.model_type
            if architecture not in self.checked:
                validate_model(model, answers=self.standing.scores_vocabulary)
                self.checked.add(architecture)
            loaded = time.perf_counter()
            new, counts = self._read(model, name, done, unread)
            found |= new
            if self.how.cache:
                for of, seen in new.items():
                    self.how.cache.put(keys[of], seen)
        read = time.perf_counter()
        for concept in concepts:
            self._say(name, done, f"measuring {concept.name}")
            seen_of = found[concept.name]
            assert seen_of is not None
            self._keep(concept, seen_of, stamp(concept), header)
        self.run.log(
            {
                "checkpoint": name,
                "stage": header["stage"],
                "units": [stamp(concept).unit for concept in concepts],
                **asdict(counts),
                "models_built": self.built,
                "from_cache": len(concepts) - len(unread),
                "seconds": {"load": loaded - began, "read": read - loaded, "measure": time.perf_counter() - read},
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
        )
        self.built = 0

    def _read(
        self, model: Model, name: str, done: int, concepts: list[Concept]
    ) -> tuple[dict[str, Activations], CaptureCounts]:
        """One pass over the texts of these concepts."""
        work, rows = self._cut(model, concepts)
        if name != "untrained":
            parity.certify_parity(self.run, model, name, work.sequences)
        read = 0

        def on_batch(sequences: int) -> None:
            nonlocal read
            read += sequences
            self._say(name, done, "reading", read, len(work.sequences))

        settings = self.job.settings
        captured = capture(
            model, work, model.sites(settings.sites), share_prefixes=settings.share_prefixes, on_batch=on_batch
        )
        return {
            concept.name: Activations.of(concept, captured, rows[concept.name]) for concept in concepts
        }, captured.counts

    def _keys(self, prints: str, folder: Path, concepts: list[Concept]) -> dict[str, str]:
        if self.how.cache is None:
            return {}
        tokenizer = tokenizer_digest(self._tokenizer_of(folder) or folder)
        settings = self.job.settings
        reading = (settings.sites, settings.dtype, settings.truncate)
        return {
            concept.name: cache_key(prints, folder, tokenizer, concept, reading, device=input_device(self.how.device))
            for concept in concepts
        }

    def _keep(self, concept: Concept, seen: Activations, stamp: CheckpointStamp, header: Mapping[str, object]) -> None:
        design = self.job.designs[concept.name]
        measured = measure_concept(design, seen.parts, seen.sites, seen.inputs, self.job.settings)
        records = measured.records
        records = [*records, *seen.cuts(concept, self.job.settings.seed)]
        if seen.margin is not None:
            records = records + behaviour.behaviour_rows(design, seen.margin, self.job.settings.seed)
            measured.scores["answers"] = seen.margin
        # Step 0 is the untrained model: its scores are told once more as the floor, so that all views find it in one place.
        start = header["checkpoint"] == "untrained" or header["untrained"]
        floor = CheckpointStamp(stamp.lineage, stamp.unit).on(untrained_control_rows(records)) if start else []
        self.run.keep(
            stamp.unit,
            (stamp.on(records) if header["checkpoint"] != "untrained" else []) + floor,
            header={**header, **measured.header, "tokenizer": self.vocabulary[1]},
            directions=measured.directions if header["checkpoint"] != "untrained" else None,
            scores=measured.scores,
        )
        if header["untrained"]:
            self.run.drop(untrained_unit(self.job, concept))  # the run's own step 0, found later, is the better floor

    def _cut(self, model: Model, concepts: list[Concept]) -> tuple[Workload, Mapping[str, ConceptRows]]:
        # Checkpoints of a run share their tokenizer: texts are cut once for each set of missing concepts.
        if self.vocabulary[0] is not model.tokenizer:
            self.vocabulary = model.tokenizer, tokenizer_fingerprint(model)
        key = (self.vocabulary[1], *(concept.name for concept in concepts))
        if key not in self.cut:
            self.cut[key] = build_workload(
                concepts, model.tokenizer, model.context, truncate=self.job.settings.truncate
            )
        return self.cut[key]

    def _tokenizer_of(self, folder: Path) -> Path | None:
        """The one that was named, else the nearest."""
        return self.how.tokenizer or nearest_tokenizer(folder)

    def _say(self, name: str, done: int, what: str, part: int = 0, total: int = 0) -> None:
        self.how.watch(TraceProgress(name, done, len(self.job.checkpoints), what, part, total))


def concepts_without_floor(job: TracePlan, run: Run) -> list[Concept]:
    """The concepts for which a random initialisation is to be measured: their run does not hold its own step 0."""
    if not job.settings.untrained or any(map(job.untrained, job.checkpoints)):
        return []
    # Also a step 0 that an earlier session visited is a floor.
    held = set(run.records("control = 'untrained'").concept)
    return [concept for concept in job.concepts if concept.name not in held]


def untrained_unit(job: TracePlan, concept: Concept) -> str:
    """The unit of a concept on a random initialisation; one in a run, whichever checkpoint is read first."""
    return content_digest(["untrained", concept.name, concept.hash, asdict(job.settings)])


def fetch_and_warm(checkpoint: Checkpoint, *, allow_pickle: bool) -> Path:
    """Fetch a checkpoint and read its files into the page cache, while the one before is computed."""
    folder = fetch_checkpoint(checkpoint, allow_pickle=allow_pickle)
    weight_swap.warm_page_cache(folder)
    return folder


def untrained_control_rows(records: Sequence[Record]) -> list[Record]:
    """The headline scores of an untrained network, told as a control; the rest says nothing about the concept."""
    return [replace(r, control="untrained") for r in records if r.metric in _HEADLINE_METRICS and r.control is None]


def _is_checkpoint_failure(error: BadInput) -> bool:
    """Whether the other checkpoints may still be fine: broken weights are one's own, a text too long is everyone's."""
    return isinstance(error, CheckpointError)
