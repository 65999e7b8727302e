"""Study: do types of a language emerge in phases, and is the step at which unseen pairs are accepted a power of their number?

A percolation model of emergence (arXiv:2408.12578). A language model learns sentences over entities and values with types, and random
bipartite graphs of the same sizes are grown beside it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ontogeny.claims.quantity import Curve, Event, Quantity
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record
from ontogeny.statistics.curve_collapse import collapse_spread, fit_collapse
from ontogeny.statistics.percolation import connected_share, percolation_curve, percolation_threshold
from ontogeny.statistics.power_laws import fit_power_law
from ontogeny.studies.percolation._claims import CLAIMS, GRAPHS, ISOLATED, LEVEL, MAIN, PRIVATE, SHARED, TOLERANCE
from ontogeny.studies.percolation._model import reveal_pairs, train_and_measure
from ontogeny.studies.percolation._panel import Measured
from ontogeny.studies.percolation._pictures import EVENTS, PICTURES
from ontogeny.studies.percolation._settings import Settings, check_settings, condition_of
from ontogeny.worlds import typed_sentences

__all__ = [
    "CHALLENGES",
    "CLAIMS",
    "DIFFERENCES",
    "PAPER",
    "PICTURES",
    "PRESETS",
    "SECONDS",
    "SETUP",
    "TITLE",
    "VERSION",
    "Settings",
    "run",
]

TITLE = "Percolation model of emergence"
PAPER = "A Percolation Model of Emergence: Analyzing Transformers Trained on a Formal Language, arXiv:2408.12578"
SETUP = """
A decoder of two blocks learns sentences in which the type of an entity decides its values, verbs and objects; of the valid pairs of an
entity and a value only a share ever occurs. Sequences are free sentences, scrambled sentences with their order, and sentences with given
words. Which rules are learned is read from the probability of the words that a rule allows, from minimal pairs and from what the model
writes; whether unseen pairs are accepted from their rank and probability. The number of values is doubled, and random bipartite graphs of
the same sizes are grown beside the model.
"""
DIFFERENCES = (
    "Four types of ten entities in place of ten types of 100 or 80, at most 640 values in place of 18,000; no adverbs, adjectives or "
    "identifiers, and joined subjects have no values of their own.",
    "A rule counts as learned half of the way from chance to certainty of the probability on words that it allows, which needs no samples; "
    "samples and minimal pairs are beside it.",
    "Rows hold several sequences without padding, so that no loss is averaged over padding.",
    "The steps of the earlier phases hardly depend on the number of values. They are part of every later step, which lowers its exponent; "
    "the exponent of the step counted from the types of relations on is a row as well, and no claim.",
    "Private values are not a null run of inference, since verbs tell types; a run without typed verbs is.",
    "Sentences are checked by a finite automaton and type tables, not by a Viterbi parser.",
)
CHALLENGES = (2, 3, 4)
VERSION = 2
PRESETS: Mapping[str, Settings] = {
    "smoke": Settings(
        pairs=1, entities=5, properties=1, values=5, shown=0.4, relations=2, factors=(1, 2), steps=30, rate=0.03, rows=8, longest=6,
        context=17, width=16, layers=1, measured=8, sentences=12, minimal_pairs=6, prompts=4, draws=3,
    ),
    "tiny": Settings(),
    "small": Settings(
        entities=20, properties=4, factors=(1, 2, 4, 8), steps=4000, rate=1e-3, rows=48, width=128, measured=60, sentences=512,
        minimal_pairs=256, prompts=256, draws=100,
    ),
    "paper": Settings(
        pairs=5, entities=90, properties=11, values=40, shown=0.1, relations=20, factors=(1, 2, 4), steps=100_000, rate=1e-3, rows=128,
        longest=50, context=128, width=128, measured=1000, sentences=512, minimal_pairs=512, prompts=512, draws=100,
    ),
}  # fmt: skip
_RIGHT = {"write": "values typed", "order": "right", "use": "right"}
"""Part of each task's sentences that counts as right."""
_RIGHT_WITHOUT_TYPES = {"write": "grammatical", "order": "right", "use": "right but for types"}
_BOUNDARIES = 32
"""Steps, evenly spaced in the logarithm, over which the change of a gain is averaged."""
SECONDS = {"smoke": 2, "tiny": 60, "small": 3500, "paper": 4_000_000}


