"""Prompts of a dialogue as tokens: the turns in a chat template, with the tokens of the system prompt marked."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.positions import tokens_in_span
from ontogeny.data.templates import Template, adds_special_tokens, render_chat
from ontogeny.errors import BadInput
from ontogeny.models.model import Model

PLAIN_TEMPLATE = (
    "{% for turn in messages %}{{ turn.role | capitalize }}: {{ turn.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For a model without a chat template: each turn after its role, in paragraphs."""


@dataclass(frozen=True, eq=False)
class ChatPrompt:
    """The turns of a chat as tokens, up to where the assistant answers."""

    ids: Int[Tensor, " token"]
    system: Bool[Tensor, " token"]
    """True at the tokens of the system prompt's words; all False without one."""


def dialogue_template(model: Model, template: Template) -> Template:
    """The template of a model's dialogues: the plain one in place of its own if it has none, or if none is asked for."""
    if template is True and not model.tokenizer.chat_template:
        return PLAIN_TEMPLATE
    return template or PLAIN_TEMPLATE


def chat_prompts(model: Model, chats: Sequence[Chat], template: Template) -> list[ChatPrompt]:
    """Each chat in the template.

    Args:
        template: A chat template: the model's own (True), or its text.

    Raises:
        BadInput: the template fails or rewrites the system prompt, or the tokenizer has no character offsets.
    """
    if not model.tokenizer.is_fast:
        raise BadInput(
            f"the tokenizer {type(model.tokenizer).__name__} has no character offsets: save it as a fast one (tokenizer.json)."
        )
    if not chats:
        return []
    texts = [render_chat(model.tokenizer, chat, template) for chat in chats]
    output = model.tokenizer(
        texts,
        add_special_tokens=adds_special_tokens(model.tokenizer, template),
        return_offsets_mapping=True,
        verbose=False,
    )
    prompts = []
    for chat, text, ids, offsets in zip(chats, texts, output["input_ids"], output["offset_mapping"], strict=True):
        marked = torch.zeros(len(ids), dtype=torch.bool)
        if words := next((content.strip() for role, content in chat if role == "system"), ""):
            start = text.find(words)
            if start < 0:
                raise BadInput(
                    f"the chat template leaves out or rewrites the system prompt {words[:60]!r}: give another `template`.",
                    argument="template",
                )
            marked = tokens_in_span(torch.tensor(offsets).view(-1, 2), start, start + len(words))
        prompts.append(ChatPrompt(torch.tensor(ids, dtype=torch.int64), marked))
    return prompts
