"""Resumable jobs: one way to open a run directory, to resume it in a session, and to visit checkpoints.

A job plans its units (`plan.py`). In a `job_session` it measures the missing ones and keeps each, then summarises all of them and
completes run.json.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ontogeny.data.concept import Concept
from ontogeny.data.plain_texts import PlainTexts
from ontogeny.errors import BadInput, CheckpointError
from ontogeny.jobs.run_json import describe_run
from ontogeny.lineage import (
    Checkpoint,
    FileDigests,
    Lineage,
    checkpoint_files,
    fetch_checkpoint,
    prefetch_checkpoints,
    weight_bytes,
    weight_fingerprint,
)
from ontogeny.models.identity import config_and_tokenizer_digest
from ontogeny.models.loading import ModelOptions, has_chat_template
from ontogeny.models.weight_swap import warm_page_cache
from ontogeny.storage.checksums import end_session
from ontogeny.storage.failures import Failure
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import is_empty_run, run_lock
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.rollback import rollback_on_failure
from ontogeny.storage.run import Run

SHARDS_FOLDER = "shards"
"""Folder of a run in which processes that share its work write."""


@dataclass(frozen=True)
class WeightIdentity:
    """Size and fingerprint of a checkpoint's weights, and a digest of the config and tokenizer with which they are read."""

    bytes: int
    fingerprint: str
    read_with: str

    @property
    def whole(self) -> str:
        """Digest of weights, config and tokenizer, as it enters the names of units."""
        return content_digest([self.fingerprint, self.read_with])


def check_concepts(concepts: Sequence[Concept]) -> None:
    """Raise BadInput if there is no concept, or if two have the same name."""
    names = [concept.name for concept in concepts]
    if not names:
        raise BadInput("`concepts` must hold at least one concept, got none: name a file.", argument="concept")
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"concepts must have different names, got {min(twice)!r} twice: rename one of the files.")


def check_own_templates(
    concepts: Iterable[Concept], checkpoints: Iterable[Checkpoint], tokenizer: str | Path | None = None
) -> None:
    """Raise BadInput if texts are to be read in each checkpoint's own chat template and none of them, all on disk, has one."""
    if not any(concept.template is True for concept in concepts):
        return
    folders = [tokenizer] if tokenizer else [c.source if c.is_local else None for c in checkpoints]
    if all(folder is not None and has_chat_template(Path(folder)) is False for folder in folders):
        raise BadInput(
            "no checkpoint has a chat template: leave `template` off, give one, or give a `tokenizer` with one.",
            argument="template",
        )


def weight_identity(
    checkpoint: Checkpoint,
    *,
    allow_pickle: bool = False,
    tokenizer: str | Path | None = None,
    digests: FileDigests | None = None,
) -> WeightIdentity:
    """Identity of a checkpoint, from metadata only.

    Raises:
        CheckpointError, BadInput: its files are incomplete or cannot be read.
    """
    files = checkpoint_files(checkpoint, allow_pickle=allow_pickle)
    return WeightIdentity(
        weight_bytes(checkpoint, allow_pickle=allow_pickle, files=files),
        weight_fingerprint(checkpoint, allow_pickle=allow_pickle, digests=digests, files=files),
        config_and_tokenizer_digest(checkpoint, tokenizer),
    )


def unit_in_run(run: Run, unit: str, earlier: str) -> str:
    """The name of a unit in a run: `earlier`, the name without config and tokenizer, if the run holds it under that one only."""
    return earlier if run.done(earlier) and not run.done(unit) else unit


def readable_checkpoints(
    lineage: Lineage,
    *,
    allow_pickle: bool = False,
    tokenizer: str | Path | None = None,
    digests: FileDigests | None = None,
) -> tuple[dict[Checkpoint, WeightIdentity], list[Failure]]:
    """Checkpoints whose files are complete, in training order, and the others as failures. Reads metadata only.

    Args:
        digests: Digests of files on disk that are known; others are added.

    Raises:
        BadInput: no checkpoint can be read.
    """
    readable, failures = {}, []
    for checkpoint in lineage.checkpoints:
        try:
            readable[checkpoint] = weight_identity(
                checkpoint, allow_pickle=allow_pickle, tokenizer=tokenizer, digests=digests
            )
        except (BadInput, OSError) as error:  # a folder may be deleted while it is read
            failures.append(Failure(checkpoint.name, checkpoint.stage, str(error)))
    if not readable:
        raise BadInput(failures[0].reason if failures else f"{lineage.name} has no checkpoints.")
    return readable, failures


def check_new_run_folder(out: Path) -> None:
    """Raise BadInput if a folder without run.json holds anything but what shards and killed processes leave."""
    if out.exists() and not (out.is_dir() and (is_empty_run(out) or (out / SHARDS_FOLDER).is_dir())):
        raise BadInput(f"`out` must be a run directory or an empty folder, got {out}: choose another one.")


def open_run_directory(out: str | Path, lineage: Lineage, concepts: Iterable[Concept | PlainTexts] = ()) -> Run:
    """The run at `out`, new or existing. A run may grow, but its lineage and the examples of its concepts must stay the same.

    Raises:
        BadInput: `out` is not a run directory, or holds a run of another lineage or of other examples under the same name.
    """
    out = Path(out)
    run = Run(out)
    if not run.exists():
        check_new_run_folder(out)
        return run
    about = run.about
    if not {"lineage", "concepts"} <= set(about) or "name" not in about["lineage"]:
        raise BadInput(f"{run.about_path} does not say what was measured: restore it, or set another `out`.")
    if (name := about["lineage"]["name"]) != lineage.name:
        raise BadInput(f"`out` must hold a run of {lineage.name}, got {out} with a run of {name}: choose another one.")
    known = {concept["name"]: concept.get("hash") for concept in about["concepts"]}
    for concept in concepts:
        if known.get(concept.name) not in (None, concept.hash):
            raise BadInput(
                f"{out} holds other examples of the concept {concept.name!r}: rename the file, or set another `out`."
            )
    return run


