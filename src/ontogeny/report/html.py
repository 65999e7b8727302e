"""HTML report: a run as one static file with findings in sentences, warnings, all views, and the command.

The page opens from disk and loads nothing. Its security policy allows only two scripts, by their hashes, so names of concepts and
notes are always text.
"""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from ontogeny.data.examples import class_meaning
from ontogeny.findings.finding import Finding, collect_findings
from ontogeny.findings.persona_drift import DRIFT_ROWS, drift_sentences
from ontogeny.findings.selection import FINDING_ROWS, RecordSource, as_source, metric_condition
from ontogeny.findings.sentences import (
    SCORE_LABELS,
    caveats,
    finding_sentences,
    format_control_task,
    format_event,
    format_interval,
    format_score,
    run_headline,
)
from ontogeny.findings.stage_comparison import COMPARISON_ROWS, comparison_sentences
from ontogeny.findings.steering_verdicts import ConceptVerdicts, steering_verdicts
from ontogeny.findings.transfer_verdicts import EFFECT_METRICS, final_transfer_sentences, transfer_verdicts
from ontogeny.report.pictures import MOST_CONCEPTS, ReportPicture, report_pictures
from ontogeny.report.warning_groups import group_warnings
from ontogeny.storage.files import atomic_path
from ontogeny.views import content_security_policy, embedded_json, vega_bundle

_VERDICT_ROWS = metric_condition("steering_works")


