"""Follow folders of checkpoints: trace each one as it completes, raise alerts, survive deleted checkpoints and restarts.

What was traced is in the run directory, so a restart goes on where the last process stopped. Alerts that were given are in alerts.jsonl.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ontogeny.alerts.detection import Alert, AlertSettings, WatchedSeries, find_alerts
from ontogeny.alerts.series import SeriesReader
from ontogeny.alerts.transports import AlertSink, alert_content
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput, CheckpointError
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.jobs.resumable import log_failure
from ontogeny.jobs.trace.plan import plan_trace
from ontogeny.jobs.trace.trace import trace
from ontogeny.jobs.watch.arrivals import FolderLook, pin, unpin
from ontogeny.lineage import Checkpoint, FileDigests, Lineage, Stage
from ontogeny.measurements.rows import CheckpointStamp
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions
from ontogeny.records import make_record
from ontogeny.storage.failures import Failure
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run

_ALERTS_FILE = "alerts.jsonl"
_ROTATED = "deleted by the training before it was read (save_total_limit): keep more checkpoints, or look more often"
_BRIEF_SECONDS = 1.0
"""Between two looks where the caller does not wait for new checkpoints."""


@dataclass
class FollowedRun:
    """A folder of checkpoints with its run, as it is after the last look."""

    name: str
    look: FolderLook
    run: Run
    series: list[WatchedSeries] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """Checkpoints that could not be traced, those of earlier processes too."""
    unwritten: list[tuple[Checkpoint, str]] = field(default_factory=list)
    """Failures that the run does not hold yet."""
    tried: dict[str, object] = field(default_factory=dict)
    """Files of the checkpoints that cannot be read, which are tried again once they change."""
    reader: SeriesReader | None = None
    activity: str = ""
    digests: FileDigests = field(default_factory=FileDigests)
    done: set[str] = field(default_factory=set)
    """Names of the checkpoints that are traced."""
    changed: bool = False
    """Whether this look added something."""


@dataclass(frozen=True)
class FollowOptions:
    """How folders are followed."""

    stage: str = "pretrain"
    model: ModelOptions = field(default_factory=ModelOptions)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    sinks: Sequence[AlertSink] = ()
    interval: float = 10.0
    """Seconds between two looks."""
    patience: float | None = None
    """Seconds without a new checkpoint after which it ends; None: never."""
    once: bool = False
    """Trace what is complete now, and end."""
    command: str | None = None

    def __post_init__(self) -> None:
        if self.interval <= 0:
            raise BadInput(f"`interval` must be above 0 seconds, got {self.interval:g}: 10 is usual.")
        if self.patience is not None and self.patience <= 0:
            raise BadInput(f"`patience` must be above 0 seconds, got {self.patience:g}: leave it out to wait for ever.")


def follow(
    folders: Sequence[str | Path],
    concepts: Sequence[Concept],
    out: str | Path,
    settings: TraceSettings | None = None,
    *,
    options: FollowOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[FollowedRun]]:
    """Trace each checkpoint of the folders as it completes; yields the runs after each look.

    Args:
        folders: Folders in which a training saves checkpoint-N; one that is not there yet is waited for.
        out: Run directory of one folder; of several the folder of their runs.
        on_progress: Called with each step of a trace.
        sleep, clock: For tests.

    Raises:
        BadInput: two folders have one name, a run at `out` was made in another way, or no checkpoint ever came.
    """
    options, settings = options or FollowOptions(), settings or TraceSettings()
    runs = _runs(folders, Path(out), options)
    last_arrival = clock()
    while True:
        for run in runs:
            _look(run, options)
        if options.once:
            for _ in range(2):  # files must stand still
                sleep(_BRIEF_SECONDS)
                for run in runs:
                    _look(run, options)
        for run in runs:
            _advance(run, concepts, settings, options, on_progress)
        if any(run.changed for run in runs):
            last_arrival = clock()
        yield runs
        waited = options.patience is not None and clock() - last_arrival > options.patience
        if options.once or waited:
            if not any(run.done or run.failures for run in runs):
                raise BadInput(_nothing_came(runs))
            return
        sleep(options.interval)


def _runs(folders: Sequence[str | Path], out: Path, options: FollowOptions) -> list[FollowedRun]:
    paths = [Path(folder).expanduser() for folder in folders]
    names = [path.resolve().name for path in paths]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"`folders` must have different names, got {min(twice)} twice: watch them one by one.")
    for path in paths:
        if path.exists() and not path.is_dir():
            raise BadInput(f"`folders` must be folders of checkpoints, got the file {path}: name the folder.")
    places = [out] if len(paths) == 1 else [out / name for name in names]
    runs = [
        FollowedRun(name, FolderLook(path, options.stage, options.model.allow_pickle), Run(place))
        for name, path, place in zip(names, paths, places, strict=True)
    ]
    for run in runs:
        run.failures = run.run.failures if run.run.exists() else []
    return runs


def _look(followed: FollowedRun, options: FollowOptions) -> None:
    """Look at the folder once, and note what was deleted before it was read."""
    before = set(followed.look.seen)
    followed.look.look()
    followed.changed = bool(set(followed.look.seen) - before)
    missed = {failure.checkpoint for failure in followed.failures}
    for checkpoint in followed.look.gone:
        if checkpoint.name not in followed.done | missed:
            _fail(followed, checkpoint, _ROTATED)


def _advance(
    followed: FollowedRun,
    concepts: Sequence[Concept],
    settings: TraceSettings,
    options: FollowOptions,
    on_progress: ProgressCallback,
) -> None:
    """Trace what is complete and not traced yet."""
    todo = _untraced(followed, concepts, settings, options)
    place = followed.run.folder.absolute().with_name(f".{followed.run.folder.name}.pinned") / followed.name
    pinned = pin(todo, place) if todo else {}
    for checkpoint in todo:
        if checkpoint.name not in pinned:
            _fail(followed, checkpoint, _ROTATED)
    try:
        for checkpoint in (c for c in todo if c.name in pinned):
            followed.activity = f"tracing {checkpoint.name}"
            _trace_one(followed, checkpoint, pinned[checkpoint.name], concepts, settings, options, on_progress)
    finally:
        if pinned:
            unpin(place.parent)
    if todo or not followed.series:
        _read_series(followed, concepts, options)
    waiting = len(followed.look.pending)
    followed.activity = f"waiting; {waiting} incomplete" if waiting else "waiting"


def _untraced(
    followed: FollowedRun, concepts: Sequence[Concept], settings: TraceSettings, options: FollowOptions
) -> list[Checkpoint]:
    """Complete checkpoints whose units the run lacks, by step."""
    new = [
        c
        for name, c in followed.look.ready.items()
        if name not in followed.done and followed.tried.get(name) != followed.look.files(name)
    ]
    if not new:
        return []
    try:
        plan = plan_trace(
            _lineage(followed.name, options.stage, new),
            concepts,
            settings,
            allow_pickle=options.model.allow_pickle,
            tokenizer=options.model.tokenizer,
            digests=followed.digests,
        )
    except BadInput:
        if all(Path(c.source).is_dir() for c in new):
            raise
        return []  # deleted meanwhile; the next look says so
    run = plan.open_run(followed.run.folder)
    missing = plan.missing(run) if run.exists() else {key: list(plan.concepts) for key in plan.checkpoints}
    followed.done |= {c.name for c in plan.checkpoints if c not in missing}
    return list(missing)


def _lineage(name: str, stage: str, checkpoints: Sequence[Checkpoint]) -> Lineage:
    return Lineage(name, (Stage(stage, tuple(checkpoints)),))


def _trace_one(
    followed: FollowedRun,
    checkpoint: Checkpoint,
    pinned: Checkpoint,
    concepts: Sequence[Concept],
    settings: TraceSettings,
    options: FollowOptions,
    on_progress: ProgressCallback,
) -> None:
    def report(progress: TraceProgress) -> None:
        on_progress(replace(progress, checkpoint=f"{followed.name} {progress.checkpoint}"))

    try:
        trace(
            _lineage(followed.name, options.stage, [pinned]),
            concepts,
            followed.run.folder,
            settings,
            model=options.model,
            freeze=True,
            command=options.command,
            on_progress=report,
        )
    except Exception as error:
        # Only a checkpoint that could not be linked can vanish while it is read, with any error.
        if not Path(pinned.source).is_dir():
            _fail(followed, checkpoint, _ROTATED)
        elif isinstance(error, CheckpointError):
            followed.tried[checkpoint.name] = followed.look.files(checkpoint.name)
            _fail(followed, checkpoint, str(error))
        else:
            raise
        return
    followed.done.add(checkpoint.name)
    followed.failures = [f for f in followed.failures if f.checkpoint != checkpoint.name]
    with run_lock(followed.run.folder):
        followed.run.drop(_failure_unit(checkpoint))
        about = followed.run.about
        here = {(checkpoint.stage, checkpoint.name): checkpoint.source}  # in place of its links
        listed = [
            c | {"source": here.get((c["stage"], c["name"]), c["source"])} for c in about["lineage"]["checkpoints"]
        ]
        about["lineage"] |= {"checkpoints": listed, "source": str(followed.look.folder)}
        followed.run.describe(about | {"failures": [asdict(failure) for failure in followed.failures]})
    _write_failures(followed)


def _fail(followed: FollowedRun, checkpoint: Checkpoint, reason: str) -> None:
    """Note a checkpoint that cannot be traced."""
    others = [failure for failure in followed.failures if failure.checkpoint != checkpoint.name]
    followed.failures = [*others, Failure(checkpoint.name, checkpoint.stage, reason)]
    followed.unwritten.append((checkpoint, reason))
    followed.changed = True
    _write_failures(followed)


def _write_failures(followed: FollowedRun) -> None:
    """A row, a line of the ledger and an entry of run.json for each; they wait for the run's first traced checkpoint."""
    if not followed.unwritten or not followed.run.exists():
        return
    with run_lock(followed.run.folder):
        followed.run.describe(followed.run.about | {"failures": [asdict(failure) for failure in followed.failures]})
        for checkpoint, reason in followed.unwritten:
            log_failure(followed.run, Failure(checkpoint.name, checkpoint.stage, reason))
            unit = _failure_unit(checkpoint)
            row = make_record("not_traced", float("nan"), n=0, reason=reason)
            followed.run.keep(unit, CheckpointStamp.of(followed.name, unit, checkpoint).on([row]))
    followed.unwritten.clear()


