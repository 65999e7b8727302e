"""Checks of the audit, from metadata to findings: duplicates, stale branches, missing steps, mixed shards, config drift.

The stale branches are those of EleutherAI/pythia#205: 86 of 154 branches of one model serve weights of the end of training.
"""

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

from ontogeny._version import __version__
from ontogeny.errors import BadInput
from ontogeny.jobs.audit.metadata import CheckpointMetadata, checkpoint_names
from ontogeny.lineage import Lineage
from ontogeny.storage.files import content_digest

Severity = Literal["fault", "warning"]
_CHECKED_CONFIG_FIELDS = """
    model_type hidden_act activation_function tie_word_embeddings use_parallel_residual attention_bias
    hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size
    n_embd n_layer n_head n_inner vocab_size max_position_embeddings n_positions sliding_window
    rope_theta rope_scaling rope_parameters rotary_pct rotary_emb_base
    layer_norm_eps layer_norm_epsilon rms_norm_eps
"""
"""Fields of a config that change the computation."""
REFETCH_ADVICE = "Leave it out, or ask its publisher for the right files."


@dataclass(frozen=True)
class AuditFinding:
    """One fault or warning."""

    kind: str
    severity: Severity
    checkpoints: tuple[str, ...]
    what: str
    next: str


def checkpoint_faults(sheets: Iterable[CheckpointMetadata]) -> list[AuditFinding]:
    """Faults of single checkpoints: unreadable, cut off, shards that disagree with their index."""
    found = []
    for sheet in sheets:
        texts = _misplaced_tensors(sheet) or _check_total_size(sheet)
        named = [*sheet.problems, *(("shards", text) for text in texts)]
        found += [AuditFinding(kind, "fault", (sheet.name,), text, REFETCH_ADVICE) for kind, text in named]
    return found


def layout_digests(sheets: Iterable[CheckpointMetadata]) -> dict[str, str]:
    """By name, a digest of the config, the names and the dtypes of the tensors of each checkpoint whose weights are whole."""
    versions = [__version__, version("transformers")]
    tables = ((sheet, _dtypes(sheet)) for sheet in sheets)
    return {
        sheet.name: content_digest([*versions, sheet.config, sorted(dtypes.items())])
        for sheet, dtypes in tables
        if dtypes is not None
    }


def unused_parts(sheets: Sequence[CheckpointMetadata], clean: Collection[str] = frozenset()) -> list[AuditFinding]:
    """Stored tensors, files and code that the loaded model does not use, and weights that are not real numbers.

    Args:
        clean: Names of checkpoints of which an earlier audit found that the model uses all tensors; their networks are not built.
    """
    from ontogeny.models import stored_tensors

    networks: dict[str, Any] = {}
    compared: dict[tuple[int, ...], tuple[Any, tuple[str, ...]]] = {}
    groups: dict[tuple[str, Severity, str, str, tuple[str, ...]], list[str]] = defaultdict(list)
    for sheet in sheets:
        network = None if sheet.name in clean else _network(sheet, networks)
        if network is None:
            continue
        # The checkpoints of a lineage store the same tensors, so that one comparison serves them all.
        key = id(network), *map(id, sheet.tables.values())
        if key not in compared:
            scaled = tuple(stored_tensors.integer_tensors(network, _dtypes(sheet) or {}))
            compared[key] = stored_tensors.unused_by_name(network, sheet.tensors), scaled
        unused, scaled = compared[key]
        groups["unused_tensors", "fault", _NO_PLACE, _RESAVE, unused.inside].append(sheet.name)
        groups["unused_tensors", "warning", _NO_PLACE, _PART, unused.outside].append(sheet.name)
        if "quantization_config" not in sheet.config:
            groups["integers", "fault", _NO_REALS, _RESAVE, scaled].append(sheet.name)
    found = [
        AuditFinding(kind, severity, tuple(at), what.format(_count(at, "checkpoint"), len(names), names[0]), advice)
        for (kind, severity, what, advice, names), at in groups.items()
        if names
    ]
    own_code = [sheet.name for sheet in sheets if sheet.config.get("auto_map")]
    unread = [sheet for sheet in sheets if sheet.unread]
    for kind, names, what, advice in (
        ("own_code", own_code, _OWN_CODE, _OWN_CODE_ADVICE),
        ("unread_file", [sheet.name for sheet in unread], _UNREAD, _UNREAD_ADVICE),
    ):
        if names:
            file = unread[0].unread[0] if unread else ""
            found.append(
                AuditFinding(kind, "warning", tuple(names), what.format(_count(names, "checkpoint"), file), advice)
            )
    return found


