"""Are these checkpoints what they say they are? From metadata, headers and byte ranges; `deep` also from local bytes.

Faults make numbers wrong (identical, stale, mixed or broken checkpoints); warnings are to be known (holes, another number format).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from ontogeny.errors import BadInput
from ontogeny.jobs.audit import checks
from ontogeny.jobs.audit.checks import AuditFinding
from ontogeny.jobs.audit.metadata import CheckpointMetadata, MetadataReader
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.lineage import Checkpoint, Lineage, weight_fingerprint
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

_Result = TypeVar("_Result")
MAX_CONCURRENT_REQUESTS = 16
"""Requests under way at a time."""


@dataclass(frozen=True)
class Audit:
    """What was looked at and what was found, faults first."""

    lineage: str
    checkpoints: int
    findings: tuple[AuditFinding, ...]
    bytes: int
    """Size of all weights."""
    read: int
    """Bytes of headers and small files that were read; without `deep`, and without hashing local weights."""
    deep: int = 0
    """Checkpoints whose numbers were read."""

    @property
    def faults(self) -> tuple[AuditFinding, ...]:
        return tuple(f for f in self.findings if f.severity == "fault")

    @property
    def sentence(self) -> str:
        """The audit in one sentence."""
        if not self.findings:
            return f"{_counted(self.checkpoints, 'checkpoint')} audited, nothing found."
        hit = {name for f in self.faults for name in f.checkpoints}
        touched = f" on {_counted(len(hit), 'checkpoint')}" if hit else ""
        warned = _counted(len(self.findings) - len(self.faults), "warning")
        return f"{_counted(self.checkpoints, 'checkpoint')} audited: {_counted(len(self.faults), 'fault')}{touched}, {warned}."


def audit(
    lineage: Lineage,
    *,
    deep: bool = False,
    allow_pickle: bool = False,
    known: Mapping[Checkpoint, str] | None = None,
    watch: ProgressCallback = ignore_progress,
) -> Audit:
    """Audit a lineage before any science; what is wrong with a checkpoint is a finding, not an error.

    `known` are fingerprints that need not be made again.

    Raises:
        BadInput: there is nothing to audit.
    """
    if not lineage.checkpoints:
        raise BadInput(f"{lineage.name} has no checkpoints. Open another source.")
    desk = MetadataReader(allow_pickle=allow_pickle, identities=known)
    sheets = list(_map_concurrently(desk.sheet, lineage.checkpoints, "reading headers", watch))
    found = [
        *checks.checkpoint_faults(sheets),
        *checks.duplicates(lineage, sheets, _main_branch_identities(lineage, allow_pickle)),
        *checks.shared_shards(sheets),
        *checks.config_drift(lineage, sheets),
        *checks.missing_steps(lineage),
    ]
    numbers = _weight_findings(sheets, found, watch) if deep else 0
    size = sum(file.size for sheet in sheets for file in sheet.weights)
    ordered = tuple(sorted(found, key=lambda f: f.severity != "fault"))
    return Audit(lineage.name, len(sheets), ordered, size, sum(sheet.read for sheet in sheets), numbers)


def audit_for_run(
    lineage: Lineage, run: Run, *, known: Mapping[Checkpoint, str] | None = None, allow_pickle: bool = False
) -> dict[str, Any]:
    """The cheap audit as `run.json` keeps it under `audit`; commits of the Hub do not change and are audited once."""
    of = content_digest([[c.source, c.revision, c.commit] for c in lineage.checkpoints])
    before: dict[str, Any] = run.about.get("audit", {}) if run.about_path.is_file() else {}
    read = all(finding["kind"] != "unreadable" for finding in before.get("findings", []))
    if before.get("of") == of and read and all(c.commit for c in lineage.checkpoints):
        return before
    return {"of": of, **audit_as_dict(audit(lineage, allow_pickle=allow_pickle, known=known))}


def audit_as_dict(made: Audit) -> dict[str, Any]:
    """An audit as JSON."""
    return {**asdict(made), "findings": [asdict(f) for f in made.findings], "sentence": made.sentence}


def _weight_findings(sheets: list[CheckpointMetadata], found: list[AuditFinding], watch: ProgressCallback) -> int:
    from ontogeny.jobs.audit import weight_norms

    read = []
    for place, sheet in enumerate(sheets):
        watch(TraceProgress(sheet.name, place, len(sheets), "reading numbers"))
        read.append(weight_norms.read_weight_norms(sheet))
    found += weight_norms.nonfinite_tensors(sheets, read)
    found += weight_norms.norm_jumps(sheets, read)
    if absent := tuple(s.name for s, n in zip(sheets, read, strict=True) if n is None and not s.problems):
        text = f"{_counted(len(absent), 'checkpoint')} not on this machine: the numbers were not read"
        found.append(AuditFinding("not_read", "warning", absent, text, "Download them and audit again with --deep."))
    return sum(n is not None for n in read)


def _main_branch_identities(lineage: Lineage, allow_pickle: bool) -> dict[str, str]:
    """Identity of what each repository with several checkpoints serves on `main`."""
    on_hub = [c.source for c in lineage.checkpoints if not c.is_local]
    found = {}
    for source in {s for s in on_hub if on_hub.count(s) > 1}:
        try:
            found[source] = weight_fingerprint(Checkpoint(source, "main"), allow_pickle=allow_pickle)
        except BadInput:
            continue  # no main, or not to be had now: the ends of the stages are compared anyway
    return found


def _map_concurrently(
    do: Callable[[Checkpoint], _Result], items: Iterable[Checkpoint], what: str, watch: ProgressCallback
) -> Iterator[_Result]:
    """Results in order, many at a time."""
    every = list(items)
    with ThreadPoolExecutor(min(MAX_CONCURRENT_REQUESTS, len(every))) as pool:
        for place, (item, result) in enumerate(zip(every, pool.map(do, every), strict=True)):
            watch(TraceProgress(item.name, place + 1, len(every), what))
            yield result


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
