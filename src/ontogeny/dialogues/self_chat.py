"""Self-chat: a model with a system prompt talks to itself in the role of a user with another one (arXiv:2402.10962).

The agent answers the user's turns. The simulated user has its own system prompt; in its view roles are swapped, and the first question and
answer are one message.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ontogeny.data.chats import Chat
from ontogeny.data.templates import Template
from ontogeny.dialogues.answers import answer_chats
from ontogeny.dialogues.instructions import Instruction
from ontogeny.dialogues.mitigated_prompts import mitigated_chats
from ontogeny.dialogues.mitigations import PLAIN, Mitigation
from ontogeny.dialogues.prompts import chat_prompts
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.generate import DecodingConfig
from ontogeny.steering.steer import Edit

OPENINGS = (
    "Tell me about the sea.", "What makes a good breakfast?", "How do birds find their way?", "Let us talk about music.",
    "What is your favourite season, and why?", "How does bread rise?", "Tell me about old bridges.", "What should I read next?",
    "How do I learn to swim?", "Why is the sky dark at night?", "Let us plan a garden.", "What is a good game for two?",
    "How do trains stay on their rails?", "Tell me about mountains.", "What can I cook with potatoes?", "How do I sleep better?",
    "Tell me about a city that you like.", "Why do cats purr?", "How do I begin to draw?", "What is a fair price for a used bicycle?",
    "Tell me about the moon.", "How do bees make honey?", "Let us talk about films.", "What should I pack for a long walk?",
)  # fmt: skip
"""First turns of the user."""


@dataclass(frozen=True)
class DialogueSettings:
    """How dialogues are held and probed."""

    rounds: int = 8
    """Each a turn of the user and one of the agent."""
    pairs: int = 6
    """Dialogues of each instruction, with different partners and openings."""
    runs: int = 2
    """Answers to a probe question after each round."""
    tokens: int = 60
    """Maximum number of new tokens of a turn, of both speakers."""
    temperature: float = 1.0
    top_p: float = 0.9
    relay: str = "You asked me: {question}\n\nI answered: {answer}"
    """First message that the simulated user sees."""
    openings: tuple[str, ...] = OPENINGS
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("pairs", 2), ("runs", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"`{name}` must be at least {least}, got {getattr(self, name)}: choose a larger number.")
        if self.temperature == 0 and self.runs > 1:
            raise BadInput(f"`runs` must be 1 without sampling, got {self.runs}: set `temperature` above 0.")
        self.decoding(1)

    def decoding(self, samples: int) -> DecodingConfig:
        """How the next token is chosen."""
        return DecodingConfig(
            tokens=self.tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            samples=samples,
            seed=self.seed,
            batch=self.batch,
        )


@dataclass(frozen=True)
class Pairing:
    """Who talks, and about what."""

    agent: Instruction
    partner: Instruction
    """Of the simulated user."""
    opening: str
    number: int
    """Of the dialogue, which is the unit of intervals."""


@dataclass(frozen=True)
class Dialogue:
    """A dialogue so far."""

    pairing: Pairing
    asked: tuple[str, ...]
    """Turns of the user; the first is the opening."""
    answered: tuple[str, ...] = ()
    """Turns of the agent."""
    lengths: tuple[int, ...] = ()
    """Tokens of the agent's turns."""
    end: str | None = None
    """Why it ended before all rounds."""

    def agent_chat(self, rounds: int, question: str | None = None) -> Chat:
        """Prompt of the agent after some rounds, with a question as the user's next turn."""
        turns: list[tuple[str, str]] = [("system", self.pairing.agent.system)]
        for asked, answered in zip(self.asked[:rounds], self.answered[:rounds], strict=True):
            turns += [("user", asked), ("assistant", answered)]
        return (*turns, ("user", question)) if question is not None else tuple(turns)

    def partner_chat(self, relay: str) -> Chat:
        """Prompt of the simulated user before its next turn."""
        first = relay.format(question=self.asked[0], answer=self.answered[0])
        turns: list[tuple[str, str]] = [("system", self.pairing.partner.system), ("user", first)]
        for asked, answered in zip(self.asked[1:], self.answered[1:], strict=True):
            turns += [("assistant", asked), ("user", answered)]
        return tuple(turns)

    def in_one_turn(self, rounds: int, question: str) -> Chat:
        """The words of the first rounds and a question in one turn of the user: as many tokens, without the turns."""
        words = [part for pair in zip(self.asked[:rounds], self.answered[:rounds], strict=True) for part in pair]
        return (("system", self.pairing.agent.system), ("user", "\n\n".join([*words, question])))