def run(settings: Settings, lab: Lab) -> Iterator[Record]:
    """Rows of one seed."""
    check_settings(settings)
    plan: list[tuple[str, int, str | None]] = [("typed", factor, None) for factor in settings.factors]
    plan += [("typed", 1, "same_size")] * (len(settings.factors) - 1)
    plan += [("shuffled", settings.main, "shuffled_types"), ("private", 1, PRIVATE), ("isolated", 1, ISOLATED)]
    typed: dict[int, list[Measured]] = {}
    same: list[list[Measured]] = []
    for place, (structure, factor, control) in enumerate(plan):
        lab.on_activity(f"{condition_of(factor)}, {structure}", place, len(plan))
        main = structure == "typed" and factor == settings.main and control is None
        seed = lab.seed + 1000 * place
        whole = main or structure == "shuffled"
        numbers = list(train_and_measure(settings, settings.world(factor, structure, seed), seed, whole=whole))
        if control is None:
            typed[factor] = numbers
            yield from _size_rows(lab, settings, factor, numbers)
            if main:
                yield from _main_rows(lab, settings, numbers, seed)
        elif control == "same_size":
            same.append(numbers)
        elif control == "shuffled_types":
            yield from _panel_rows(lab, numbers, control)
            yield from _task_rows(lab, numbers, control)
            yield from _jump_rows(lab, typed[settings.main], numbers)
        else:
            yield from _unseen_rows(lab, numbers, control or MAIN, None)
            yield from _unseen_rows(lab, same[0], control or MAIN, "both_shared")
    for name in (None, "both_shared"):
        yield from _unseen_rows(lab, typed[1], SHARED, name)
    yield from _size_null_rows(lab, settings, [typed[1], *same])
    yield from _scaling_rows(lab, settings, [typed[f] for f in settings.factors], None)
    yield from _scaling_rows(lab, settings, [typed[1], *same], "same_size")
    yield from _graph_rows(lab, settings)


def curve_of(numbers: Sequence[Measured], metric: str) -> Curve:
    """One metric over training."""
    points = [(m.step, m.value) for m in numbers if m.metric == metric]
    steps, values = np.array(points, dtype=np.float64).T
    return steps, values


def event_step(numbers: Sequence[Measured], metric: str) -> float:
    """Step at which a metric reaches LEVEL for two measured steps; infinite if it does not."""
    return Event(Quantity(metric), LEVEL, hold=2).step(curve_of(numbers, metric))


def _panel_rows(lab: Lab, numbers: Sequence[Measured], control: str | None) -> Iterator[Record]:
    """All numbers of a run under the main condition, and the starting points that claims compare with."""
    for m in numbers:
        if m.metric not in ("task", "relation_half"):
            coords: dict[str, Any] = dict(m.coords)
            yield lab.row(m.metric, m.value, MAIN, step=m.step, n=m.n, control=control, **coords)
    first = next(m for m in numbers if m.metric == "unseen_accepted")
    yield lab.row("untrained_accepted", first.value, MAIN, n=first.n, control=control)
    yield lab.row("chance_accuracy", 0.5, MAIN, control=control)


def _main_rows(lab: Lab, settings: Settings, numbers: Sequence[Measured], seed: int) -> Iterator[Record]:
    yield from _panel_rows(lab, numbers, None)
    for m in numbers:
        if m.metric in EVENTS:
            yield lab.row("learned", m.value, EVENTS[m.metric], step=m.step, n=m.n)
    # In this null run all three rules are one, measured on two halves of its places.
    halves = {half: [m for m in numbers if m.metric == "relation_half" and m.coords["half"] == half] for half in "12"}
    for metric, half in (("grammar_learned", "1"), ("relation_learned", "2"), ("value_learned", "1")):
        for m in halves[half]:
            yield lab.row(metric, m.value, MAIN, step=m.step, n=m.n, control="two_halves")
    yield from _other_rows(lab, settings, numbers, seed)
    for m in numbers:
        if m.metric == "task":
            yield lab.row("task", m.value, m.coords["task"], step=m.step, n=m.n, part=m.coords["part"])
    yield from _task_rows(lab, numbers, None)


