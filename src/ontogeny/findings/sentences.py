"""Findings as sentences, made from rows: events, missing events, and caveats."""

import math
from collections.abc import Mapping, Sequence

from ontogeny.findings.finding import FLOOR_LABELS, Finding, IntervalEstimate, StepEstimate
from ontogeny.records import checkpoint_label

QUESTIONS_ELSEWHERE = "the questions do not begin with the texts"
"""Beginning of the note of a difference that is not given, since the questions do not ask about the texts that are read."""
_TOO_FEW_AROUND = "; too few lie before"
"""Part of the reason of an event that no order of its checkpoints could have shown."""
SCORE_LABELS = {"auroc": "AUROC", "r2": "R²", "accuracy": "accuracy"}
_SURFACE_WARNING_SCORE = 0.75
"""From this score of a surface baseline on, a warning is given: little is left for a probe to show."""

_CONTROL_PHRASES = {
    "untrained": "in the untrained model",
    "random_direction": "along the best 2.5 % of random directions",
}


def format_score(value: float) -> str:
    """A score as papers print it: .93, 1.00, −.12; – for NaN."""
    if math.isnan(value):
        return "–"
    text = f"{abs(value):.2f}"
    return ("−" if value < 0 and float(text) else "") + (text.removeprefix("0") if text.startswith("0.") else text)


def format_interval(reading: IntervalEstimate) -> str:
    """A score with its interval: .93 [.90, .96]."""
    if math.isnan(reading.low) or math.isnan(reading.high):
        return format_score(reading.value)
    return f"{format_score(reading.value)} [{format_score(reading.low)}, {format_score(reading.high)}]"


def format_p(p: float) -> str:
    """A p-value: p = .013, p < .001."""
    return "p < .001" if p < 0.001 else f"p = {p:.2g}".replace("0.", ".")


def format_step(step: float) -> str:
    """A step with thousands separators: 143,000; a step between two checkpoints is rounded."""
    return "–" if math.isnan(step) else f"{step:,.0f}" if step >= 10 or step == int(step) else f"{step:.1f}"


def format_step_interval(event: StepEstimate) -> str:
    """A step with its interval: 512 (256–724)."""
    if not event.known or math.isnan(event.low) or math.isnan(event.high):
        return format_step(event.step)
    return f"{format_step(event.step)} ({format_step(event.low)}–{format_step(event.high)})"


def format_event(event: StepEstimate) -> str:
    """A step with its stage and interval: base 512 (256–724)."""
    return f"{event.stage} {format_step_interval(event)}" if event.stage else format_step_interval(event)


def describe_site(site: str) -> str:
    """A site in words: after block 3, in head 5 of block 3, …"""
    part, _, rest = site.partition(".")
    layer, _, head = rest.partition(".")
    if site == "resid.0":
        return "in the embedding"
    words = {
        "resid": f"after block {layer}",
        "attn": f"in the attention of block {layer}",
        "mlp": f"in the MLP of block {layer}",
        "attn_resid": f"in what the attention of block {layer} adds",
        "mlp_resid": f"in what the MLP of block {layer} adds",
        "neuron": f"in the neurons of block {layer}",
        "router": f"in the router of block {layer}",
        "head": f"in head {head} of block {layer}",
        "query": f"in the queries of head {head} of block {layer}",
        "key": f"in the keys of head {head} of block {layer}",
    }
    return words.get(part, f"at {site}")


def format_control_task(finding: Finding) -> str:
    """Accuracy and the accuracy on random labels: .86 / .53."""
    pair = finding.accuracy, finding.control_task
    return " / ".join("–" if reading is None else format_score(reading.value) for reading in pair)


def finding_sentences(finding: Finding) -> list[str]:
    """Sentences about a concept; each continues its name ('`truth` …')."""
    parts = (
        _emergence(finding),
        _sites(finding),
        _loss(finding),
        _answers(finding),
        _ablation(finding),
        _phase(finding),
    )
    return [text for text in parts if text]


