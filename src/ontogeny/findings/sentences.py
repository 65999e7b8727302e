"""Findings as sentences, made from rows: events, missing events, and caveats."""

import math

from ontogeny.findings.finding import FLOOR_LABELS, Finding, IntervalEstimate, StepEstimate

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


def format_step(step: float) -> str:
    """A step with thousands separators: 143,000; a step between two checkpoints is rounded."""
    return "–" if math.isnan(step) else f"{step:,.0f}" if step >= 10 or step == int(step) else f"{step:.1f}"


def format_step_interval(event: StepEstimate) -> str:
    """A step with its interval: 512 (256–724)."""
    if not event.known or math.isnan(event.low) or math.isnan(event.high):
        return format_step(event.step)
    return f"{format_step(event.step)} ({format_step(event.low)}–{format_step(event.high)})"


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
        "head": f"in head {head} of block {layer}",
    }
    return words.get(part, f"at {site}")


def format_control_task(finding: Finding) -> str:
    """Accuracy and the accuracy on random labels: .86 / .53."""
    pair = finding.accuracy, finding.control_task
    return " / ".join("–" if reading is None else format_score(reading.value) for reading in pair)


def finding_sentences(finding: Finding) -> list[str]:
    """Sentences about a concept; each continues its name ('`truth` …')."""
    return [text for text in (_emergence(finding), _loss(finding), _use(finding), _phase(finding)) if text]


def caveats(finding: Finding) -> list[str]:
    """Reasons to doubt the score; each sentence continues the concept's name."""
    texts = []
    surface = {
        c: f for c, f in finding.floors.items() if c.startswith("surface_") and f.known and finding.metric != "r2"
    }
    for control, floor in surface.items():
        if floor.value >= _SURFACE_WARNING_SCORE:
            little = "little" if finding.final.low > floor.value else "nothing"
            texts.append(
                f"can be told from {FLOOR_LABELS[control]} alone at {format_score(floor.value)}: "
                f"a probe at {format_score(finding.final.value)} shows {little} beyond that."
            )
    near = [c for c, f in surface.items() if f.value < _SURFACE_WARNING_SCORE and finding.final.low <= f.value]
    if near:
        listed = ", ".join(f"{FLOOR_LABELS[c]} ({format_score(surface[c].value)})" for c in near)
        texts.append(f"is not shown to be read better than from the surface of the text: {listed}.")
    inner = {c: f for c in ("untrained", "random_direction") if (f := finding.floors.get(c)) and f.known}
    within = [c for c, f in inner.items() if finding.final.low <= f.value]
    if within:
        listed = " or ".join(f"{_CONTROL_PHRASES[c]} ({format_score(inner[c].value)})" for c in within)
        texts.append(f"is not shown to be read better than {listed}.")
    if finding.control_task is not None and finding.accuracy is not None:
        scored, memory = finding.accuracy.value, finding.control_task.value
        if scored <= memory:
            scores = f"accuracy {format_score(scored)} against {format_score(memory)} on the control task"
            texts.append(f"is read no better than random labels of its words: {scores}.")
    if finding.chosen_by != "cv_score":
        texts.append(
            "has its site chosen by the final test score, so that score is optimistic: no cv_score in the table."
        )
    if not finding.final.known:
        texts.append(f"could not be scored at the last checkpoint: {finding.final.note or 'no reason given'}.")
    return texts


def _emergence(finding: Finding) -> str:
    scored = f"{SCORE_LABELS[finding.metric]} {format_interval(finding.final)} at the last checkpoint{_floors(finding)}"
    event = finding.emergence
    if event is not None and event.known:
        sure = "" if math.isnan(event.low) else f" (95 % interval {format_step(event.low)}–{format_step(event.high)})"
        return f"becomes readable at step {format_step(event.step)}{_stage(finding, event)}{sure} {describe_site(finding.site)}: {scored}."
    if event is not None:
        return f"shows no emergence: {event.note or 'no reason given'}. Best {describe_site(finding.site)}, {scored}."
    if not finding.final.known:
        return ""
    return f"is read best {describe_site(finding.site)}: {scored}; when it emerged was not measured."


def _stage(finding: Finding, event: StepEstimate) -> str:
    return f" of {event.stage}" if event.stage and finding.curve["stage"].nunique() > 1 else ""


def _floors(finding: Finding) -> str:
    known = [(FLOOR_LABELS[c], floor.value) for c, floor in finding.floors.items() if floor.known]
    text = "; floors: " + ", ".join(f"{name} {format_score(value)}" for name, value in known) if known else ""
    if finding.control_task is None or finding.accuracy is None or "control_task" in finding.floors:
        return text
    return f"{text}; accuracy {format_score(finding.accuracy.value)} against {format_score(finding.control_task.value)} on the control task"


def _loss(finding: Finding) -> str:
    if finding.loss is None or not finding.loss.known:
        return ""
    at = f"{format_step_interval(finding.loss)}{_stage(finding, finding.loss)}"
    score_after = finding.after_loss
    if finding.weakened and score_after is not None:
        end = f"the end of {finding.loss.stage}" if _stage(finding, finding.loss) else "the last checkpoint"
        score = f"{SCORE_LABELS[finding.metric]} {format_interval(score_after)}"
        return f"is read less well from step {at} on: {score} at {end}, still above its floors."
    again = " again" if finding.emergence is not None and finding.emergence.known else ""
    return f"is lost{again} at step {at}."


def _use(finding: Finding) -> str:
    if finding.used is None:
        return ""
    if not finding.used.known:
        return f"is not shown to be used in behaviour: {finding.used.note or 'no reason given'}."
    text = f"is used in behaviour from step {format_step_interval(finding.used)}{_stage(finding, finding.used)}"
    gap = finding.readable_minus_used
    if gap is None or not gap.known:
        return f"{text}{_stage_order(finding)}."
    sure = "" if math.isnan(gap.low) else f" [{_signed(gap.low)}, {_signed(gap.high)}]"
    if math.isnan(gap.low) or gap.low <= 0 <= gap.high:
        return f"{text}; which came first is not settled (readable − used: {_signed(gap.value)} doublings{sure})."
    order = "readable before it is used" if gap.value < 0 else "used before it is readable"
    return f"{text}: {order} (readable − used: {_signed(gap.value)} doublings{sure})."


def _stage_order(finding: Finding) -> str:
    """The order of two events in different stages, which no number of doublings separates."""
    read, used = finding.emergence, finding.used
    order = list(finding.curve["stage"].unique())
    if read is None or used is None or not read.known or not {read.stage, used.stage} <= set(order):
        return ""
    gap = order.index(read.stage) - order.index(used.stage)
    if gap == 0:
        return ""
    return ": readable in an earlier stage" if gap < 0 else ": used in an earlier stage than readable"


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(value):.1f}"


def _phase(finding: Finding) -> str:
    event = finding.change_point
    if event is None:
        return ""
    if not event.known:
        return f"shows no turn from fitting to compression: {event.note or 'no reason given'}."
    at = f"{format_step_interval(event)}{_stage(finding, event)}"
    return f"turns from fitting to compression (dependence on the input begins to fall) at step {at}."
