"""Plan of a trace: its checkpoints, concepts, settings and units, checked before a model is loaded."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ontogeny.data.concept import Concept
from ontogeny.data.positions import Position
from ontogeny.errors import BadInput
from ontogeny.jobs import resumable
from ontogeny.lineage import Checkpoint, FileDigests, Lineage
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.settings import (
    MEASURE_VERSION,
    SETTINGS_OUTSIDE_KEYS,
    TraceSettings,
    settings_for_key,
    settings_of_run,
)
from ontogeny.models.shape import check_sites_exist
from ontogeny.models.size import check_family_supported
from ontogeny.models.stored_tensors import looks_untrained
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run


@dataclass(frozen=True, eq=False)
class TracePlan:
    """Everything a trace has to do."""

    lineage: Lineage
    concepts: tuple[Concept, ...]
    settings: TraceSettings
    weights: Mapping[Checkpoint, resumable.WeightIdentity]
    """Of the checkpoints that can be read, in training order."""
    failures: tuple[resumable.Failure, ...]
    """The other checkpoints."""
    designs: Mapping[str, Design]
    """By concept."""
    units: Mapping[tuple[Checkpoint, str], str]
    """By checkpoint and concept."""
    earlier_units: Mapping[tuple[Checkpoint, str], str]
    """The names that the units have in runs of versions that did not compare config and tokenizer."""

    @classmethod
    def of_run(
        cls,
        run: Run,
        lineage: Lineage,
        concepts: Sequence[Concept],
        settings: TraceSettings | None = None,
        *,
        allow_pickle: bool = False,
        tokenizer: str | Path | None = None,
    ) -> "TracePlan":
        """The plan of an existing run: by default with its settings, and always with the concepts as it read them."""
        placed = [concept_as_traced(run, concept) for concept in concepts]
        settings = settings or trace_settings_of(run)
        plan = plan_trace(lineage, placed, settings, allow_pickle=allow_pickle, tokenizer=tokenizer)
        return plan.named_as_in(run)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that can be read, in training order."""
        return tuple(self.weights)

    def open_run(self, out: str | Path) -> Run:
        """The run directory at `out`, which must agree with the plan if it exists.

        Raises:
            BadInput: it was made with other settings, or as `open_run_directory`.
        """
        run = resumable.open_run_directory(out, self.lineage, self.concepts)
        about = run.about if run.exists() else {}
        # A run in which vectors were evaluated and nothing was traced has no settings yet.
        if about.get("settings"):
            before = asdict(trace_settings_of(run))
            for name, value in asdict(self.settings).items():
                if str(was := before[name]) != str(value) and name not in SETTINGS_OUTSIDE_KEYS:
                    raise BadInput(
                        f"`{name}` must be {was}, with which {out} was traced, got {value}: keep it, or set another `out`."
                    )
        if about.get("rebuilt") and run.headers() and not any(map(run.done, self.named_as_in(run).units.values())):
            raise BadInput(
                f"{run.about_path} is damaged, and {out} holds nothing of these texts, weights and settings: "
                "take those with which it was traced, or set another `out`."
            )
        return run

    def named_as_in(self, run: Run) -> "TracePlan":
        """The plan with the units named as in the run; a unit of an earlier version counts as of the same config and tokenizer."""
        units = {at: resumable.unit_in_run(run, unit, self.earlier_units[at]) for at, unit in self.units.items()}
        return replace(self, units=units)

    def missing(self, run: Run) -> dict[Checkpoint, list[Concept]]:
        """Concepts whose unit the run lacks, by checkpoint."""
        missing = resumable.missing_units(run, self.named_as_in(run).units)
        return {c: [self.designs[name].concept for name in names] for c, names in missing.items()}

    def is_untrained(self, checkpoint: Checkpoint) -> bool:
        """Whether it is step 0 of a first stage with weights that look untrained; step 0 of a later stage is a trained model."""
        return (
            checkpoint.step == 0
            and self.lineage.parents[checkpoint.stage] is None
            and (not checkpoint.is_local or _looks_untrained(checkpoint.source, self.weights[checkpoint].fingerprint))
        )

    def order(self, checkpoint: Checkpoint) -> int:
        """A number that grows along training, and stays the same when other steps or stages are added later."""
        stage = list(self.lineage.parents).index(checkpoint.stage)
        return stage * 10**12 + (10**12 - 1 if checkpoint.step is None else checkpoint.step)