def _other_rows(lab: Lab, settings: Settings, numbers: Sequence[Measured], seed: int) -> Iterator[Record]:
    """Null of `connection_first`: the pairs shown by two streams of training rows of one language."""
    steps, values = curve_of(numbers, "connected_share")
    world = typed_sentences.make(settings.world(settings.main, "typed", seed))
    revealed, share = np.zeros_like(world.seen), 0.0
    marks = set(steps.astype(int).tolist())
    for step, value in zip(steps, values, strict=True):
        yield lab.row("connected_share", value, MAIN, step=int(step), control="other_rows")
    for step in range(settings.steps + 1):
        if step and share < 1:
            rows = typed_sentences.sample(world, np.random.default_rng([seed + 1, step]), settings.rows)
            reveal_pairs(world, rows, revealed)
        if step in marks:
            share = connected_share(np.where(revealed, 2, world.valid & ~world.seen)) if share < 1 else share
            yield lab.row("unseen_learned", share, MAIN, step=step, control="other_rows")


def right_answers(numbers: Sequence[Measured], task: str, *, typed: bool) -> list[Measured]:
    """Right sentences of a task; in a language without types those of right form and words."""
    part = (_RIGHT if typed else _RIGHT_WITHOUT_TYPES)[task]
    return [m for m in numbers if m.metric == "task" and m.coords == {"task": task, "part": part}]


def _task_rows(lab: Lab, numbers: Sequence[Measured], control: str | None) -> Iterator[Record]:
    for task in _RIGHT:
        for m in right_answers(numbers, task, typed=control is None):
            yield lab.row("right_sentences", m.value, task, step=m.step, n=m.n, control=control)


def _jump_rows(lab: Lab, typed: Sequence[Measured], untyped: Sequence[Measured]) -> Iterator[Record]:
    """How much more a doubling of steps gains after the types of values are learned than before, and in the language without types.

    In the null run it is the mean over all steps, at which nothing happens in particular.
    """
    # Half of what is learned in the end, so that the boundary exists in every run.
    boundary = Event(Quantity("value_learned"), 0.5, relative=True).step(curve_of(typed, "value_learned"))
    for task in _RIGHT:
        for metric, numbers in (("gain_change", typed), ("untyped_gain_change", untyped)):
            own = right_answers(numbers, task, typed=numbers is typed)
            curve = curve_of(own, "task")
            everywhere = np.geomspace(2, max(curve[0][-1] / 2, 2), _BOUNDARIES)
            mean = float(np.mean([gain_change(curve, step) for step in everywhere]))
            for value, control in ((gain_change(curve, boundary), None), (mean, "all_steps")):
                yield lab.row(metric, value, task, control=control, n=own[0].n)


def gain_change(curve: Curve, boundary: float) -> float:
    """Gain in the doubling of steps after a boundary, minus that in the doubling before it."""
    low, at, high = np.interp([boundary / 2, boundary, 2 * boundary], *curve)
    return float(high - 2 * at + low)


def _size_rows(lab: Lab, settings: Settings, factor: int, numbers: Sequence[Measured]) -> Iterator[Record]:
    """Curves of unseen pairs, and the events, of one number of values."""
    condition, count = condition_of(factor), settings.world(factor, "typed", lab.seed).value_count
    yield from _unseen_rows(lab, numbers, condition, None)
    for metric, name in EVENTS.items():
        at = event_step(numbers, metric)
        yield lab.row("event_step", at, f"{name}, {condition}", reason="the event did not happen")
        yield lab.row("number_of_values", count, f"{name}, {condition}")


def _size_null_rows(lab: Lab, settings: Settings, runs: Sequence[Sequence[Measured]]) -> Iterator[Record]:
    """Null of the exponents: every condition has the fewest values."""
    for factor, numbers in zip(settings.factors, runs, strict=True):
        yield from _unseen_rows(lab, numbers, condition_of(factor), "same_size")