_NO_PLACE = "{0} hold {1} tensors for which the config has no place, first {2}"
_NO_REALS = "{0} hold {1} matrices as integers or scaled floats, whose scales the config does not describe, first {2}"
_RESAVE = "Correct its config.json, or save the whole model again: the numbers would be those of another model."
_PART = "Activations are those of the model without this part."
_OWN_CODE = "{0} bring modelling code of their own (auto_map), which is not run"
_OWN_CODE_ADVICE = "The numbers are those of the model of this type in transformers; check that it computes the same."
_UNREAD = "{0} hold files of tensors that are not read, first {1}"
_UNREAD_ADVICE = "Only the files that transformers loads are the weights."


def _network(sheet: CheckpointMetadata, known: dict[str, Any]) -> Any:
    """The network that a config describes, without memory; None if there is no config, or the weights are incomplete."""
    from ontogeny.models import loading

    if not _is_whole_model(sheet):
        return None
    key = json.dumps(sheet.config, sort_keys=True)
    if key not in known:
        known[key] = loading.empty_network(sheet.config)
    return known[key]


def _misplaced_tensors(sheet: CheckpointMetadata) -> list[str]:
    """Tensors that occur twice, or in another shard than the index says."""
    if len(sheet.tables) == 1 and not sheet.index:
        return []
    texts = []
    held = Counter(name for table in sheet.tables.values() for name in table)
    if twice := sorted(name for name, n in held.items() if n > 1):
        texts.append(f"{len(twice)} tensors occur in two shards, first {twice[0]}")
    if not sheet.index or len(sheet.tables) < len(set(sheet.index.values())):
        return texts
    if lost := [name for name, shard in sheet.index.items() if name not in sheet.tables[shard]]:
        texts.append(f"{len(lost)} tensors are not in the shard that the index names, first {lost[0]}")
    if extra := sorted(set(held) - set(sheet.index)):
        texts.append(f"{len(extra)} tensors of the shards are not in the index, first {extra[0]}")
    return texts


def _check_total_size(sheet: CheckpointMetadata) -> list[str]:
    size = sum(entry.bytes for table in sheet.tables.values() for entry in table.values())
    whole = len(sheet.tables) == len(set(sheet.index.values()))
    # Some savers count tied weights twice, so a total up to half too large is accepted.
    if sheet.total is None or not whole or size <= sheet.total <= 1.5 * size:
        return []
    return [f"the index announces {sheet.total} bytes of tensors, the shards hold {size}"]