def _failure_unit(checkpoint: Checkpoint) -> str:
    return f"nottraced-{content_digest([checkpoint.stage, checkpoint.name])}"


def _read_series(followed: FollowedRun, concepts: Sequence[Concept], options: FollowOptions) -> None:
    """Read the series again, and give the alerts that no process gave before."""
    if not followed.run.exists():
        return
    known_concepts = {str(entry["name"]) for entry in followed.run.about["concepts"]}
    names = [concept.name for concept in concepts if concept.name in known_concepts]
    followed.reader = followed.reader or SeriesReader(followed.run)
    followed.series = followed.reader.read(names) if names else []
    followed.alerts = [alert for one in followed.series for alert in find_alerts(one, options.alerts)]
    path = followed.run.folder / _ALERTS_FILE
    given = {_alert_key(entry) for entry in _lines(path)}
    new = [alert for alert in followed.alerts if _alert_key(asdict(alert)) not in given]
    if new:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(alert_content(alert), ensure_ascii=False) + "\n" for alert in new)
    for alert in new:
        for sink in options.sinks:
            sink(alert)


def _alert_key(entry: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(entry.get(name) for name in ("kind", "concept", "stage", "checkpoint"))


def _lines(path: Path) -> list[dict[str, object]]:
    """Lines of a file of JSON objects; one that was cut off is left out."""
    entries = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.is_file() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _nothing_came(runs: Sequence[FollowedRun]) -> str:
    run = runs[0]
    folder = run.look.folder
    if not folder.is_dir():
        return f"`folders` must hold checkpoints of a training, but there is no folder {folder}: check its path."
    if run.look.pending:
        name, reason = next(iter(run.look.pending.items()))
        return f"{folder} has no complete checkpoint; {name}: {reason.rstrip('.')}."
    return f"{folder} has no checkpoint-N folder: name the output folder of a Trainer, or trace other folders."