def pair_up(
    agents: Sequence[Instruction], partners: Sequence[Instruction], settings: DialogueSettings
) -> list[Pairing]:
    """`settings.pairs` dialogues of each agent, with other instructions as partners and openings in a random order.

    Raises:
        BadInput: an agent has no other instruction as a partner, or there are no openings.
    """
    if not settings.openings:
        raise BadInput("`openings` must have at least one text, got none: leave it at its default.")
    pairings: list[Pairing] = []
    for agent in agents:
        others = [one for one in partners if one.name != agent.name]
        if not others:
            raise BadInput(f"{agent.name} needs a partner with another instruction, got none: name a second one.")
        rng = np.random.default_rng([settings.seed, *agent.name.encode()])
        openings, order = rng.permutation(len(settings.openings)), rng.permutation(len(others))
        for i in range(settings.pairs):
            opening = settings.openings[openings[i % len(openings)]]
            pairings.append(Pairing(agent, others[order[i % len(others)]], opening, len(pairings)))
    return pairings


def self_chat(
    model: Model,
    pairings: Sequence[Pairing],
    settings: DialogueSettings,
    template: Template,
    mitigation: Mitigation = PLAIN,
    caps: Sequence[Edit] = (),
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> list[Dialogue]:
    """Hold the dialogues; the mitigation acts on the agent only. One that outgrows the context ends early.

    Args:
        caps: Edits of `capping`, for agents of one instruction.
        on_round: Called with the rounds that are done and their number.
    """
    dialogues = [Dialogue(pairing, (pairing.opening,)) for pairing in pairings]
    for number in range(settings.rounds):
        on_round(number, settings.rounds)
        chats = {i: one.agent_chat(number, one.asked[number]) for i, one in enumerate(dialogues) if one.end is None}
        for i, answer in _turn(model, dialogues, chats, settings, template, mitigation, caps).items():
            one = dialogues[i]
            dialogues[i] = replace(one, answered=(*one.answered, answer[0]), lengths=(*one.lengths, answer[1]))
        if number + 1 == settings.rounds:
            break
        chats = {i: one.partner_chat(settings.relay) for i, one in enumerate(dialogues) if one.end is None}
        for i, answer in _turn(model, dialogues, chats, settings, template, PLAIN, ()).items():
            dialogues[i] = replace(dialogues[i], asked=(*dialogues[i].asked, answer[0]))
    return dialogues


def chats_that_fit(
    model: Model, chats: Sequence[Chat], settings: DialogueSettings, template: Template, mitigation: Mitigation
) -> list[bool]:
    """Whether each chat under the mitigation and an answer fit into the context."""
    prompts = chat_prompts(model, mitigated_chats(chats, mitigation), template)
    return [len(prompt.ids) + settings.tokens <= model.context for prompt in prompts]


def _turn(
    model: Model,
    dialogues: list[Dialogue],
    chats: dict[int, Chat],
    settings: DialogueSettings,
    template: Template,
    mitigation: Mitigation,
    caps: Sequence[Edit],
) -> dict[int, tuple[str, int]]:
    """The next turn of each dialogue, with its tokens; those that do not fit end."""
    fit = chats_that_fit(model, list(chats.values()), settings, template, mitigation)
    for i, fits in zip(chats, fit, strict=True):
        if not fits:
            dialogues[i] = replace(dialogues[i], end=f"the dialogue outgrows the context of {model.context} tokens")
    going = {i: chat for i, chat in chats.items() if dialogues[i].end is None}
    if not going:
        return {}
    answers = answer_chats(model, list(going.values()), settings.decoding(1), template, mitigation, caps)
    return {i: (one.text, len(one.ids)) for i, (one,) in zip(going, answers, strict=True)}