def caveats(finding: Finding) -> list[str]:
    """Reasons to doubt the score; each sentence continues the concept's name."""
    if not finding.final.known:
        return [f"could not be scored at the last checkpoint: {finding.final.note or 'no reason given'}."]
    texts = []
    surface = {
        c: f for c, f in finding.floors.items() if c.startswith("surface_") and f.known and finding.metric != "r2"
    }
    for control, floor in surface.items():
        if floor.value >= _SURFACE_WARNING_SCORE:
            little = "little" if finding.exceeds(control) else "nothing"
            texts.append(
                f"can be told from {FLOOR_LABELS[control]} alone at {format_score(floor.value)}: "
                f"a probe at {format_score(finding.final.value)} shows {little} beyond that."
            )
    near = [c for c, f in surface.items() if f.value < _SURFACE_WARNING_SCORE and not finding.exceeds(c)]
    if near:
        listed = ", ".join(f"{FLOOR_LABELS[c]} ({format_score(surface[c].value)})" for c in near)
        texts.append(f"is not shown to be read better than from the surface of the text: {listed}.")
    inner = {c: f for c in ("untrained", "random_direction") if (f := finding.floors.get(c)) and f.known}
    within = [c for c in inner if not finding.exceeds(c)]
    if within:
        listed = " or ".join(f"{_control_phrase(finding, c)} ({format_score(inner[c].value)})" for c in within)
        texts.append(f"is not shown to be read better than {listed}.")
    if finding.selectivity is not None and finding.selectivity.low <= 0:
        texts.append(
            f"is not shown to be read better than random labels of its words, which tell its label at "
            f"{format_score(finding.type_accuracy)}: selectivity {format_interval(finding.selectivity)}."
        )
    if finding.chosen_by != "cv_score":
        texts.append(
            "has its site chosen by the final test score, so that score is optimistic: no cv_score in the table."
        )
    return texts


def _control_phrase(finding: Finding, control: str) -> str:
    if control == "random_direction" and control in finding.excess:
        return "along the random direction that is best on the training groups"
    return _CONTROL_PHRASES[control]


def _emergence(finding: Finding) -> str:
    event, metric = finding.emergence, SCORE_LABELS[finding.metric]
    at_end = f"{metric} {format_interval(finding.final)} at the last checkpoint"
    if event is None:
        if not finding.final.known:
            return ""
        scored = f"{at_end}{_floors(finding, finding.floors)}"
        return f"is read best {describe_site(finding.site)}: {scored}; when it emerged was not measured."
    if not _stage(finding, event) or event.stage == str(finding.curve["stage"].iloc[-1]):
        scored = f"{at_end}{_floors(finding, finding.floors)}"
    else:
        then = format_interval(finding.score_after(event.stage))
        scored = f"{metric} {then} at the end of {event.stage}{_floors(finding, finding.event_floors)}; {at_end}"
    if event.known:
        text = f"becomes readable at step {format_step(event.step)}{_stage(finding, event)}{_certainty(event)}"
        return f"{text} {describe_site(finding.site)}: {scored}{_doubt(event) or _last_alone(finding, event)}."
    where = f" in any stage; in {event.stage}" if _stage(finding, event) else ""
    return f"shows no emergence{where}: {event.note or 'no reason given'}{_doubt(event)}. {_best(finding, scored)}."


def _sites(finding: Finding) -> str:
    """The earliest layer and the best site at the end of each stage; stages with equal ones together."""
    together: dict[tuple[str, str], list[str]] = {}
    for sites in finding.stage_sites:
        key = (sites.earliest, sites.best) if sites.earliest else ("", "")
        together.setdefault(key, []).append(sites.stage)
    if not together:
        return ""
    several = len(finding.stage_sites) > 1
    parts = []
    for (earliest, best), stages in together.items():
        where = f"first {describe_site(earliest)} and best {describe_site(best)}"
        at = f" at the end of {', '.join(stages)}" if several else ""
        parts.append(f"{where if earliest else 'by no layer'}{at}")
    return f"is read {'; '.join(parts)} (family-wise p ≤ .05 over the layers{' and stages' if several else ''})."


