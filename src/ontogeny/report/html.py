"""A run as one static HTML file: warnings first, findings in sentences, every picture, and how to run it again.

The page opens from disk, loads nothing, and runs two scripts only, both named by their hash in its security policy: whatever
a concept or a note is called, it is text.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

from ontogeny.findings.finding import Finding, collect_findings
from ontogeny.findings.sentences import (
    SCORE_LABELS,
    caveats,
    finding_sentences,
    format_control_task,
    format_interval,
    format_score,
    format_step_interval,
)
from ontogeny.findings.stage_comparison import comparison_sentences
from ontogeny.findings.steering_verdicts import ConceptVerdicts, steering_verdicts
from ontogeny.findings.timeline import EVENT_METRICS, make_timeline, order_like_run
from ontogeny.findings.transfer_verdicts import final_transfer_sentences, transfer_verdicts
from ontogeny.storage.files import atomic_path
from ontogeny.views import empty_reason, load_views

_EMBED_SCRIPT = """
const specs = JSON.parse(document.getElementById("specs").textContent);
const actions = {export: {svg: true, png: true}, source: false, compiled: false, editor: false};
(async () => {
  for (const [name, spec] of Object.entries(specs)) {
    await vegaEmbed(document.getElementById("view-" + name), spec, {renderer: "svg", ast: true, actions});
  }
  document.body.dataset.drawn = Object.keys(specs).length;
})();
"""


@dataclass(frozen=True)
class _ReportPicture:
    name: str
    title: str
    caption: str
    said: tuple[str, ...] = ()
    """What its rows say, of a comparison of stages."""


def write_report(records: pd.DataFrame, about: Mapping[str, Any], out: Path) -> Path:
    """Write the report of a run to `out`, which is replaced; `about` is what its run.json holds.

    Returns:
        The file written.
    """
    ordered = order_like_run(records, about)
    found = collect_findings(ordered)
    specs, pictures, absent = _report_pictures(ordered)
    # The panels of a comparison are called like their pictures.
    said = (
        {title.lower(): sentences for title, sentences in comparison_sentences(ordered).items()}
        if "compare" in about
        else {}
    )
    bundle = _vega_bundle()
    template = Environment(
        loader=PackageLoader("ontogeny.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.j2")
    page = template.render(
        name=_name(ordered, about),
        today=date.today().isoformat(),
        about=about,
        overview=_run_overview(ordered),
        warnings=report_warnings(ordered, about, found),
        cards=[_finding_card(f) for f in found],
        steered=_vector_verdicts(ordered, about),
        rows=[_row(f, _concept_description(about, f.subject.concept)) for f in found],
        pictures=[replace(picture, said=tuple(said.get(picture.name, ()))) for picture in pictures],
        panels=said,
        preflight=(about.get("compare") or {}).get("preflight"),
        absent=absent,
        audit=about.get("audit"),
        parity=about.get("parity"),
        facts=_run_facts(about),
        provenance=json.dumps(about, indent=2, ensure_ascii=False, default=str),
        policy=_content_security_policy(bundle, _EMBED_SCRIPT),
        specs=_RawScript(_embedded_json(specs)),
        bundle=_RawScript(bundle),
        embed=_RawScript(_EMBED_SCRIPT),
    )
    out = Path(out)
    if out.exists() and not out.is_file():  # a pipe or a terminal is written to, never replaced
        out.write_text(page, encoding="utf-8", newline="\n")
        return out
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return out


def _vector_verdicts(records: pd.DataFrame, about: Mapping[str, Any]) -> list[ConceptVerdicts]:
    """What was found about a model's vectors and about those of its earlier checkpoints."""
    carried = (
        final_transfer_sentences(transfer_verdicts(records, about)) if "parents" in about.get("lineage", {}) else {}
    )
    told = [
        *steering_verdicts(records),
        *(ConceptVerdicts(name, "carried over", tuple(said)) for name, said in carried.items()),
    ]
    place = {concept["name"]: i for i, concept in enumerate(about.get("concepts", []))}
    return sorted(told, key=lambda one: place.get(one.concept, len(place)))


class _RawScript(str):
    """Our own scripts, which must reach the page as they are."""

    def __html__(self) -> str:
        return str(self)


def _run_overview(records: pd.DataFrame) -> list[tuple[str, str]]:
    """What was looked at, as a few numbers with their nouns."""
    line = make_timeline(records)
    counts = [
        (len(line.moments), "checkpoint"),
        (len(line.stages), "stage"),
        (records["concept"].dropna().nunique(), "concept"),
        (records["site"].dropna().nunique(), "site"),
        (int(records["value"].notna().sum()), "measured number"),
    ]
    return [(f"{n:,}", noun if n == 1 else noun + "s") for n, noun in counts if n]