@functools.lru_cache(maxsize=256)
def _looks_untrained(folder: str, fingerprint: str) -> bool:
    """`looks_untrained`, read once for the same weights."""
    return looks_untrained(Path(folder))


def plan_trace(
    lineage: Lineage,
    concepts: Sequence[Concept],
    settings: TraceSettings,
    *,
    allow_pickle: bool = False,
    tokenizer: str | Path | None = None,
    digests: FileDigests | None = None,
) -> TracePlan:
    """Check everything that can be checked before a model is loaded.

    Args:
        tokenizer: A folder or repository in place of the checkpoints' own tokenizer.
        digests: Digests of weight files that are known; others are added.

    Raises:
        BadInput: two concepts have the same name, one cannot be split, no checkpoint can be read, or a site does not exist.
    """
    resumable.check_concepts(concepts)
    designs = {concept.name: make_design(concept, settings) for concept in concepts}
    weights, failures = resumable.readable_checkpoints(
        lineage, allow_pickle=allow_pickle, tokenizer=tokenizer, digests=digests
    )
    resumable.check_own_templates(concepts, weights, tokenizer)
    first = next(iter(weights))
    check_family_supported(first)
    check_sites_exist(first, settings.sites)
    named = settings_for_key(settings)
    units = {(c, k.name): _unit_digest(c, w.whole, k, named) for c, w in weights.items() for k in concepts}
    earlier = {(c, k.name): _unit_digest(c, w.fingerprint, k, named) for c, w in weights.items() for k in concepts}
    return TracePlan(lineage, tuple(concepts), settings, weights, tuple(failures), designs, units, earlier)


def unit_key(checkpoint: Checkpoint, weights: str, concept: Concept, settings: TraceSettings) -> str:
    """Name of a unit: a digest of the weights, their place, the examples, the settings and `MEASURE_VERSION`.

    The place is part of it because some public runs serve the same weights under two steps.

    Args:
        weights: `WeightIdentity.whole`; in runs of earlier versions the fingerprint alone.
    """
    return _unit_digest(checkpoint, weights, concept, settings_for_key(settings))


def _unit_digest(checkpoint: Checkpoint, weights: str, concept: Concept, settings: Mapping[str, object]) -> str:
    place = [checkpoint.stage, checkpoint.step, checkpoint.name]
    return content_digest([MEASURE_VERSION, place, weights, concept.name, concept.hash, settings])


def trace_settings_of(run: Run) -> TraceSettings:
    """The settings that a run was traced with; the defaults if nothing was traced."""
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in run.about["settings"].items()}
    if unknown := sorted(settings.keys() - {field.name for field in fields(TraceSettings)}):
        raise BadInput(
            f"{run.folder} was traced with the setting {unknown[0]}, which a newer ontogeny has: update this one to go on."
        )
    return TraceSettings(**settings_of_run(settings) if settings else {})  # type: ignore[arg-type]


def concept_as_traced(run: Run, concept: Concept) -> Concept:
    """The concept as a run read it: with the position, template, classes and number of examples that run.json lists."""
    entry = next((entry for entry in run.about["concepts"] if entry["name"] == concept.name), None)
    if entry is None:
        return concept
    placed = replace(concept, position=Position.parse(entry["position"]))
    turned = [placed, _with_classes(placed, entry["classes"])]
    candidates = [*turned, *(replace(concept, template=entry.get("template", True)) for concept in turned)]
    if (n := entry["n"]) < len(concept.examples):
        candidates += [candidate.limited(n, trace_settings_of(run).seed) for candidate in candidates]
    return next((candidate for candidate in candidates if candidate.hash == entry["hash"]), placed)


def _with_classes(concept: Concept, classes: list[str]) -> Concept:
    """The concept with its two classes in the given order, if they are the same."""
    if concept.kind != "binary" or concept.classes != tuple(reversed(classes)):
        return concept
    examples = tuple(replace(example, target=not example.target) for example in concept.examples)
    return replace(concept, classes=tuple(classes), examples=examples)