def _best(finding: Finding, scored: str) -> str:
    """The best site; if the last checkpoint is not read there, until when it was."""
    if finding.read_at_end or math.isnan(finding.final.low):
        return f"Best {describe_site(finding.site)}, {scored}"
    row = finding.last_read
    text = f"No site is shown to read it at the last checkpoint: {scored}"
    if row is None:
        return text
    at = checkpoint_label(row["stage"], None if row["step"] % 1 else row["step"])
    score = format_interval(IntervalEstimate(float(row["value"]), float(row["low"]), float(row["high"])))
    return f"{text}. It was read until {at} {describe_site(finding.site)}: {SCORE_LABELS[finding.metric]} {score}"


def _certainty(event: StepEstimate) -> str:
    """The interval of a step and its corrected p."""
    parts = [] if math.isnan(event.low) else [f"95 % interval {_step_range(event)}"]
    if not math.isnan(event.p):
        looks = f"corrected for {event.looks} looks" if event.looks > 1 else "one look"
        parts.append(f"{format_p(event.p)}, {looks}")
    return f" ({'; '.join(parts)})" if parts else ""


def _step_range(event: StepEstimate) -> str:
    last = "after the last checkpoint" if math.isnan(event.high) else format_step(event.high)
    return f"{format_step(event.low)}–{last}"


def _doubt(event: StepEstimate) -> str:
    """That an event or its absence is unsettled: the groups that are held out decide it, or its p is near the level."""
    if not event.known and _TOO_FEW_AROUND in event.note:
        return "; unsettled: the checkpoints cannot tell"
    if event.folds_disagree:
        return f"; unsettled: {event.folds_agree} of {event.folds} parts of the groups show it"
    return f"; unsettled: {format_p(event.p)} is near .05" if event.near_level else ""


def _last_alone(finding: Finding, event: StepEstimate) -> str:
    """That an emergence is unsettled, if a single checkpoint of its stage lies after it: nothing shows that the score stays."""
    steps = finding.curve[finding.curve["stage"].isin([event.stage, ""])]["step"]
    return "; unsettled: a single checkpoint lies after it" if int((steps >= event.step).sum()) == 1 else ""


def _stage(finding: Finding, event: StepEstimate) -> str:
    return f" of {event.stage}" if event.stage and finding.curve["stage"].nunique() > 1 else ""


def _floors(finding: Finding, floors: Mapping[str, IntervalEstimate]) -> str:
    known = [(FLOOR_LABELS[c], floor.value) for c, floor in floors.items() if floor.known]
    text = "; floors: " + ", ".join(f"{name} {format_score(value)}" for name, value in known) if known else ""
    if finding.selectivity is None:
        return text
    return f"{text}; selectivity {format_interval(finding.selectivity)}"


def _loss(finding: Finding) -> str:
    score_after = finding.after_loss
    if finding.loss is None or score_after is None:
        return ""
    event = finding.loss
    at = f"{format_step(event.step)}{_stage(finding, event)}{_certainty(event)}"
    end = f"the end of {event.stage}" if _stage(finding, event) else "the last checkpoint"
    score = f"{SCORE_LABELS[finding.metric]} {format_interval(score_after)} at {end}"
    if finding.lost:
        again = " again" if finding.emergence is not None and finding.emergence.known else ""
        return f"is lost{again} at step {at}: {score}{_doubt(event)}."
    now = "still above its floors" if finding.weakened else "no longer shown to be above its floors"
    return f"is read less well from step {at} on: {score}, {now}{_doubt(event)}."


