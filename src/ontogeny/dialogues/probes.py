"""Snapshot-then-probe: after a dialogue is complete, its first t rounds are followed by a question that is not part of it.

Two questions: one that shows whether the instruction is kept (adherence), one that asks for the instruction (recall). The same words in one
turn of the user are the control for length: as many tokens, without the turns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ontogeny.data.chats import Chat
from ontogeny.data.templates import Template
from ontogeny.dialogues.answers import ChatAnswer, answer_chats
from ontogeny.dialogues.instructions import RECALL_QUESTION
from ontogeny.dialogues.mitigations import PLAIN, Mitigation
from ontogeny.dialogues.self_chat import Dialogue, DialogueSettings, chats_that_fit
from ontogeny.models.model import Model
from ontogeny.steering.steer import Edit

ProbeKind = Literal["adherence", "recall", "one_turn", "no_system"]
"""`one_turn`: the words of the rounds in one turn of the user. `no_system`: the question alone, without the system prompt."""


@dataclass(frozen=True)
class ProbeAnswers:
    """The answers to a question after some rounds of a dialogue."""

    dialogue: Dialogue
    rounds: int
    kind: ProbeKind
    texts: tuple[str, ...]
    """Empty if the question was not asked."""
    lengths: tuple[int, ...]
    """Tokens of the answers."""
    history: int
    """Tokens of the prompt."""
    reason: str = ""
    """Why it was not asked."""


def probe_dialogues(
    model: Model,
    dialogues: Sequence[Dialogue],
    kind: ProbeKind,
    rounds: Sequence[int],
    settings: DialogueSettings,
    template: Template,
    mitigation: Mitigation = PLAIN,
    caps: Sequence[Edit] = (),
    *,
    recall_question: str = RECALL_QUESTION,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> list[ProbeAnswers]:
    """Ask the question after each number of rounds, `settings.runs` times.

    Args:
        rounds: Numbers of rounds before the question; 0 asks right after the system prompt.
    """
    answers = []
    for done, number in enumerate(rounds):
        on_round(done, len(rounds))
        chats = {i: _chat(one, kind, number, recall_question) for i, one in enumerate(dialogues)}
        asked = {i: chat for i, chat in chats.items() if chat is not None}
        fit = chats_that_fit(model, list(asked.values()), settings, template, mitigation) if asked else []
        asked = {i: chat for (i, chat), fits in zip(asked.items(), fit, strict=True) if fits}
        drawn: Mapping[int, list[ChatAnswer]] = {}
        if asked:
            texts = answer_chats(
                model, list(asked.values()), settings.decoding(settings.runs), template, mitigation, caps
            )
            drawn = dict(zip(asked, texts, strict=True))
        for i, one in enumerate(dialogues):
            own = drawn.get(i, [])
            reason = "" if own else (one.end or f"the question outgrows the context of {model.context} tokens")
            texts_of, lengths = tuple(a.text for a in own), tuple(len(a.ids) for a in own)
            history = len(own[0].prompt) if own else 0
            answers.append(ProbeAnswers(one, number, kind, texts_of, lengths, history, reason))
    return answers


def _chat(dialogue: Dialogue, kind: ProbeKind, rounds: int, recall_question: str) -> Chat | None:
    """Prompt of the model; None if the dialogue has fewer rounds."""
    if rounds > len(dialogue.answered):
        return None
    question = dialogue.pairing.agent.question
    match kind:
        case "recall":
            return dialogue.agent_chat(rounds, recall_question)
        case "one_turn":
            return dialogue.in_one_turn(rounds, question)
        case "no_system":
            return dialogue.agent_chat(rounds, question)[1:]
    return dialogue.agent_chat(rounds, question)
