"""Rows of drift: adherence, adoption and recall by round, with intervals over dialogues, and their controls."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dialogues.attention_decay import AttentionDecay
from ontogeny.dialogues.instructions import Instruction
from ontogeny.dialogues.judges import degenerate_reason
from ontogeny.dialogues.probes import ProbeAnswers
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import Interval
from ontogeny.statistics.cross_fitting import cross_fit_interval, cross_fit_mean, group_variance

_Score = Callable[[ProbeAnswers], Sequence[float]]


def clustered_mean(values: Sequence[float], groups: Sequence[int], *, share: bool) -> tuple[float, float, float]:
    """Mean with the ends of its 95 % t-interval over groups; NaN ends for a single group.

    Args:
        share: Whether values are between 0 and 1, for an interval on the logit scale.
    """
    if not values:
        return math.nan, math.nan, math.nan
    table, member = torch.tensor([list(values)], dtype=torch.float64), torch.tensor(list(groups))
    score = cross_fit_mean(table)
    if len(set(groups)) < 2:
        return float(score.value), math.nan, math.nan
    ends = cross_fit_interval(score.value, group_variance(score.influence, member), torch.zeros(1), share=share)
    return float(score.value), float(ends.low), float(ends.high)


def adherence_of(answers: ProbeAnswers) -> list[float]:
    """How far each answer keeps the agent's instruction."""
    return [answers.dialogue.pairing.agent.adherence(text) for text in answers.texts]


def adoption_of(answers: ProbeAnswers) -> list[float]:
    """How far each answer keeps the partner's instruction, which the agent was never given."""
    return [answers.dialogue.pairing.partner.adherence(text) for text in answers.texts]


def recall_of(answers: ProbeAnswers) -> list[float]:
    """Share of the keywords of the agent's instruction in each answer."""
    return [answers.dialogue.pairing.agent.recall(text) for text in answers.texts]


def stranger_adherence(answers: ProbeAnswers, strangers: Sequence[Instruction]) -> list[float]:
    """How far each answer keeps the instructions of neither party, on average: the null of adoption."""
    pairing = answers.dialogue.pairing
    others = [one for one in strangers if one.name not in (pairing.agent.name, pairing.partner.name)]
    if not others:
        return []
    return [sum(one.adherence(text) for one in others) / len(others) for text in answers.texts]


def curve_rows(
    metric: str, answers: Sequence[ProbeAnswers], score: _Score, *, control: str | None = None, share: bool = True
) -> Iterator[Record]:
    """A metric by round, of each instruction and (without a concept) of all, with intervals over dialogues."""
    for agent, own in _by_agent(answers):
        for number in sorted({one.rounds for one in own}):
            yield _curve_row(metric, agent, [one for one in own if one.rounds == number], score, control, share)


def _by_agent(answers: Sequence[ProbeAnswers]) -> Iterator[tuple[str | None, list[ProbeAnswers]]]:
    names = list(dict.fromkeys(one.dialogue.pairing.agent.name for one in answers))
    for name in names:
        yield name, [one for one in answers if one.dialogue.pairing.agent.name == name]
    if len(names) > 1:
        yield None, list(answers)


def _curve_row(
    metric: str,
    agent: str | None,
    answers: Sequence[ProbeAnswers],
    score: _Score,
    control: str | None,
    share: bool,
) -> Record:
    pairs = [(value, one.dialogue.pairing.number) for one in answers for value in score(one)]
    value, low, high = clustered_mean([v for v, _ in pairs], [g for _, g in pairs], share=share)
    lost = [one.reason for one in answers if not one.texts]
    note = f"{len(lost)} of {len(answers)} dialogues are missing: {lost[0]}" if lost and pairs else None
    histories = [one.history for one in answers if one.texts]
    coords = {"rounds": answers[0].rounds, "dialogues": len({g for _, g in pairs})}
    if histories:
        coords["history_tokens"] = round(sum(histories) / len(histories))
    return make_record(
        metric,
        value,
        n=len(pairs),
        interval=(low, high),
        note=note,
        reason=lost[0] if lost else "there is no instruction of neither party: name a third one",
        concept=agent,
        control=control,
        coords={key: str(part) for key, part in coords.items()},
    )


def change_rows(
    metric: str, answers: Sequence[ProbeAnswers], score: _Score, *, control: str | None = None
) -> Iterator[Record]:
    """Last round minus the first, of each instruction and of all, paired by dialogue."""
    rounds = sorted({one.rounds for one in answers})
    means = {
        (one.dialogue.pairing.number, one.rounds): sum(values) / len(values)
        for one in answers
        if (values := score(one))
    }
    for agent, own in _by_agent(answers):
        numbers = sorted({one.dialogue.pairing.number for one in own})
        both = [i for i in numbers if (i, rounds[0]) in means and (i, rounds[-1]) in means]
        changes = [means[i, rounds[-1]] - means[i, rounds[0]] for i in both]
        value, low, high = clustered_mean(changes, both, share=False)
        yield make_record(
            metric,
            value,
            n=len(both),
            interval=(low, high),
            reason="no dialogue reached the last round, or there is no instruction of neither party",
            concept=agent,
            control=control,
            coords={"rounds": str(rounds[-1]), "first_rounds": str(rounds[0])},
        )