def _unseen_rows(lab: Lab, numbers: Sequence[Measured], condition: str, control: str | None) -> Iterator[Record]:
    """Unseen pairs under a condition."""
    for m in numbers:
        if m.metric == "unseen_learned":
            yield lab.row(m.metric, m.value, condition, step=m.step, n=m.n, control=control)


def _scaling_rows(
    lab: Lab, settings: Settings, runs: Sequence[Sequence[Measured]], control: str | None
) -> Iterator[Record]:
    """Exponents of all events, the collapse, and curves over the rescaled step."""
    sizes = np.array(settings.factors, dtype=np.float64)
    times = {name: np.array([event_step(numbers, metric) for numbers in runs]) for metric, name in EVENTS.items()}
    # The rules before take their time whatever the number of values.
    before = np.where(np.isfinite(times["relations"]), times["relations"], math.nan)
    times["unseen pairs, after relations"] = times["unseen pairs"] - before
    for name, steps in times.items():
        fit = fit_power_law(sizes, steps)
        reason = "the event happened in fewer than two conditions"
        yield lab.row(
            "exponent",
            fit.exponent,
            name,
            control=control,
            n=max(fit.points, 1),
            low=fit.low,
            high=fit.high,
            reason=reason,
        )
    curves = [curve_of(numbers, "unseen_learned") for numbers in runs]
    best = fit_collapse([curves], list(sizes))
    yield from _exponent_rows(lab, best.exponent, MAIN, control)
    spreads = {e: collapse_spread(curves, list(sizes), e) for e in (0.0, 0.5)}
    for metric, value in (
        ("spread_unscaled", spreads[0.0]), ("spread_square_root", spreads[0.5]), ("spread_best", best.spread),
        ("collapse_exponent", best.exponent), ("collapse_p", best.p),
    ):  # fmt: skip
        yield lab.row(metric, value, MAIN, control=control, n=len(curves), reason="all curves are flat")
    if control is None:
        for metric, exponent in (("rescaled_root", 0.5), ("rescaled_best", best.exponent)):
            for factor, (steps, values) in zip(settings.factors, curves, strict=True):
                # Read at the steps of the fewest values, so that all seeds and sizes have the same ones.
                for step in curves[0][0][1:].astype(int).tolist():
                    if (own := step * factor**exponent) <= steps[-1]:
                        value = float(np.interp(math.log(own), np.log(steps[1:]), values[1:]))
                        yield lab.row(metric, value, condition_of(factor), step=step)


def _exponent_rows(lab: Lab, exponent: float, condition: str, control: str | None) -> Iterator[Record]:
    reason = "the exponent is not known"
    yield lab.row("exponent_distance", abs(exponent - 0.5), condition, control=control, reason=reason)
    yield lab.row("exponent_tolerance", TOLERANCE, condition, control=control)


def _graph_rows(lab: Lab, settings: Settings) -> Iterator[Record]:
    """Random bipartite graphs of the sizes of the conditions; in the null run all have the smallest."""
    entities = settings.world(1, "typed", 0).entity_count
    counts = [settings.world(factor, "typed", 0).value_count for factor in settings.factors]
    for control, sizes in ((None, counts), ("same_size", [counts[0]] * len(counts))):
        transitions = []
        for place, (factor, count) in enumerate(zip(settings.factors, sizes, strict=True)):
            curve = percolation_curve(entities, count, draws=settings.draws, seed=1000 * lab.seed + place)
            transitions.append(float(curve.transition().mean()))
            if control is None:
                threshold = percolation_threshold(entities, count)
                for share in range(0, 301, 10):
                    at = min(round(share / 100 * threshold), len(curve.edges) - 1)
                    value = float(curve.largest[:, at].mean())
                    yield lab.row("graph_largest", value, condition_of(factor), step=share, n=settings.draws)
        fit = fit_power_law(np.array(settings.factors, dtype=np.float64), np.array(transitions))
        yield lab.row("exponent", fit.exponent, GRAPHS, control=control, n=len(sizes), low=fit.low, high=fit.high)
        yield from _exponent_rows(lab, fit.exponent, GRAPHS, control)