def _answers(finding: Finding) -> str:
    """The step from which the questions are answered right; its order with the emergence only where that can be compared."""
    event, gap = finding.answers, finding.readable_minus_answers
    if event is None:
        return ""
    if not event.known:
        return f"is not shown to be answered right: {event.note or 'no reason given'}{_doubt(event)}."
    text = f"answers right from step {format_step(event.step)}{_stage(finding, event)}{_certainty(event)}"
    if gap is None or not gap.known:
        return f"{text}{'' if gap is None else _stage_order(finding, gap)}{_doubt(event)}."
    sure = "" if math.isnan(gap.low) else f" [{_signed(gap.low)}, {_signed(gap.high)}]"
    difference = f"(readable − right answers: {_signed(gap.value)} doublings{sure})"
    if math.isnan(gap.low) or math.isnan(gap.high) or gap.low <= 0 <= gap.high:
        return f"{text}; which came first is not settled {difference}."
    order = "readable before answered right" if gap.value < 0 else "answered right before readable"
    return f"{text}: {order} {difference}."


def _stage_order(finding: Finding, gap: IntervalEstimate) -> str:
    """The order of two events in different stages, which no number of doublings separates."""
    read, answers = finding.emergence, finding.answers
    order = list(finding.curve["stage"].unique())
    if read is None or answers is None or not read.known or not {read.stage, answers.stage} <= set(order):
        return ""
    if gap.note.startswith(QUESTIONS_ELSEWHERE):
        return "; the questions do not begin with the texts that are read, so the two steps are not compared"
    distance = order.index(read.stage) - order.index(answers.stage)
    if distance == 0:
        return ""
    return ": readable in an earlier stage" if distance < 0 else ": answered right in an earlier stage than readable"


def _ablation(finding: Finding) -> str:
    """Whether the answers use the direction: only an ablation beyond its null shows this."""
    if (ablation := finding.ablation) is None:
        return ""
    at = checkpoint_label(ablation.stage, ablation.step)
    effect = f"{_nats(ablation.effect.value)} nats [{_nats(ablation.effect.low)}, {_nats(ablation.effect.high)}]"
    null = f"95 % of random directions {_nats(ablation.null.low)} to {_nats(ablation.null.high)}"
    numbers = f"ablating it at {at} changes the margin of the {ablation.of} by {effect} ({null}; {format_p(ablation.p)}, corrected)"
    return f"is used: {numbers}." if ablation.is_use else f"is not shown to be used: {numbers}."


def _nats(value: float) -> str:
    return "–" if math.isnan(value) else f"{'−' if value < 0 else '+'}{abs(value):.2f}"


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(value):.1f}"


def _phase(finding: Finding) -> str:
    event = finding.change_point
    if event is None:
        return ""
    if not event.known:
        return f"shows no turn from fitting to compression: {event.note or 'no reason given'}{_doubt(event)}."
    at = f"{format_step_interval(event)}{_stage(finding, event)}"
    sure = (
        "" if math.isnan(event.p) else f"; both kernels agree, {format_p(event.p)} corrected for the sites of the run"
    )
    return (
        f"turns from fitting to compression at step {at}: dependence on the input begins to fall{sure}{_doubt(event)}."
    )


def run_headline(findings: Sequence[Finding], kind: str = "concepts") -> str:
    """How many concepts emerge, and which first; "" if no emergence was measured.

    Args:
        findings: The findings of one run.
        kind: The noun for them.
    """
    measured = [f for f in findings if f.emergence is not None]
    emerged = [f for f in measured if f.emergence is not None and f.emergence.known]
    if not measured:
        return ""
    if not emerged:
        return f"None of {len(findings)} {kind} is shown to emerge" if len(findings) > 1 else ""
    order = {name: i for i, name in enumerate(dict.fromkeys(stage for f in findings for stage in f.curve["stage"]))}
    events = [(f.name, f.emergence) for f in emerged if f.emergence is not None]
    name, event = min(events, key=lambda pair: (order.get(pair[1].stage, 0), pair[1].step))
    if len(findings) == 1:
        return f"{name} emerges at {format_event(event)}"
    if len(emerged) == 1:
        return f"1 of {len(findings)} {kind} emerges: {name}, at {format_event(event)}"
    count = f"{len(emerged)} of {len(findings)}"
    if len(emerged) == len(findings):
        count = "Both" if len(findings) == 2 else f"All {len(findings)}"
    return f"{count} {kind} emerge, {name} first, at {format_event(event)}"
