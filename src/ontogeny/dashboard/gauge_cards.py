"""Gauge cards: the gauges of a run at one checkpoint, with where each comes from and what is known of its control vector."""

import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ontogeny.dashboard.chat_options import ChatOptions
from ontogeny.dashboard.selection import step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, measured_checkpoints
from ontogeny.errors import BadInput
from ontogeny.findings.finding import FLOOR_LABELS
from ontogeny.gauges.control_vector import ControlVector, control_site, control_vector
from ontogeny.gauges.gauge import Gauge, default_gauges, make_gauge
from ontogeny.gauges.labels import GaugeLabel, gauge_label, parse_gauge_names
from ontogeny.gauges.pack import PackedGauge
from ontogeny.jobs.gauges.rows import verdict_text
from ontogeny.sites import Site
from ontogeny.storage.record_filter import sql_text


def gauge_labels(shown: ShownRun, options: ChatOptions) -> dict[str, GaugeLabel]:
    """Labels of the traced concepts of a run, by name."""
    entries = {str(entry["name"]): entry for entry in shown.about.get("concepts", ())}

    def known(texts: Iterable[str]) -> list[str]:
        return [text for text in texts if text.partition("=")[0] in entries]

    named = parse_gauge_names(known(options.users), known(options.systems), list(entries))
    packed = {} if options.pack is None else {gauge.label.concept: gauge.label for gauge in options.pack.gauges}
    return {name: gauge_label(entry, named) for name, entry in entries.items()} | packed


def packed_gauge(options: ChatOptions, concept: str) -> PackedGauge | None:
    """The gauge of a concept in the pack of the command line; None where the pack lacks the concept."""
    members = () if options.pack is None else options.pack.members
    return next((member for member in members if member.gauge.label.concept == concept), None)


def gauge_at(shown: ShownRun, options: ChatOptions, label: GaugeLabel, stage: str, step: str) -> Gauge:
    """The gauge of a concept at a place of the time axis; of the pack, where it has one."""
    if (member := packed_gauge(options, label.concept)) is not None:
        return member.gauge
    return shown.result(
        ("gauge", label, stage, step), lambda: make_gauge(shown.run, label, visit_at(shown, label.concept, stage, step))
    )


def visit_at(shown: ShownRun, concept: str, stage: str, step: str) -> MeasuredCheckpoint | None:
    """The measured checkpoint at a place of the time axis, where one without a step is the end of its stage; None if there is none."""
    for visit in measured_checkpoints(shown.run, concept):
        at_end = visit.step is None and "." in step
        if (visit.stage or "") == stage and (at_end or (visit.step is not None and step_text(visit.step) == step)):
            return visit
    return None


def gauge_cards(
    shown: ShownRun, runs: Iterable[ShownRun], options: ChatOptions, stage: str, step: str
) -> dict[str, Any]:
    """All gauges of a run at one checkpoint, and which are on by default.

    Args:
        shown: The run.
        runs: Runs that may hold an evaluation of its directions.
        options: Labels of gauges.
        stage, step: The checkpoint.

    Raises:
        BadInput: the run keeps no directions.
    """
    if not shown.run.headers() and options.pack is None:
        raise BadInput("this run keeps no directions, so that it has no gauges: open a run of `ontogeny trace`.")
    labels = gauge_labels(shown, options)
    verdicts = list(runs)
    cards = [_card_at(shown, verdicts, options, label, stage, step) for label in labels.values()]
    return {"gauges": cards, "default": default_gauges(list(labels.values()))}


def _card_at(
    shown: ShownRun, runs: Iterable[ShownRun], options: ChatOptions, label: GaugeLabel, stage: str, step: str
) -> dict[str, Any]:
    gauge, member = gauge_at(shown, options, label, stage, step), packed_gauge(options, label.concept)
    if member is None or options.pack is None:
        return _card(shown, gauge, _verdict(runs, label.concept, stage, step))
    pack, splits = options.pack, " / ".join(map(str, member.splits.values()))
    return {
        **_card(shown, gauge, verdict_text(member)),
        "control_site": str(member.control_site),
        "traced": str(pack.about.get("date", "")),
        "pack": f"of {pack.model.label}: {splits} conversations to fit, choose and test; calibration: {member.calibration}",
        "elsewhere": _fitted_elsewhere(shown, options, stage, step),
    }