def duplicates(lineage: Lineage, sheets: Sequence[CheckpointMetadata], mains: Mapping[str, str]) -> list[AuditFinding]:
    """Identical weights at different steps; stale if they are those of the end of their stage or of `main`."""
    by_identity: dict[str, list[CheckpointMetadata]] = defaultdict(list)
    for sheet in sheets:
        if sheet.identity is not None:
            by_identity[sheet.identity].append(sheet)
    ends = {stage.checkpoints[-1] for stage in lineage.stages if stage.checkpoints}
    parents = {stage.name: stage.parent for stage in lineage.stages}
    found = []
    for identity, every in by_identity.items():
        group = [s for s in every if not (s.checkpoint.step == 0 and parents.get(s.checkpoint.stage))]
        final = [s for s in group if s.checkpoint in ends]
        stale = tuple(s.name for s in group if s.checkpoint not in ends)
        main = any(mains.get(s.checkpoint.source) == identity for s in group)
        start = all(s.checkpoint.step == 0 for s in group)  # seeds may share their random initialisation
        if stale and not start and (final or main):
            end = final[0].name if final else "main"
            text = f"{_count(stale, 'step')} of {len(sheets)} serve the weights of {end}, the end of training"
            found.append(AuditFinding("stale", "fault", stale, text, f"Do not read these as steps. {REFETCH_ADVICE}"))
        elif len(group) > 1 and not start:
            names = tuple(s.name for s in group)
            text = f"{_count(names, 'checkpoint')} hold identical weights"
            found.append(
                AuditFinding("identical", "fault", names, text, f"At most one of them is right. {REFETCH_ADVICE}")
            )
    return found


def shared_shards(sheets: Sequence[CheckpointMetadata]) -> list[AuditFinding]:
    """Shards that two otherwise different checkpoints share: one of them mixes shards of two steps."""
    holders: dict[tuple[str, str], list[CheckpointMetadata]] = defaultdict(list)
    for sheet in sheets:
        if len(sheet.weights) > 1:
            for file in sheet.weights:
                if file.sha256:
                    holders[sheet.checkpoint.stage, file.sha256].append(sheet)
    counts = Counter(s.checkpoint.stage for s in sheets)
    found: dict[tuple[str, ...], AuditFinding] = {}
    for (stage, _), group in holders.items():
        # A shard shared by most of a stage is frozen on purpose.
        if len({s.identity for s in group}) > 1 and (len(group) <= counts[stage] / 2 or counts[stage] < 4):
            names = tuple(s.name for s in group)
            text = (
                f"{_count(names, 'checkpoint')} share a weight shard, but not the others: shards of two steps are mixed"
            )
            found.setdefault(names, AuditFinding("shards", "fault", names, text, REFETCH_ADVICE))
    return list(found.values())


def missing_steps(lineage: Lineage) -> list[AuditFinding]:
    """Missing steps in a series that is regular around them."""
    found, shown = [], checkpoint_names(lineage)
    for stage in lineage.stages:
        names = {c.step: shown[c] for c in stage.checkpoints if c.step is not None}
        of = f" of {stage.name}" * (len(lineage.stages) > 1)
        for before, after, missing in spacing_gaps(list(names)):
            text = f"between step {before} and {after}{of} about {missing} {'step is' if missing == 1 else 'steps are'} missing"
            advice = "Curves are drawn straight across it; fetch what is missing, if it exists."
            found.append(AuditFinding("gap", "warning", (names[before], names[after]), text, advice))
    return found


@dataclass(frozen=True)
class ConfigField:
    """Metadata that should stay the same within a stage."""

    kind: str
    severity: Severity
    of: Callable[[CheckpointMetadata], Any]
    """Its value; None if unknown."""
    what: str
    across: bool = True
    """Whether a change between stages is a warning."""


_OFF_TRAJECTORY = {
    "annealed": "learning rate was taken down there, which the later steps of the stage did not see",
    "averaged": "average of several checkpoints, which no step of training led to",
    "branch": "a branch of its own, from which no later step follows",
}


def off_trajectory(lineage: Lineage) -> list[AuditFinding]:
    """Checkpoints that do not lie on the path of their stage: a difference over such an edge is not the effect of a stage."""
    kinds: dict[str, list[str]] = defaultdict(list)
    shown = checkpoint_names(lineage)
    for stage in lineage.stages:
        for checkpoint in stage.checkpoints:
            if kind := checkpoint.off_trajectory or stage.off_trajectory:
                kinds[kind].append(shown[checkpoint])
    return [
        AuditFinding(
            "off_trajectory",
            "warning",
            tuple(names),
            f"{_count(names, 'checkpoint')} off the path of training: {_OFF_TRAJECTORY.get(kind, kind)}",
            "Do not read the difference to the next checkpoint as the effect of training between them.",
        )
        for kind, names in kinds.items()
    ]


