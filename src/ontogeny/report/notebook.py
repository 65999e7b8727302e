"""HTML of objects in notebooks: what `_repr_html_` shows. Everything that comes from data is escaped."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ontogeny.errors import BadInput, escape_control

if TYPE_CHECKING:
    from ontogeny.activations.activations import Activations
    from ontogeny.data.concept import Concept
    from ontogeny.direction import Direction
    from ontogeny.lineage import Lineage
    from ontogeny.measurements.fitted_probe import FittedProbe
    from ontogeny.measurements.token_scores import TokenScores
    from ontogeny.storage.run import Run

_MOST_ROWS = 12
_LETTERS = 110
_AUDITED_EXAMPLES = 2000
"""Examples up to which the surface floors of a concept are computed for its display, about half a second."""
_AUDITED_CHECKPOINTS = 64
"""Local checkpoints up to which a lineage is audited for its display."""
_POSITIVE, _NEGATIVE = (0, 114, 178), (213, 94, 0)
"""Blue and orange of the charts."""


def lineage_html(lineage: "Lineage") -> str:
    """Stages with their checkpoints, and the audit of checkpoints on this machine."""
    rows = []
    for stage in lineage.stages:
        steps = [checkpoint.step for checkpoint in stage.checkpoints if checkpoint.step is not None]
        span = f"{min(steps):,} to {max(steps):,}" if steps else ""
        rows.append((stage.name, stage.parent or "", f"{len(stage.checkpoints):,}", span))
    shown = _heading("Lineage", lineage.name) + _table(("stage", "continues", "checkpoints", "steps"), rows)
    return _card(shown + "".join(_note(note) for note in (*lineage.notes, _audit_sentence(lineage))))


def _audit_sentence(lineage: "Lineage") -> str:
    from ontogeny.jobs.audit.audit import audit

    here = all(checkpoint.is_local for checkpoint in lineage.checkpoints)
    if not here or len(lineage.checkpoints) > _AUDITED_CHECKPOINTS:
        return "Not audited yet: call ontogeny.audit with this lineage."
    try:
        return audit(lineage).sentence
    except BadInput as error:
        return str(error)


def concept_html(concept: "Concept") -> str:
    """Classes, groups, some examples, and how well words, length and letter case alone predict the label."""
    names = concept.classes or ("0", "1")
    targets = [example.target for example in concept.examples]
    counted = (
        [("target", f"number, {min(targets):g} to {max(targets):g}")]
        if concept.kind == "number"
        else [
            (name, f"{sum(int(target) == index for target in targets):,} examples") for index, name in enumerate(names)
        ]
    )
    facts = [*counted, ("groups", f"{len({e.group for e in concept.examples}):,}"), ("read at", str(concept.position))]
    if concept.answers:
        facts.append(("questions", f"{len(concept.answers):,}"))
    facts += [(name, value) for name in ("question", "licence", "source") if (value := getattr(concept, name))]
    examples = [(_label(concept, example.target), _cut(example.text)) for example in _spread(concept.examples, 4)]
    floors = _surface_floors(concept)
    shown = _heading("Concept", concept.name) + _table((), facts) + _table(("label", "text"), examples)
    return _card(shown + (_table(("surface floor", "score"), floors) if floors else ""))


def _surface_floors(concept: "Concept") -> list[tuple[str, str]]:
    from ontogeny.measurements.surface_baselines import audit_surface
    from ontogeny.statistics.splits import group_split

    if len(concept.examples) > _AUDITED_EXAMPLES:
        return []
    try:
        split = group_split(concept.group_ids(), concept.labels(), concept.kind, seed=0)
        surface = audit_surface(concept, split, samples=100)
    except BadInput:  # too few groups for a split: a trace will say so
        return []
    rows = []
    for name, baseline in surface.baselines.items():
        if baseline.n and baseline.scores:
            metric, score = baseline.main
            rows.append((name, f"{metric} {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"))
    return [*rows, *(("warning", warning) for warning in surface.warnings)]


def activations_html(activations: "Activations") -> str:
    """Shape of each part, with the texts that were read."""
    rows = [
        (part, " × ".join(map(str, values.shape)), f"{activations.sites[part][0]} to {activations.sites[part][-1]}")
        for part, values in activations.parts.items()
    ]
    origin = activations.origin
    name = f"{origin.name} at {origin.model}, read at {origin.position}" if origin else f"{len(activations)} examples"
    shown = _heading("Activations", name) + _table(("part", "site × example × d", "sites"), rows)
    labelled = origin is not None and origin.labels is not None
    return _card(shown + _note("with labels and groups" if labelled else "without labels"))


def probe_html(probe: "FittedProbe") -> str:
    """Method, texts and sites of a probe."""
    rows = [
        (part, f"{group[0]} to {group[-1]}", str(tuple(probe.parts[part].direction.shape)))
        for part, group in probe.sites.items()
    ]
    name = f"{probe.method} of {probe.origin.name} at {probe.origin.model}"
    return _card(_heading("Probe", name) + _table(("part", "sites", "site × d × k"), rows))


def direction_html(direction: "Direction") -> str:
    """Origin, site, length and facts of a direction."""
    rows = [
        ("site", str(direction.site)),
        ("dimensions", f"{len(direction.vector):,}"),
        ("length", f"{float(direction.vector.norm()):.4g} ({direction.scale})"),
        ("read at", direction.position),
        *([("points to", direction.sign)] if direction.sign else []),
        *((name, f"{value:.4g}") for name, value in direction.facts.items()),
    ]
    return _card(_heading("Direction", direction.origin) + _table((), rows))


def run_html(run: "Run") -> str:
    """Lineage, findings in sentences, failures, and where the run is."""
    about = run.about
    findings = _findings(run)
    rows = [
        ("lineage", str(about.get("lineage", {}).get("name", ""))),
        ("checkpoints", f"{len(about.get('lineage', {}).get('checkpoints', ())):,}"),
        ("concepts", ", ".join(str(concept["name"]) for concept in about.get("concepts", ()))),
        ("folder", str(run.folder)),
    ]
    failures = [(f"{one.stage} {one.checkpoint}", one.reason) for one in run.failures]
    shown = _heading("Run", run.folder.name) + _table((), rows)
    shown += "".join(f"<p style='margin:.3em 0'><b>{_text(name)}</b> {_text(says)}</p>" for name, says in findings)
    shown += _table(("not measured", "reason"), failures) if failures else ""
    page = run.folder / "report.html"
    link = f'<p><a href="{html.escape(page.resolve().as_uri(), quote=True)}">report</a></p>' if page.is_file() else ""
    return _card(shown + link)


def _findings(run: "Run") -> list[tuple[str, str]]:
    from ontogeny.findings.finding import collect_findings
    from ontogeny.findings.selection import FINDING_ROWS, RecordSource
    from ontogeny.findings.sentences import finding_sentences

    try:
        source = RecordSource(run.query, run.about)
        findings = collect_findings(source.rows(FINDING_ROWS), source.line)
    except BadInput as error:
        return [("no findings:", str(error))]
    return [(finding.name, " ".join(finding_sentences(finding))) for finding in findings]


def token_scores_html(reading: "TokenScores") -> str:
    """The text once a row, each token coloured by its score: blue for the positive class, orange for the negative."""
    largest = float(reading.scores.abs().max()) or 1.0
    rows = [
        f"<tr><td style='color:#666;padding-right:1em;text-align:right;white-space:nowrap'>{_text(name)}</td><td>"
        + "".join(_coloured(token, score, largest) for token, score in zip(reading.tokens, scores, strict=True))
        + "</td></tr>"
        for name, scores in zip(reading.rows, reading.scores.tolist(), strict=True)
    ]
    legend = f"orange −{largest:.3g} · 0 · blue +{largest:.3g}; {reading.probe}"
    return _card(
        "<table style='border-collapse:collapse;line-height:1.9'>" + "".join(rows) + "</table>" + _note(legend)
    )


def _coloured(token: str, score: float, largest: float) -> str:
    if not math.isfinite(score):
        return f"<span style='white-space:pre-wrap' title='not measured'>{_text(token)}</span>"
    red, green, blue = _POSITIVE if score > 0 else _NEGATIVE
    strength = 0.65 * min(1.0, abs(score) / largest)
    style = f"background:rgba({red},{green},{blue},{strength:.3f});white-space:pre-wrap"
    return f"<span style='{style}' title='{score:+.3g}'>{_text(token)}</span>"


def _card(content: str) -> str:
    return f"<div style='font-family:system-ui,sans-serif;font-size:13px;max-width:60em'>{content}</div>"


def _heading(kind: str, name: str) -> str:
    return f"<p style='margin:.2em 0'><b>{kind}</b> {_text(name)}</p>"


def _note(text: str) -> str:
    return f"<p style='margin:.2em 0;color:#666'>{_text(text)}</p>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    listed = list(rows)
    hidden = len(listed) - _MOST_ROWS
    cells = [[f"<td style='text-align:left'>{_text(cell)}</td>" for cell in row] for row in listed[:_MOST_ROWS]]
    head = "".join(f"<th style='text-align:left'>{_text(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    more = _note(f"and {hidden:,} more") if hidden > 0 else ""
    return f"<table>{f'<tr>{head}</tr>' if columns else ''}{body}</table>{more}"


def _text(value: str) -> str:
    return html.escape(escape_control(value), quote=True)


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LETTERS else flat[: _LETTERS - 1] + "…"


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """Some of the items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _label(concept: "Concept", target: float) -> str:
    if concept.kind == "number":
        return f"{target:g}"
    return concept.classes[int(target)] if concept.classes else str(int(target))
