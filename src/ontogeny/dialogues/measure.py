"""Everything measured of one model under one mitigation: dialogues, probes after each round, attention, capability."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ontogeny.data.templates import Template
from ontogeny.dialogues.attention_decay import attention_decay
from ontogeny.dialogues.capability import PLAIN_QUESTIONS, PlainQuestion, capability_margins
from ontogeny.dialogues.instructions import RECALL_QUESTION, Instruction
from ontogeny.dialogues.mitigations import PLAIN, Mitigation
from ontogeny.dialogues.persona_axis import persona_caps
from ontogeny.dialogues.probes import ProbeAnswers, ProbeKind, probe_dialogues
from ontogeny.dialogues.rows import (
    adherence_of,
    adherence_rows,
    attention_rows,
    capability_rows,
    curve_rows,
    recall_of,
    with_method,
)
from ontogeny.dialogues.self_chat import Dialogue, DialogueSettings, Pairing, pair_up, self_chat
from ontogeny.models.model import Model
from ontogeny.records import Record
from ontogeny.steering.steer import Edit

ActivityCallback = Callable[[str, int, int], None]
"""Called with an activity, how much of it is done, and of how much."""


@dataclass(frozen=True)
class DriftDesign:
    """Questions to a model."""

    agents: tuple[Instruction, ...]
    """Instructions whose observance is measured."""
    partners: tuple[Instruction, ...]
    """Instructions of the simulated users."""
    dialogues: DialogueSettings
    questions: tuple[PlainQuestion, ...] = PLAIN_QUESTIONS
    """Of capability."""
    recall_question: str = RECALL_QUESTION

    @property
    def answers(self) -> dict[str, int]:
        """Number of generated turns and answers by purpose, of the plain model; mitigated ones lack the last two."""
        many, d = len(self.agents) * self.dialogues.pairs, self.dialogues
        return {
            "turns": many * (2 * d.rounds - 1),
            "adherence": many * (d.rounds + 1) * d.runs,
            "recall": many * (d.rounds + 1) * d.runs,
            "one_turn": many * d.rounds * d.runs,
            "no_system": many * d.runs,
        }


def measure_drift(
    model: Model,
    design: DriftDesign,
    template: Template,
    mitigation: Mitigation = PLAIN,
    on_activity: ActivityCallback = lambda activity, done, total: None,
) -> list[Record]:
    """Rows of one model under one mitigation; controls and attention are measured of the plain model only.

    Args:
        template: A chat template, see `dialogue_template`.

    Raises:
        BadInput: the template fails, or the model cannot generate.
    """
    rows = _rows(
        model, design, _groups(model, design, template, mitigation, on_activity), template, mitigation, on_activity
    )
    return with_method(rows, mitigation.name, seed=design.dialogues.seed, split="test")


@dataclass(frozen=True, eq=False)
class _Group:
    """Dialogues that share their edits."""

    pairings: list[Pairing]
    caps: list[Edit]


def _groups(
    model: Model, design: DriftDesign, template: Template, mitigation: Mitigation, on_activity: ActivityCallback
) -> list[_Group]:
    """All dialogues; with capping those of each instruction, which has its own persona axis."""
    pairings = pair_up(design.agents, design.partners, design.dialogues)
    if mitigation.kind != "capping" or mitigation.is_noop:
        return [_Group(pairings, [])]
    groups = []
    for done, agent in enumerate(design.agents):
        on_activity(f"{mitigation.name}: persona axes", done, len(design.agents))
        caps = persona_caps(model, agent, mitigation.strength, design.dialogues, template)
        groups.append(_Group([one for one in pairings if one.agent == agent], caps))
    return groups


def _rows(
    model: Model,
    design: DriftDesign,
    groups: Sequence[_Group],
    template: Template,
    mitigation: Mitigation,
    on_activity: ActivityCallback,
) -> Iterator[Record]:
    settings, name = design.dialogues, mitigation.name
    every = range(settings.rounds + 1)

    def progress(activity: str) -> Callable[[int, int], None]:
        return lambda done, total: on_activity(f"{name}: {activity}", done, total)

    held = [
        self_chat(model, group.pairings, settings, template, mitigation, group.caps, progress("dialogues"))
        for group in groups
    ]

    def ask(kind: ProbeKind, rounds: Sequence[int]) -> list[ProbeAnswers]:
        report = progress(kind.replace("_", " "))
        return [
            answer
            for group, dialogues in zip(groups, held, strict=True)
            for answer in probe_dialogues(
                model, dialogues, kind, rounds, settings, template, mitigation, group.caps,
                recall_question=design.recall_question, on_round=report,
            )
        ]  # fmt: skip

    strangers = list(dict.fromkeys([*design.agents, *design.partners]))
    yield from adherence_rows(ask("adherence", every), strangers)
    yield from curve_rows("instruction_recall", ask("recall", every), recall_of)
    yield from _capability(model, design, groups, template, mitigation)
    if mitigation.kind != "plain":
        return
    yield from curve_rows("adherence", ask("one_turn", every[1:]), adherence_of, control="one_turn")
    yield from curve_rows("adherence", ask("no_system", every[:1]), adherence_of, control="no_system")
    yield from _attention(model, [one for dialogues in held for one in dialogues], template, settings.batch)


def _capability(
    model: Model, design: DriftDesign, groups: Sequence[_Group], template: Template, mitigation: Mitigation
) -> Iterator[Record]:
    margins = {
        agent.name: capability_margins(
            model, agent.system, design.questions, template, mitigation, group.caps, batch=design.dialogues.batch
        )
        for group in groups
        for agent in dict.fromkeys(one.agent for one in group.pairings)
    }
    return capability_rows(margins)


def _attention(model: Model, dialogues: Sequence[Dialogue], template: Template, batch: int) -> Iterator[Record]:
    own = [one for one in dialogues if one.answered]
    decays = attention_decay(model, own, template, batch=batch)
    return attention_rows([one.pairing.agent.name for one in own], decays, [one.pairing.number for one in own])
