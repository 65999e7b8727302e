"""Audit: check the checkpoints of a lineage from metadata, headers and byte ranges; `deep` also reads local weights.

Faults make numbers wrong (identical, stale, mixed or broken checkpoints); warnings do not (missing steps, another dtype).
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ontogeny._version import __version__
from ontogeny.errors import BadInput
from ontogeny.jobs.audit import checks
from ontogeny.jobs.audit.checks import AuditFinding
from ontogeny.jobs.audit.metadata import CheckpointMetadata, MetadataReader, checkpoint_names
from ontogeny.jobs.inputs import as_lineage
from ontogeny.jobs.progress import ProgressCallback, TraceProgress, ignore_progress
from ontogeny.lineage import Checkpoint, Lineage, weight_fingerprint
from ontogeny.storage.files import content_digest
from ontogeny.storage.run import Run

if TYPE_CHECKING:
    from ontogeny.jobs.inputs import LineageSource

_Result = TypeVar("_Result")
_MAX_CONCURRENT_REQUESTS = 16


@dataclass(frozen=True)
class Audit:
    """Findings of an audit, faults first."""

    lineage: str
    checkpoints: int
    findings: tuple[AuditFinding, ...]
    bytes: int
    """Size of all weights."""
    read: int
    """Bytes of headers and small files that were read; `deep` and the hashing of local weights do not count."""
    deep: int = 0
    """Number of checkpoints whose weights were read."""
    clean_layouts: tuple[str, ...] = ()
    """Digests of config and tensors of which the model uses all; a later audit of the same layout builds no network."""

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
    source: "LineageSource",
    *,
    deep: bool = False,
    allow_pickle: bool = False,
    known: Mapping[Checkpoint, str] | None = None,
    clean_layouts: Collection[str] = frozenset(),
    watch: ProgressCallback = ignore_progress,
) -> Audit:
    """Audit the checkpoints of a lineage; a fault of a checkpoint is a finding, not an error.

    Args:
        source: Lineage, repository on the Hub, folder of checkpoints, or lineage.toml.
        deep: Also read the weights of local checkpoints: NaN, infinities and jumps of norms.
        allow_pickle: Whether to accept `pytorch_model.bin` and `.distcp` shards.
        known: Fingerprints of weights that are known already.
        clean_layouts: Those of an earlier audit.
        watch: Called with each step; by default nothing is shown.

    Raises:
        BadInput: the lineage has no checkpoints.
    """
    lineage = as_lineage(source, allow_pickle=allow_pickle)
    if not lineage.checkpoints:
        raise BadInput(f"{lineage.name} has no checkpoints: open another source.")
    reader = MetadataReader(allow_pickle=allow_pickle, identities=known)
    names = checkpoint_names(lineage)
    read = _map_concurrently(reader.metadata, lineage.checkpoints, "reading headers", watch)
    sheets = [replace(sheet, shown=names[sheet.checkpoint]) for sheet in read]
    layouts = checks.layout_digests(sheets)
    clean = {name for name, layout in layouts.items() if layout in clean_layouts}
    found = [
        *checks.checkpoint_faults(sheets),
        *checks.duplicates(lineage, sheets, _main_branch_identities(lineage, allow_pickle)),
        *checks.shared_shards(sheets),
        *(unused := checks.unused_parts(sheets, clean)),
        *checks.config_drift(lineage, sheets),
        *checks.missing_steps(lineage),
        *checks.off_trajectory(lineage),
    ]
    numbers = _weight_findings(sheets, found, watch) if deep else 0
    size = sum(file.size for sheet in sheets for file in sheet.weights)
    ordered = tuple(sorted(found, key=lambda f: f.severity != "fault"))
    touched = {name for finding in unused for name in finding.checkpoints}
    used = sorted({layout for name, layout in layouts.items() if name not in touched})
    read_bytes = sum(sheet.bytes_read for sheet in sheets)
    return Audit(lineage.name, len(sheets), ordered, size, read_bytes, numbers, tuple(used))


def audit_for_run(
    lineage: Lineage, run: Run, *, known: Mapping[Checkpoint, str] | None = None, allow_pickle: bool = False
) -> dict[str, Any]:
    """The audit without `deep`, as `run.json` keeps it; a lineage of fixed Hub commits and of unchanged files is audited once."""
    known = known or {}
    of = content_digest(
        [
            __version__,
            [[c.stage, c.source, c.revision, c.commit, known.get(c), _listing(c)] for c in lineage.checkpoints],
        ]
    )
    before: dict[str, Any] = run.about.get("audit", {}) if run.exists() else {}
    read = all(finding["kind"] != "unreadable" for finding in before.get("findings", []))
    if before.get("of") == of and read and all(c.commit or c.is_local for c in lineage.checkpoints):
        return before
    clean = frozenset(before.get("clean_layouts", ()))
    return {"of": of, **audit_as_dict(audit(lineage, allow_pickle=allow_pickle, known=known, clean_layouts=clean))}


def _listing(checkpoint: Checkpoint) -> list[tuple[str, int, int]]:
    """Name, size and time of each file of a checkpoint on this machine."""
    if not checkpoint.is_local:
        return []
    try:
        with os.scandir(checkpoint.source) as entries:
            found = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return []
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def audit_as_dict(result: Audit) -> dict[str, Any]:
    """An audit as JSON."""
    lists = {"findings": [asdict(f) for f in result.findings], "clean_layouts": list(result.clean_layouts)}
    return {**asdict(result), **lists, "sentence": result.sentence}


def _weight_findings(sheets: list[CheckpointMetadata], found: list[AuditFinding], watch: ProgressCallback) -> int:
    from ontogeny.jobs.audit import weight_norms

    read = []
    for place, sheet in enumerate(sheets):
        watch(TraceProgress(sheet.checkpoint.label, place, len(sheets), "reading numbers"))
        read.append(weight_norms.read_weight_norms(sheet))
    found += weight_norms.nonfinite_tensors(sheets, read)
    jumps = weight_norms.norm_jumps(sheets, read)
    jumping = {name for finding in jumps for name in finding.checkpoints}
    far = weight_norms.far_from_neighbours(sheets, read)
    found += [*jumps, *(finding for finding in far if not jumping & set(finding.checkpoints))]
    unread = [s for s, n in zip(sheets, read, strict=True) if n is None and not s.problems]
    if pickled := tuple(s.name for s in unread if s.checkpoint.is_local and not s.tables):
        text = f"{_counted(len(pickled), 'checkpoint')} with weights as pickles: the numbers were not read"
        found.append(AuditFinding("not_read", "warning", pickled, text, "Save them as safetensors, or trace them."))
    if absent := tuple(s.name for s in unread if s.name not in pickled):
        text = f"{_counted(len(absent), 'checkpoint')} not on this machine: the numbers were not read"
        found.append(AuditFinding("not_read", "warning", absent, text, "Download them, then repeat the deep audit."))
    return sum(n is not None for n in read)


def _main_branch_identities(lineage: Lineage, allow_pickle: bool) -> dict[str, str]:
    """Weight fingerprint of branch `main` of each repository with several checkpoints."""
    on_hub = [c.source for c in lineage.checkpoints if not c.is_local]
    found = {}
    for source in {s for s in on_hub if on_hub.count(s) > 1}:
        try:
            found[source] = weight_fingerprint(Checkpoint(source, "main"), allow_pickle=allow_pickle)
        except BadInput:
            continue  # no main, or no connection: the ends of the stages are compared anyway
    return found


def _map_concurrently(
    do: Callable[[Checkpoint], _Result], items: Iterable[Checkpoint], what: str, watch: ProgressCallback
) -> Iterator[_Result]:
    """Results in order, from concurrent threads."""
    every = list(items)
    with ThreadPoolExecutor(min(_MAX_CONCURRENT_REQUESTS, len(every))) as pool:
        for place, (item, result) in enumerate(zip(every, pool.map(do, every), strict=True)):
            watch(TraceProgress(item.label, place + 1, len(every), what))
            yield result


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