def report_warnings(records: pd.DataFrame, about: Mapping[str, Any], found: list[Finding]) -> list[tuple[str, str]]:
    """What to know before reading on: (of what, what), the surface of the data first, then what failed, then what is censored."""
    said = []
    for finding in found:
        own = [str(w) for w in _concept_description(about, finding.subject.concept).get("warnings") or []]
        told = any("surface" in w for w in own)
        said += [(finding.name, w) for w in own]
        said += [(finding.name, w) for w in caveats(finding) if not (told and w.startswith("can be told from"))]
    scored = {f.subject.concept for f in found}
    # A comparison scores no concept over training: it says what it found panel by panel. An evaluation judges vectors.
    spoken_of = {one.concept for one in steering_verdicts(records)}
    rest = [c for c in about.get("concepts", []) if c.get("name") not in scored and "compare" not in about]
    for c in rest:
        said += [(str(c.get("name", "?")), str(text)) for text in c.get("warnings") or []]
        if c.get("name") not in spoken_of:
            said.append((str(c.get("name", "?")), "has no score in this table."))
    told_of = (about.get("audit") or {}).get("findings") or []
    said += [(_checkpoints(f), f"{f['kind']}: {f['what']}. {f['next']}") for f in told_of if f["severity"] == "fault"]
    if (about.get("parity") or {}).get("holds") is False:
        said.append(("Parity", about["parity"]["sentence"]))
    failed = [(str(f.get("checkpoint", "?")), f.get("reason", "no reason given")) for f in about.get("failures") or []]
    said += [(checkpoint, f"was not measured: {reason}") for checkpoint, reason in failed]
    for finding in found:
        censored = {"emergence": finding.emergence, "use": finding.used}
        reasons = [
            f"{what} censored: {e.note or 'no reason given'}"
            for what, e in censored.items()
            if e is not None and not e.known
        ]
        said += [(finding.name, reason + ".") for reason in reasons]
    lost = records[records["value"].isna() & ~records["metric"].isin(EVENT_METRICS)]
    # One reason with other numbers in it is one reason.
    numbers = r" \(-?[\d.]+(?:(?:, | to )-?[\d.]+)*\)"
    notes = lost["note"].fillna("no reason given").str.replace(numbers, "", regex=True)
    notes = notes.str.replace(r"^[\d,]+ ", "", regex=True).str.replace(
        r"only [\d,]+ types", "too few types", regex=True
    )
    for note, rows in lost.groupby(notes, sort=False):
        counts = ", ".join(f"{metric} ({n:,})" for metric, n in rows["metric"].value_counts(sort=False).items())
        said.append((f"{len(rows):,} absent", f"could not be measured: {note} – {counts}"))
    ended = [(of, text if text.endswith((".", "!", "?")) else f"{text}.") for of, text in dict.fromkeys(said)]
    # A reason why several concepts are censored is said once.
    all_of = {text: ", ".join(of for of, other in ended if other == text) for _, text in ended if " censored: " in text}
    return list(dict.fromkeys((all_of.get(text, of), text) for of, text in ended))


def _checkpoints(finding: Mapping[str, Any]) -> str:
    """The checkpoints of one finding of the audit, the first of them by name."""
    first, *rest = map(str, finding["checkpoints"])
    return f"{first} and {len(rest):,} more" if rest else first


def _name(records: pd.DataFrame, about: Mapping[str, Any]) -> str:
    return str(about.get("lineage", {}).get("name") or next(iter(records["lineage"].dropna()), "a run"))


def _report_pictures(records: pd.DataFrame) -> tuple[dict[str, Any], list[_ReportPicture], list[tuple[str, str]]]:
    specs: dict[str, Any] = {}
    pictures: list[_ReportPicture] = []
    absent: list[tuple[str, str]] = []
    for view in load_views():
        chart = view.draw(records)
        reason = empty_reason(chart)
        if reason is None:
            specs[view.name] = chart.to_dict()
            pictures.append(_ReportPicture(view.name, view.title, view.caption))
        else:
            absent.append((view.title, reason))
    return specs, pictures, absent


def _finding_card(finding: Finding) -> dict[str, Any]:
    event, lost = finding.emergence, finding.loss
    kind = "unknown" if event is None else "emerged" if event.known else "absent"
    if lost is not None and lost.known and kind == "emerged":
        kind = "weakened" if finding.weakened else "lost"
    return {"name": finding.name, "kind": kind, "said": finding_sentences(finding)}


def _concept_description(about: Mapping[str, Any], concept: str) -> Mapping[str, Any]:
    return next((c for c in about.get("concepts", []) if c.get("name") == concept), {})


def _row(finding: Finding, told: Mapping[str, Any]) -> dict[str, str]:
    floors = {c: format_score(f.value) for c, f in finding.floors.items()}

    def step(event: Any) -> str:
        return "–" if event is None else format_step_interval(event) if event.known else "none"

    return {
        "concept": finding.name,
        "examples": f"{told['n']:,} ({told['groups']:,})" if "n" in told and "groups" in told else "–",
        "site": finding.site,
        "score": f"{SCORE_LABELS[finding.metric]} {format_interval(finding.final)}",
        "tfidf": floors.get("surface_tfidf", "–"),
        "control": format_control_task(finding),
        "untrained": floors.get("untrained", "–"),
        "emerges": step(finding.emergence),
        "used": step(finding.used),
        "source": " · ".join(str(told[k]) for k in ("source", "licence") if told.get(k)) or "–",
    }


def _run_facts(about: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The small print as titled lists of name and value."""
    lineage = {k: v for k, v in about.get("lineage", {}).items() if k != "checkpoints"}
    groups = [
        ("Lineage", lineage),
        *(
            (k.title(), about.get(k) or {})
            for k in ("settings", "evaluations", "transfers", "versions", "machine", "ledger")
        ),
    ]
    told = [
        (title, [(str(k), _fact_text(v)) for k, v in group.items() if v not in ([], {}, "")]) for title, group in groups
    ]
    return [(title, facts) for title, facts in told if facts]


def _fact_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_fact_text(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_fact_text(v)}" for k, v in value.items())
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return (
        "–"
        if value is None
        else value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False, default=str)
    )


@functools.cache
def _vega_bundle() -> str:
    """Vega, Vega-Lite and vega-embed in one script, in the version that the charts are written for."""
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return (
        vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
        .replace("\r\n", "\n")
        .replace("</script", "<\\/script")
    )


def _embedded_json(specs: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that holds it, whatever its texts say."""
    text = json.dumps(specs, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return (
        text.replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _content_security_policy(*scripts: str) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