def config_drift(lineage: Lineage, sheets: Sequence[CheckpointMetadata]) -> list[AuditFinding]:
    """Changes within a stage (checkpoints that differ from most), and from one stage to the next."""
    found, shown, sheets = [], checkpoint_names(lineage), _with_common_configs(sheets)
    for trait in _CONFIG_FIELDS:
        usual: dict[str, Any] = {}
        for stage in lineage.stages:
            of_stage = [(s, trait.of(s)) for s in sheets if s.checkpoint.stage == stage.name]
            values = {id(value): value for _, value in of_stage if value is not None}
            if not values:
                continue
            keys = {place: _comparison_key(value) for place, value in values.items()}
            mine = [(s, value, keys[id(value)]) for s, value in of_stage if value is not None]
            most = Counter(key for _, _, key in mine).most_common(1)[0][0]
            usual[stage.name] = next(value for _, value, key in mine if key == most)
            if odd := [(s, value) for s, value, key in mine if key != most]:
                names = tuple(s.name for s, _ in odd)
                text = f"{trait.what} of {_count(names, 'checkpoint')} is not that of the others of {stage.name}"
                detail = _difference(usual[stage.name], odd[0][1])
                found.append(AuditFinding(trait.kind, trait.severity, names, text + detail, REFETCH_ADVICE))
            parent = usual.get(stage.parent or "")
            if trait.across and parent is not None and _comparison_key(parent) != most:
                text = (
                    f"{trait.what} changes from {stage.parent} to {stage.name}{_difference(parent, usual[stage.name])}"
                )
                advice = "Compare numbers of the two stages with this in mind."
                found.append(AuditFinding(trait.kind, "warning", (shown[stage.checkpoints[0]],), text, advice))
    return _drop_repeated_tokenizer_finding(found)


def _with_common_configs(sheets: Sequence[CheckpointMetadata]) -> list[CheckpointMetadata]:
    """The sheets, of which those whose configs mean the same have the same one: versions of transformers write them otherwise."""
    texts = {repr(_canonical(sheet.config)): sheet.config for sheet in sheets}
    if len(texts) < 2:  # the usual case, in which transformers is not loaded
        return list(sheets)
    meanings = {text: _meaning(config) or text for text, config in texts.items()}
    first: dict[str, Mapping[str, Any]] = {}
    own = (meanings[repr(_canonical(sheet.config))] for sheet in sheets)
    return [
        replace(sheet, config=first.setdefault(meaning, sheet.config))
        for sheet, meaning in zip(sheets, own, strict=True)
    ]


def _meaning(config: Mapping[str, Any]) -> str | None:
    """The checked fields as transformers reads them, defaults included; None if it cannot."""
    from ontogeny.models.loading import parse_config

    try:
        parsed = parse_config(config) if config else None
    except BadInput:
        return None
    if parsed is None:
        return None
    fields = parsed.to_dict()
    return repr(_canonical({name: fields.get(name) for name in _CHECKED_CONFIG_FIELDS.split()}))


def _drop_repeated_tokenizer_finding(found: list[AuditFinding]) -> list[AuditFinding]:
    """Without the tokenizer-file findings of checkpoints whose vocabulary differs."""
    reported = {f.checkpoints for f in found if f.kind == "vocabulary"}
    return [f for f in found if not (f.kind == "tokenizer" and f.checkpoints in reported)]


def _shapes(sheet: CheckpointMetadata) -> Mapping[str, Any] | None:
    return _joined([table.shapes for table in sheet.tables.values()]) if _is_whole_model(sheet) else None


def _dtypes(sheet: CheckpointMetadata) -> Mapping[str, str] | None:
    return _joined([table.dtypes for table in sheet.tables.values()]) if _is_whole_model(sheet) else None