def adherence_rows(answers: Sequence[ProbeAnswers], strangers: Sequence[Instruction]) -> Iterator[Record]:
    """Adherence, adoption with its null, degenerate answers and their lengths by round, and the changes over the dialogue."""
    yield from curve_rows("adherence", answers, adherence_of)
    yield from change_rows("adherence_change", answers, adherence_of)
    yield from curve_rows("adoption", answers, adoption_of)
    yield from change_rows("adoption_change", answers, adoption_of)
    yield from curve_rows("adoption", answers, lambda one: stranger_adherence(one, strangers), control="stranger")
    yield from change_rows(
        "adoption_change", answers, lambda one: stranger_adherence(one, strangers), control="stranger"
    )
    yield from curve_rows("instruction_recall", answers, recall_of, control="not_asked")
    yield from curve_rows("degenerate_share", answers, _degenerate)
    yield from curve_rows("answer_tokens", answers, lambda one: [float(n) for n in one.lengths], share=False)


def _degenerate(answers: ProbeAnswers) -> list[float]:
    return [float(degenerate_reason(text) is not None) for text in answers.texts]


def attention_rows(agents: Sequence[str], decays: Sequence[AttentionDecay], numbers: Sequence[int]) -> Iterator[Record]:
    """π by instruction, head and round, its mean over heads, and its drops between turns with the null within turns.

    Args:
        agents: Name of the agent's instruction in each dialogue.
        numbers: Number of each dialogue.
    """
    names = list(dict.fromkeys(agents))
    groups: list[tuple[str | None, list[int]]] = [
        (name, [i for i, other in enumerate(agents) if other == name]) for name in names
    ]
    if len(names) > 1:
        groups.append((None, list(range(len(agents)))))
    for agent, own in groups:
        for number in range(max(decays[i].mass.shape[-1] for i in own)):
            known = [i for i in own if decays[i].mass.shape[-1] > number]
            yield from _mass_rows(agent, number, [decays[i] for i in known], [numbers[i] for i in known])
        drops = [(None, [decays[i].between for i in own]), ("within_turns", [decays[i].within for i in own])]
        for control, values in drops:
            measured = [(v, numbers[i]) for v, i in zip(values, own, strict=True) if not math.isnan(v)]
            value, low, high = clustered_mean([v for v, _ in measured], [g for _, g in measured], share=False)
            yield make_record(
                "attention_drop",
                value,
                n=len(measured),
                interval=(low, high),
                reason="the turns are too short, or the template rewrites earlier ones",
                concept=agent,
                control=control,
            )


def _mass_rows(
    agent: str | None, number: int, decays: Sequence[AttentionDecay], numbers: Sequence[int]
) -> Iterator[Record]:
    """Of each head, for one instruction, and of the mean over heads (without a site)."""
    mass = torch.stack([one.mass[..., number] for one in decays], -1).double()
    tokens = sum(one.tokens[number] for one in decays) / len(decays)
    columns: dict[str, Any] = {
        "concept": agent,
        "coords": {"rounds": str(number), "history_tokens": str(round(tokens))},
    }
    value, low, high = clustered_mean(mass.mean((0, 1)).tolist(), numbers, share=True)
    yield make_record("attention_mass", value, n=len(decays), interval=(low, high), **columns)
    if agent is None:
        return
    score = cross_fit_mean(mass.flatten(0, 1))
    if len(decays) > 1:
        variance = group_variance(score.influence, torch.tensor(list(numbers)))
        ends = cross_fit_interval(score.value, variance, torch.zeros(len(score.value)), share=True)
    else:
        ends = Interval(*torch.full((2, len(score.value)), math.nan))
    for cell, one in enumerate(score.value.tolist()):
        layer, head = divmod(cell, mass.shape[1])
        site = Site("head", layer + 1, head)
        yield make_record("attention_mass", one, n=len(decays), site=site, interval=ends[cell].ends, **columns)


def capability_rows(margins: Mapping[str, Float[Tensor, " question"]]) -> Iterator[Record]:
    """Accuracy and mean margin on plain questions after the system prompt of each instruction, and of all; clusters are questions."""
    numbers = list(range(len(next(iter(margins.values())))))
    pooled: list[tuple[str | None, Tensor]] = [*margins.items()]
    if len(margins) > 1:
        pooled.append((None, torch.cat(list(margins.values()))))
    for agent, own in pooled:
        groups = numbers * (len(own) // len(numbers))
        for metric, values, share in (
            ("capability_accuracy", (own > 0).double(), True),
            ("capability_margin", own, False),
        ):
            value, low, high = clustered_mean(values.tolist(), groups, share=share)
            yield make_record(metric, value, n=len(groups), interval=(low, high), concept=agent)


def with_method(records: Iterator[Record], method: str, **columns: Any) -> list[Record]:
    """The records with the name of a mitigation as their method."""
    return [replace(record, method=method, **columns) for record in records]