def single_checkpoint_lineage(lineage: Lineage, checkpoint: Checkpoint) -> Lineage:
    """The lineage with one of its checkpoints only."""
    stages = (replace(stage, checkpoints=(checkpoint,)) for stage in lineage.stages if checkpoint in stage.checkpoints)
    return replace(lineage, stages=tuple(stages))


def missing_units(run: Run, units: Mapping[tuple[Checkpoint, str], str]) -> dict[Checkpoint, list[str]]:
    """Names of the concepts whose unit the run lacks, by checkpoint."""
    missing: dict[Checkpoint, list[str]] = {}
    for (checkpoint, concept), unit in units.items():
        if not run.done(unit):
            missing.setdefault(checkpoint, []).append(concept)
    return missing


@contextlib.contextmanager
def job_session(run: Run, units: Collection[str]) -> Iterator[None]:
    """Lock the run. If the block fails before it finishes a missing one of `units`, restore the run directory.

    Raises:
        BadInput: another process is writing into the run.
    """
    with run_lock(run.folder), rollback_on_failure(run, [unit for unit in units if not run.done(unit)]):
        yield
        end_session(run.folder)


@contextlib.contextmanager
def described_session(
    run: Run,
    lineage: Lineage,
    units: Collection[str],
    sizes: Mapping[Checkpoint, int],
    failures: Sequence[Failure],
    *,
    settings: Mapping[str, Any],
    device: str,
    command: str | None,
) -> Iterator[None]:
    """A `job_session` of a job without concepts: run.json is written at its start, and completed at its end.

    Args:
        sizes: Size of the weights of each checkpoint that is measured.
        failures: May grow until the end.
        settings: As run.json holds them.
    """
    with job_session(run, units):
        before = run.about if run.exists() else None
        about = describe_run(lineage, sizes, [], settings=settings, device=device, command=command, before=before)
        run.describe(about)
        yield
        run.describe(about | {"failures": [asdict(failure) for failure in failures], "finished": True})


_PLACE = ("lineage", "stage", "step", "revision", "concept", "site", "metric", "method", "control")
"""Columns that say what a row measures, and where."""


def drop_replaced(
    run: Run,
    units: Collection[str],
    *,
    coords: Sequence[str] = (),
    where: str = "method is not null",
    seeds: bool = True,
) -> None:
    """Drop units of earlier sessions that measured the same places under other settings: a reader of the table would mix both.

    Args:
        units: All units of this session, of one job.
        coords: Coordinates that belong to a place.
        where: SQL condition of the rows that are compared.
        seeds: Whether rows of another seed are another measurement, and stay.
    """
    own, (job, dash, _) = ", ".join(map(sql_text, units)), next(iter(units)).partition("-")
    if dash:
        where = f"({where}) and starts_with(unit, {sql_text(job + dash)})"
    columns = [*_PLACE, *["seed"] * seeds, *(f"coords[{sql_text(name)}]" for name in coords)]
    names = [f"place_{i}" for i in range(len(columns))]
    keyed = ", ".join(f"{column} as {name}" for column, name in zip(columns, names, strict=True))
    same = " and ".join(f"a.{name} is not distinct from b.{name}" for name in names)
    rows = run.query(
        f"with places as (select distinct unit, {keyed} from records where {where}) "
        f"select distinct b.unit as unit from places a join places b on {same} where a.unit in ({own}) and b.unit not in ({own})"
    )
    for unit in rows["unit"]:
        run.drop(str(unit))


def fetch_ahead(
    checkpoints: Iterable[Checkpoint], options: ModelOptions, *, delete_behind: bool = False
) -> Iterator[tuple[Checkpoint, Path | BadInput]]:
    """Each checkpoint with its folder, or the error if it cannot be fetched; the next one is fetched meanwhile."""
    fetch = partial(fetch_and_warm, allow_pickle=options.allow_pickle)
    return prefetch_checkpoints(tuple(checkpoints), delete_behind=delete_behind, fetch=fetch)


def fetch_and_warm(checkpoint: Checkpoint, *, allow_pickle: bool) -> Path:
    """Fetch a checkpoint and read its files into the page cache."""
    folder = fetch_checkpoint(checkpoint, allow_pickle=allow_pickle)
    warm_page_cache(folder)
    return folder


def visit_checkpoints(
    run: Run,
    fetched: Iterable[tuple[Checkpoint, Path | BadInput]],
    visit: Callable[[Checkpoint, Path], None],
    *,
    tolerant: bool,
) -> list[Failure]:
    """Call `visit` with each checkpoint and its folder. If `tolerant`, one that cannot be read is logged and returned as a failure."""
    failures = []
    for checkpoint, folder in fetched:
        try:
            if isinstance(folder, BadInput):
                raise folder
            visit(checkpoint, folder)
        except CheckpointError as error:
            if not tolerant:
                raise
            failures.append(log_failure(run, Failure(checkpoint.name, checkpoint.stage, str(error))))
    return failures


def log_failure(run: Run, failure: Failure) -> Failure:
    """Write a failure into the ledger."""
    run.log({"checkpoint": failure.checkpoint, "stage": failure.stage, "failed": failure.reason})
    return failure


def check_any_done(run: Run, units: Iterable[str], failures: Sequence[Failure]) -> None:
    """Raise the first failure as BadInput if the run holds none of the units."""
    if not any(run.done(unit) for unit in units):
        raise BadInput(failures[0].reason)