def _fitted_elsewhere(shown: ShownRun, options: ChatOptions, stage: str, step: str) -> str:
    """A sentence if the weights of a checkpoint are not those that the pack was fitted at; "" if they are."""
    from ontogeny.dashboard.checkpoint_models import models_of

    assert options.pack is not None
    label = options.pack.model.label
    models = models_of(shown)
    try:
        here = shown.result(("fingerprint", stage, step), lambda: models.fingerprint(models.at(stage, step)))
    except BadInput:
        return f"fitted at {label}; the weights of this checkpoint cannot be compared with it"
    return "" if here == options.pack.model.fingerprint else f"fitted at {label}, and this is another checkpoint"


def pinned_vector(shown: ShownRun, options: ChatOptions, gauge: Gauge, towards: int, site: str = "") -> ControlVector:
    """The control vector of a gauge: that of the pack, else the one of the run at the gauge's checkpoint.

    Raises:
        BadInput: the gauge has no control vector, or the pack has it at another site.
    """
    if (member := packed_gauge(options, gauge.label.concept)) is None:
        return control_vector(shown.run, gauge, towards, site)
    if site and Site.parse(site) != member.control_site:
        raise BadInput(
            f"`site` must be {member.control_site}, where the gauge pack controls, got {site}: leave it out."
        )
    return member.control_vector(towards)


def _card(shown: ShownRun, gauge: Gauge, verdict: str) -> dict[str, Any]:
    label = gauge.label
    return {
        "concept": label.concept,
        "subject": label.subject,
        "classes": list(label.classes),
        "sensitive": label.sensitive,
        "readable": gauge.probe is not None,
        "reason": gauge.reason,
        "site": str(gauge.site or ""),
        "method": gauge.method,
        "position": gauge.position + (f", after “{label.suffix}”" if label.suffix else ""),
        "auroc": finite_number(gauge.auroc),
        "low": finite_number(gauge.auroc_low),
        "high": finite_number(gauge.auroc_high),
        "floors": [
            [FLOOR_LABELS[name], finite_number(gauge.floors[name], 3)] for name in FLOOR_LABELS if name in gauge.floors
        ],
        "n": gauge.n,
        "groups": gauge.groups,
        "ece": finite_number(gauge.calibration_error),
        "ece_noise": finite_number(gauge.calibration_noise),
        "control_site": str(control_site(shown.run, gauge))
        if gauge.probe is not None and gauge.unit in shown.run.headers()
        else "",
        "control": verdict,
        "traced": _date(shown),
    }


def _date(shown: ShownRun) -> str:
    """The day on which the run was written last, as its file says."""
    seconds = shown.run.about_path.stat().st_mtime
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()


def _verdict(runs: Iterable[ShownRun], concept: str, stage: str, step: str) -> str:
    """Results of `evaluate` for the concept's directions at this checkpoint, else at others; "" if nothing was evaluated."""
    elsewhere = ""
    for shown in runs:
        rows = shown.result(
            ("steering verdicts", concept),
            lambda shown=shown: shown.query(
                f"select stage, step, value, note from records where metric = 'steering_works' and concept = {sql_text(concept)}"
            ),
        )
        for own_stage, own_step, _, note in rows.astype(object).itertuples(index=False):
            here = (own_stage or "") == stage and own_step is not None and step_text(float(own_step)) == step
            if here:
                return str(note)
            elsewhere = f"at another checkpoint: {note}"
    return elsewhere


def finite_number(value: float, digits: int = 5) -> float | None:
    """A number with a few digits as JSON has it; None if it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def gauges_of(
    shown: ShownRun, options: ChatOptions, names: Iterable[str], stage: str, step: str, *, argument: str = "gauges"
) -> list[Gauge]:
    """The gauges of some concepts at a checkpoint; `argument` is named in the error.

    Raises:
        BadInput: a concept that the run lacks.
    """
    labels: Mapping[str, GaugeLabel] = gauge_labels(shown, options)
    found = []
    for name in names:
        if name not in labels:
            raise BadInput(
                f"`{argument}` must be concepts of the run ({', '.join(labels)}), got {name!r}: choose among them."
            )
        found.append(gauge_at(shown, options, labels[name], stage, step))
    return found
