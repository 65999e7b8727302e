"""Conversation as tokens: the chat up to each of the user's turns, where gauges are read, and which tokens belong to which turn."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ontogeny.data.chats import Chat
from ontogeny.data.positions import Encoding
from ontogeny.data.templates import Template, is_chat_template, template_text
from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput
from ontogeny.gauges.begun_answers import cut_after
from ontogeny.models.model import Model

MOST_TURNS = 40


@dataclass(frozen=True)
class TurnTokens:
    """The tokens of one turn in the whole conversation."""

    role: str
    start: int
    end: int
    """One past the last token."""


@dataclass(frozen=True, eq=False)
class EncodedConversation:
    """A conversation that ends with a user's turn, in its template."""

    chat: Chat
    prefixes: tuple[Encoding, ...]
    """The conversation up to each user's turn, with the beginning of the assistant's; the last one is the whole conversation."""
    turns: tuple[TurnTokens, ...]
    unknown_words: tuple[int, ...]
    """For each turn the number of tokens that the tokenizer does not know."""

    @property
    def whole(self) -> Encoding:
        return self.prefixes[-1]


def check_chat(chat: Chat) -> None:
    """Raise BadInput unless user and assistant take turns, the user begins and ends, and every user's turn has words."""
    roles = [role for role, _ in chat]
    if not chat or roles != ["user", "assistant"] * (len(chat) // 2) + ["user"]:
        raise BadInput(
            f"a conversation must have turns of user and assistant, the user's first and last, got {', '.join(roles) or 'none'}: "
            "add a turn."
        )
    if (count := (len(chat) + 1) // 2) > MOST_TURNS:
        raise BadInput(
            f"a conversation must have at most {MOST_TURNS} turns of the user, got {count}: start a new one."
        )
    if not all(content.strip() for role, content in chat if role == "user"):
        raise BadInput("a user's turn must have words, got none: write some.")


def check_chat_template(model: Model, template: Template) -> None:
    """Raise BadInput unless the template renders a chat."""
    if not is_chat_template(template_text(model.tokenizer, template)):
        raise BadInput(
            "the model must have a chat template for a conversation, and has none: give one in Jinja as `template`.",
            argument="template",
        )


def encode_conversation(model: Model, chat: Chat, template: Template, *, room: int = 0) -> EncodedConversation:
    """The tokens of a conversation.

    Args:
        chat: Turns of user and assistant, the user's first and last.
        template: A chat template, or True for the tokenizer's own.
        room: New tokens that must fit into the context as well.

    Raises:
        BadInput: turns in another order, no chat template, one that fails, or more tokens than the context has.
    """
    check_chat(chat)
    check_chat_template(model, template)
    prefixes = encode_chats(model, [chat[:end] for end in range(1, len(chat) + 1, 2)], template)
    _check_length(model, prefixes[-1], room)
    return arrange_turns(model, chat, prefixes)


def encode_prompt(model: Model, chat: Chat, template: Template, *, room: int = 0) -> Encoding:
    """The tokens of a conversation up to the beginning of the answer; `encode_conversation` also tells its turns apart."""
    check_chat(chat)
    check_chat_template(model, template)
    (whole,) = encode_chats(model, [chat], template)
    _check_length(model, whole, room)
    return whole


def arrange_turns(model: Model, chat: Chat, prefixes: Sequence[Encoding]) -> EncodedConversation:
    """A conversation from its tokens up to each of the user's turns, such as the prompts of its answers.

    Args:
        chat: Turns of user and assistant, the user's first and last.
        prefixes: From `encode_prompt`, one for each user's turn.
    """
    whole, unknown = prefixes[-1], model.tokenizer.unk_token_id
    turns, counts = [], []
    for number, (role, content) in enumerate(chat):
        before = prefixes[number // 2]
        start, end = (
            (before.instruction_start, before.instruction_end or 0)
            if role == "user"
            else _span(whole, content, len(before.text))
        )
        turns.append(TurnTokens(role, start, end))
        own = whole.ids[start:end]
        counts.append(0 if unknown is None else int((own == unknown).sum()))
    return EncodedConversation(chat, tuple(prefixes), tuple(turns), tuple(counts))


def encode_with_suffix(model: Model, chat: Chat, suffix: str, template: Template) -> Encoding:
    """The conversation with the beginning of an answer, cut after its last token.

    Raises:
        BadInput: the template does not write the beginning as it is.
    """
    (encoding,) = encode_all_with_suffix(model, [chat], suffix, template)
    return encoding


def encode_all_with_suffix(model: Model, chats: Sequence[Chat], suffix: str, template: Template) -> list[Encoding]:
    """`encode_with_suffix` for many conversations, in one call of the tokenizer."""
    encodings = encode_chats(model, [(*chat, ("assistant", suffix)) for chat in chats], template)
    return [cut_after(encoding, suffix) for encoding in encodings]


def encode_chats(model: Model, chats: Sequence[Chat], template: Template) -> list[Encoding]:
    """The tokens of conversations, in one call of the tokenizer; after a user's turn follows the beginning of the assistant's."""
    words = [next(content for role, content in reversed(chat) if role == "user") for chat in chats]
    return encode_texts(model.tokenizer, words, [None] * len(chats), template=template, chats=chats)


def _check_length(model: Model, whole: Encoding, room: int) -> None:
    if len(whole.ids) + room > model.context:
        raise BadInput(
            f"the conversation has {len(whole.ids)} tokens{f' before {room} new' if room else ''}, and the model's context has "
            f"{model.context}: start a new one, or shorten it."
        )


def _span(whole: Encoding, content: str, start: int) -> tuple[int, int]:
    """Tokens of an answer, whose characters begin at `start` or a little later."""
    at = whole.text.find(content.strip(), start)
    if not content.strip() or at < 0:
        return 0, 0
    inside = (whole.offsets[:, 0] < at + len(content.strip())) & (whole.offsets[:, 1] > torch.tensor(at))
    places = (inside & ~whole.special).nonzero().flatten().tolist()
    return (places[0], places[-1] + 1) if places else (0, 0)
