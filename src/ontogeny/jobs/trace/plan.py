"""What a trace has to do: which checkpoints, which concepts, which units are missing; nothing is read or written yet."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.shards import SHARDS_FOLDER
from ontogeny.lineage import Checkpoint, Lineage, checkpoint_files, weight_fingerprint
from ontogeny.measurements.design import Design, make_design
from ontogeny.measurements.settings import MEASURE_VERSION, TraceSettings
from ontogeny.models.size import check_family_supported, check_sites_exist
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import is_empty_run
from ontogeny.storage.run import Run

"""Raised whenever the same input would give other numbers: old units are then no longer taken for done."""


@dataclass(frozen=True)
class Failure:
    """A checkpoint that cannot be traced, and why."""

    checkpoint: str
    stage: str
    reason: str


@dataclass(frozen=True, eq=False)
class TracePlan:
    lineage: Lineage
    checkpoints: tuple[Checkpoint, ...]
    """Those that passed their preflight, in developmental order."""
    faults: tuple[Failure, ...]
    concepts: tuple[Concept, ...]
    designs: Mapping[str, Design]
    settings: TraceSettings
    units: Mapping[tuple[Checkpoint, str], str]
    bytes: Mapping[Checkpoint, int]
    """Size of the weights."""
    prints: Mapping[Checkpoint, str]
    """Identity of the weights."""

    def missing(self, run: Run) -> dict[Checkpoint, list[Concept]]:
        """What is not yet done, checkpoint by checkpoint."""
        wanted = {c: [k for k in self.concepts if not run.done(self.units[c, k.name])] for c in self.checkpoints}
        return {checkpoint: concepts for checkpoint, concepts in wanted.items() if concepts}

    def untrained(self, checkpoint: Checkpoint) -> bool:
        """Whether it is step 0 of a run of its own; step 0 of a later stage is a trained model."""
        return checkpoint.step == 0 and self.lineage.stage(checkpoint.stage).parent is None

    def order(self, checkpoint: Checkpoint) -> int:
        """A number that grows along development, and stays when other steps join the run later."""
        stage = [stage.name for stage in self.lineage.stages].index(checkpoint.stage)
        return stage * 10**12 + (10**12 - 1 if checkpoint.step is None else checkpoint.step)


def plan_trace(
    lineage: Lineage, concepts: Sequence[Concept], settings: TraceSettings, *, allow_pickle: bool = False
) -> TracePlan:
    """Check everything that can be checked before a model is loaded.

    Raises:
        BadInput: two concepts of one name, a concept that cannot be split, no checkpoint that can be read, or sites that are not there.
    """
    names = [concept.name for concept in concepts]
    if not concepts:
        raise BadInput("no concept was given. Name at least one file with -c.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"two concepts are called {min(twice)!r}. Rename one of the files.")
    designs = {concept.name: make_design(concept, settings) for concept in concepts}
    good, faults, prints, sizes = [], [], {}, {}
    for checkpoint in lineage.checkpoints:
        try:
            sizes[checkpoint] = checkpoint_files(checkpoint, allow_pickle=allow_pickle).bytes
            prints[checkpoint] = weight_fingerprint(checkpoint, allow_pickle=allow_pickle)
            good.append(checkpoint)
        except BadInput as error:
            faults.append(Failure(checkpoint.name, checkpoint.stage, str(error)))
    if not good:
        raise BadInput(faults[0].reason if faults else f"{lineage.name} has no checkpoints.")
    check_family_supported(good[0])
    check_sites_exist(good[0], settings.sites)
    units = {(c, k.name): unit_key(c, prints[c], k, settings) for c in good for k in concepts}
    return TracePlan(lineage, tuple(good), tuple(faults), tuple(concepts), designs, settings, units, sizes, prints)


def unit_key(checkpoint: Checkpoint, weights: str, concept: Concept, settings: TraceSettings) -> str:
    """Name of a unit: it changes with the weights, the examples, the settings and the way of measuring.

    The checkpoint's place is in it too: some public runs serve the same weights under two steps, and both deserve their rows.
    """
    place = [checkpoint.stage, checkpoint.step, checkpoint.name]
    return content_digest([MEASURE_VERSION, place, weights, concept.name, concept.hash, asdict(settings)])


def check_plan_matches_run(job: TracePlan, out: Path) -> Run:
    """The run at `out`, if there is one it must agree with the job: a run may grow, but not change its mind.

    Raises:
        BadInput: other settings, another lineage, or other examples under a known concept's name.
    """
    run = Run(out)
    if not run.about_path.is_file():
        if out.exists() and (not out.is_dir() or not (is_empty_run(out) or (out / SHARDS_FOLDER).is_dir())):
            raise BadInput(f"{out} exists and is no run directory. Choose an empty or a new folder with --out.")
        return run
    about = run.about
    if not {"lineage", "concepts", "settings"} <= set(about) or "name" not in about["lineage"]:
        raise BadInput(f"{run.about_path} does not say what was traced. Restore it, or choose another --out.")
    if about["lineage"]["name"] != job.lineage.name:
        raise BadInput(
            f"{out} holds a trace of {about['lineage']['name']}, not of {job.lineage.name}. Choose another --out."
        )
    mine = {name: str(value) for name, value in asdict(job.settings).items()}
    theirs = {
        name: str(tuple(value) if isinstance(value, list) else value) for name, value in about["settings"].items()
    }
    # A folder in which vectors were judged and nothing was traced has no settings yet.
    if changed := sorted(name for name in mine if theirs and theirs.get(name) != mine[name]):
        was, now = theirs.get(changed[0]), mine[changed[0]]
        raise BadInput(
            f"{out} was traced with {changed[0]} = {was}, now it is {now}. Keep the settings, or choose another --out."
        )
    known = {concept["name"]: concept["hash"] for concept in about["concepts"]}
    for concept in job.concepts:
        if known.get(concept.name, concept.hash) != concept.hash:
            raise BadInput(
                f"{out} holds other examples under the name {concept.name!r}. Rename the file, or choose another --out."
            )
    return run