def _joined(tables: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """All entries; those of a single file as they are, since many checkpoints share them."""
    return tables[0] if len(tables) == 1 else {name: entry for table in tables for name, entry in table.items()}


def _is_whole_model(sheet: CheckpointMetadata) -> bool:
    return _is_complete(sheet) and not sheet.adapter


def _is_complete(sheet: CheckpointMetadata) -> bool:
    return (
        bool(sheet.tables)
        and len(sheet.tables) == len(sheet.weights)
        and not (sheet.problems or _misplaced_tensors(sheet))
    )


def _config(sheet: CheckpointMetadata) -> dict[str, Any] | None:
    return {name: sheet.config[name] for name in sorted(_CHECKED_CONFIG_FIELDS.split()) if name in sheet.config} or None


_CONFIG_FIELDS = (
    ConfigField("shapes", "fault", _shapes, "the shape of tensors"),
    ConfigField("dtype", "warning", _dtypes, "the number format"),
    ConfigField("config", "fault", _config, "the configuration"),
    ConfigField("vocabulary", "fault", lambda sheet: sheet.vocabulary, "the vocabulary"),
    ConfigField("tokenizer", "warning", lambda sheet: sheet.tokenizer, "the tokenizer file", across=False),
    ConfigField("template", "warning", lambda sheet: sheet.template, "the chat template"),
)


def _comparison_key(value: Any) -> str:
    """A text that is the same for equal values: neither the order of keys nor 10000 for 10000.0 is a difference."""
    return repr(_canonical(value)) if isinstance(value, Mapping) else str(value)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((str(name), _canonical(entry)) for name, entry in value.items())
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _difference(usual: Any, odd: Any) -> str:
    """The first field that differs; empty for values without fields."""
    if not isinstance(usual, dict) or not isinstance(odd, dict):
        return ""
    differing = [n for n in sorted({*usual, *odd}) if repr(_canonical(usual.get(n))) != repr(_canonical(odd.get(n)))]
    name, count = differing[0], len(differing)
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f": {name} is {odd.get(name, 'absent')}, not {usual.get(name, 'absent')}{more}"


def _count(names: Sequence[str], noun: str) -> str:
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({listed})"


_GAP_RATIO = 1.9
_MAX_SPACING_SPREAD = 0.12
"""Relative spread up to which intervals count as equal (steps are rounded)."""


def spacing_gaps(steps: Sequence[int]) -> list[tuple[int, int, int]]:
    """Step before, step after and likely number of missing steps, for each gap."""
    ordered = sorted(set(steps))
    found: dict[tuple[int, int], int] = {}
    for values in (ordered, [math.log2(step) if step > 0 else -math.inf for step in ordered]):
        intervals = [b - a for a, b in itertools.pairwise(values)]
        for i, interval in enumerate(intervals):
            if (
                math.isfinite(interval)
                and (usual := _surrounding_spacing(intervals, i))
                and interval >= _GAP_RATIO * usual
            ):
                found.setdefault((ordered[i], ordered[i + 1]), round(interval / usual) - 1)
    return [(a, b, n) for (a, b), n in sorted(found.items())]


def _surrounding_spacing(intervals: Sequence[float], i: int) -> float | None:
    """The larger spacing on the two sides of interval i; None if it is irregular."""
    sides = [list(intervals[max(0, i - 2) : i]), list(intervals[i + 1 : i + 3])]
    if not all(sides):
        # At an end there is one side, which must be regular for longer.
        sides = [list(intervals[max(0, i - 4) : i]) or list(intervals[i + 1 : i + 5])]
        if len(sides[0]) < 3:
            return None
    elif len(sides[0]) + len(sides[1]) < 3:
        return None
    if not all(_regular_spacing(side) for side in sides):
        return None
    return max(sum(side) / len(side) for side in sides)


def _regular_spacing(side: Sequence[float]) -> bool:
    return all(map(math.isfinite, side)) and min(side) > 0 and max(side) - min(side) <= _MAX_SPACING_SPREAD * max(side)