def write_report(records: pd.DataFrame | RecordSource, about: Mapping[str, Any], out: Path) -> Path:
    """Write the report of a run to `out` and return it.

    Args:
        records: A table, or the source from which the rows of each section are read.
        about: The content of run.json.
        out: An HTML file.
    """
    source = as_source(records, about)
    rows = source.rows(FINDING_ROWS)
    findings = collect_findings(rows)
    pictures, absent = report_pictures(source)
    panels = comparison_sentences(source.rows(COMPARISON_ROWS)) if "compare" in about else {}
    if "mitigations" in about.get("settings", {}):
        panels |= {"persona_drift": drift_sentences(source.rows(DRIFT_ROWS))}
    bundle, script = vega_bundle(), report_script()
    template = Environment(
        loader=PackageLoader("ontogeny.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.j2")
    page = template.render(
        name=_name(rows, about),
        today=date.today().isoformat(),
        about=about,
        overview=_run_overview(source),
        warnings=group_warnings(report_warnings(source, about, findings)),
        cards=[_finding_card(f) for f in findings],
        folded=len(findings) > MOST_CONCEPTS,
        headline=run_headline(findings),
        concepts=_tabbed_concepts(pictures),
        checkpoints=_in_training_order(about.get("lineage", {})),
        steered=_vector_verdicts(source, about),
        rows=[_row(f, _concept_description(about, f.subject.concept)) for f in findings],
        pictures=[replace(picture, sentences=tuple(panels.get(picture.name, ()))) for picture in pictures],
        panels=panels,
        preflight=(about.get("compare") or {}).get("preflight"),
        absent=absent,
        audit=about.get("audit"),
        parity=about.get("parity"),
        facts=_run_facts(about),
        provenance=json.dumps(about, indent=2, ensure_ascii=False, default=str),
        policy=content_security_policy(bundle, script),
        specs=RawScript(embedded_json({p.name: {"tabs": p.packed, "table": p.table} for p in pictures})),
        bundle=RawScript(bundle),
        embed=RawScript(script),
    )
    out = Path(out)
    if out.exists() and not out.is_file():  # write to a pipe or terminal, never replace it
        out.write_text(page, encoding="utf-8", newline="\n")
        return out
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return out


def _vector_verdicts(source: RecordSource, about: Mapping[str, Any]) -> list[ConceptVerdicts]:
    """Verdicts on evaluated vectors and on transferred ones, in the order of the concepts."""
    has_parents = "parents" in about.get("lineage", {})
    transferred = {}
    if has_parents:
        effects = source.rows(metric_condition(*EFFECT_METRICS))
        transferred = final_transfer_sentences(transfer_verdicts(effects, about))
    verdicts = [
        *steering_verdicts(source.rows(_VERDICT_ROWS)),
        *(ConceptVerdicts(name, "transferred", tuple(sentences)) for name, sentences in transferred.items()),
    ]
    place = {concept["name"]: i for i, concept in enumerate(about.get("concepts", []))}
    return sorted(verdicts, key=lambda verdict: place.get(verdict.concept, len(place)))


class RawScript(str):
    """A script of ours, which is not escaped."""

    def __html__(self) -> str:
        return str(self)


def _run_overview(source: RecordSource) -> list[tuple[str, str]]:
    """Counts of checkpoints, stages, concepts, sites and values, with their nouns."""
    line = source.line
    concepts, sites, values = source.total_counts()
    counts = [
        (len(line.moments), "checkpoint"),
        (len(line.stages), "stage"),
        (concepts, "concept"),
        (sites, "site"),
        (values, "measured number"),
    ]
    return [(f"{n:,}", noun if n == 1 else noun + "s") for n, noun in counts if n]


def report_warnings(
    records: pd.DataFrame | RecordSource, about: Mapping[str, Any], findings: list[Finding]
) -> list[tuple[str, str]]:
    """Warnings as (subject, text): caveats of the data first, then failures, then censored events and missing values."""
    source = as_source(records, about)
    warnings = []
    for finding in findings:
        own = [str(w) for w in _concept_description(about, finding.subject.concept).get("warnings") or []]
        has_surface = any("surface" in w for w in own)
        warnings += [(finding.name, w) for w in own]
        warnings += [
            (finding.name, w) for w in caveats(finding) if not (has_surface and w.startswith("can be told from"))
        ]
    scored = {f.subject.concept for f in findings}
    # A comparison has sentences by panel, an evaluation has verdicts: neither scores a concept over training.
    evaluated = {verdict.concept for verdict in steering_verdicts(source.rows(_VERDICT_ROWS))}
    rest = [c for c in about.get("concepts", []) if c.get("name") not in scored and "compare" not in about]
    for c in rest:
        warnings += [(str(c.get("name", "?")), str(text)) for text in c.get("warnings") or []]
        if c.get("name") not in evaluated:
            warnings.append((str(c.get("name", "?")), "has no score in this table."))
    faults = (about.get("audit") or {}).get("findings") or []
    warnings += [
        (_checkpoints(f), f"{f['kind']}: {f['what']}. {f['next']}") for f in faults if f["severity"] == "fault"
    ]
    if (about.get("parity") or {}).get("holds") is False:
        warnings.append(("Parity", about["parity"]["sentence"]))
    failed = [(str(f.get("checkpoint", "?")), f.get("reason", "no reason given")) for f in about.get("failures") or []]
    warnings += [(checkpoint, f"was not measured: {reason}") for checkpoint, reason in failed]
    for finding in findings:
        censored = {"emergence": finding.emergence, "right answers": finding.answers}
        reasons = [
            f"{what} censored: {e.note or 'no reason given'}"
            for what, e in censored.items()
            if e is not None and not e.known
        ]
        warnings += [(finding.name, reason + ".") for reason in reasons]
    missing = source.absent_counts()
    # Reasons that differ in their numbers only are one reason.
    numbers = r" \(-?[\d.]+(?:(?:, | to )-?[\d.]+)*\)"
    notes = missing["note"].fillna("no reason given").str.replace(numbers, "", regex=True)
    notes = notes.str.replace(r"^[\d,]+ ", "", regex=True).str.replace(
        r"only [\d,]+ types", "too few types", regex=True
    )
    for note, rows in missing.groupby(notes, sort=False):
        by_metric = rows.groupby("metric", sort=False)["n"].sum()
        counts = ", ".join(f"{metric} ({n:,})" for metric, n in by_metric.items())
        warnings.append((f"{by_metric.sum():,} absent", f"could not be measured: {note} – {counts}"))
    ended = [(of, text if text.endswith((".", "!", "?")) else f"{text}.") for of, text in dict.fromkeys(warnings)]
    # A reason that censors several concepts is listed once.
    all_of = {text: _named([of for of, other in ended if other == text]) for _, text in ended if " censored: " in text}
    return list(dict.fromkeys((all_of.get(text, of), text) for of, text in ended))


def _named(subjects: list[str]) -> str:
    """Subjects in one phrase: the first ones by name, and the number of the others."""
    return ", ".join(subjects) if len(subjects) <= 4 else f"{', '.join(subjects[:3])} and {len(subjects) - 3} more"


def _checkpoints(finding: Mapping[str, Any]) -> str:
    """The checkpoints of an audit finding: the first by name, the number of the others."""
    first, *rest = map(str, finding["checkpoints"])
    return f"{first} and {len(rest):,} more" if rest else first


def _name(records: pd.DataFrame, about: Mapping[str, Any]) -> str:
    return str(about.get("lineage", {}).get("name") or next(iter(records["lineage"].dropna()), "a run"))


@functools.cache
def report_script() -> str:
    """The script of a page: draws charts when their tabs are opened, and turns the pages of tables."""
    return "\n" + files("ontogeny.report").joinpath("report.js").read_text(encoding="utf-8")


def _tabbed_concepts(pictures: list[ReportPicture]) -> list[str]:
    """Concepts that have tabs, for the choice of one."""
    tabs = [tab for picture in pictures if len(picture.tabs) > 1 for tab in picture.tabs]
    return list(dict.fromkeys(name for tab in tabs for name in tab.concepts))


def _in_training_order(lineage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The checkpoints of run.json by stage and step; one without a step is the end of its stage."""
    rank = {stage: i for i, stage in enumerate(lineage.get("stages") or [])}

    def key(checkpoint: Mapping[str, Any]) -> tuple[int, float]:
        step = checkpoint.get("step")
        return rank.get(checkpoint.get("stage"), len(rank)), math.inf if step is None else float(step)

    return sorted(lineage.get("checkpoints") or [], key=key)


def _finding_card(finding: Finding) -> dict[str, Any]:
    event, loss = finding.emergence, finding.loss
    kind = "unknown" if event is None else "emerged" if event.known else "absent"
    if loss is not None and loss.known and kind == "emerged":
        kind = "lost" if finding.lost else "weakened"
    when = format_event(event) if event is not None and event.known else ""
    return {"name": finding.name, "kind": kind, "when": when, "sentences": finding_sentences(finding)}


def _concept_description(about: Mapping[str, Any], concept: str) -> Mapping[str, Any]:
    return next((c for c in about.get("concepts", []) if c.get("name") == concept), {})


def _row(finding: Finding, concept: Mapping[str, Any]) -> dict[str, str]:
    floors = {c: format_score(f.value) for c, f in finding.floors.items()}

    def step(event: Any) -> str:
        return "–" if event is None else format_event(event) if event.known else "none"

    return {
        "concept": finding.name,
        "meaning": class_meaning(concept.get("classes") or ()) if concept.get("kind") == "binary" else "",
        "examples": f"{concept['n']:,} ({concept['groups']:,})" if {"n", "groups"} <= concept.keys() else "–",
        "site": finding.site if finding.read_at_end else "none at the end",
        "score": f"{SCORE_LABELS[finding.metric]} {format_interval(finding.final)}",
        "tfidf": floors.get("surface_tfidf", "–"),
        "control": format_control_task(finding),
        "untrained": floors.get("untrained", "–"),
        "emerges": step(finding.emergence),
        "used": step(finding.answers),
        "source": " · ".join(str(concept[k]) for k in ("source", "licence") if concept.get(k)) or "–",
    }


def _run_facts(about: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Lineage, settings, versions and machine as titled lists of name and value."""
    lineage = {k: v for k, v in about.get("lineage", {}).items() if k != "checkpoints"}
    keys = ("settings", "evaluations", "transfers", "versions", "machine", "ledger")
    groups = {"Lineage": lineage} | {key.title(): about.get(key) or {} for key in keys}
    facts = {
        title: [(str(k), _fact_text(v)) for k, v in group.items() if v not in ([], {}, "")]
        for title, group in groups.items()
    }
    return [(title, pairs) for title, pairs in facts.items() if pairs]


def _fact_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_fact_text(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_fact_text(v)}" for k, v in value.items())
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
