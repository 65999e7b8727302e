"""Begun answers: the tokens that the beginning of an answer adds to a conversation, as the template writes it.

They follow from the words that the template writes after the user's, so that they are remembered: a next turn with the same words there
needs no tokenizer. A tokenizer whose tokens depended on words before these would contradict itself inside the prompt.
"""

import weakref
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.positions import Encoding
from ontogeny.data.templates import Template, render_chat
from ontogeny.data.tokenization import encode_rendered
from ontogeny.errors import BadInput
from ontogeny.models.model import Model

_MARK = "ontogeny7begun7answer"
_MOST = 512
"""Remembered beginnings of a tokenizer."""
_REMEMBERED: "weakref.WeakKeyDictionary[Any, dict[Hashable, Tensor]]" = weakref.WeakKeyDictionary()


def begun_answer_tokens(
    model: Model, chat: Chat, prompt: Encoding, suffixes: Sequence[str], template: Template
) -> list[Int[Tensor, " token"] | None]:
    """The tokens of each beginning of an answer after the prompt; None if the tokens of the prompt change with it.

    Args:
        model: The model.
        chat: Turns of user and assistant, the user's first and last.
        prompt: The chat, from `encode_prompt`.
        suffixes: Beginnings of an answer.
        template: The chat template.

    Raises:
        BadInput: the template does not write a beginning as it is.
    """
    remembered = _REMEMBERED.setdefault(model.tokenizer, {})
    if len(remembered) > _MOST:
        remembered.clear()
    head, mark, tail = render_chat(model.tokenizer, (*chat, ("assistant", _MARK)), template).partition(_MARK)
    place = _place(prompt, template, head, tail) if mark else None
    keys = [None if place is None else (place, suffix) for suffix in suffixes]
    new = [number for number, key in enumerate(keys) if key is None or key not in remembered]
    tails: list[Tensor | None] = [None if key is None else remembered.get(key) for key in keys]
    if new:
        chosen = [suffixes[number] for number in new]
        for number, whole in zip(new, _encode(model, chat, chosen, (head, mark, tail), template), strict=True):
            count, key = len(prompt.ids), keys[number]
            if len(whole.ids) > count and torch.equal(whole.ids[:count], prompt.ids):
                tails[number] = own = whole.ids[count:].clone()
                if key is not None:
                    remembered[key] = own
    return tails


def _place(prompt: Encoding, template: Template, head: str, tail: str) -> Hashable | None:
    """Text of the template between the user's words and an answer, with its tokens, and after the answer; None if it is empty."""
    after = prompt.instruction_end
    if after is None or not 0 < after < len(prompt.ids) or not head.startswith(prompt.text):
        return None
    start = int(prompt.offsets[after, 0])
    return template, head[start:], tuple(prompt.ids[after:].tolist()), tail


def _encode(
    model: Model, chat: Chat, suffixes: Sequence[str], marked: tuple[str, str, str], template: Template
) -> list[Encoding]:
    """The conversation with each of the beginnings, cut after its last token, in one call of the tokenizer.

    A template that writes the first one as it writes a mark writes all of them so.
    """

    def rendered(suffix: str) -> str:
        return render_chat(model.tokenizer, (*chat, ("assistant", suffix)), template)

    first, (head, mark, tail) = rendered(suffixes[0]), marked
    as_it_is = bool(mark) and first == head + suffixes[0] + tail
    texts = [first, *(head + suffix + tail if as_it_is else rendered(suffix) for suffix in suffixes[1:])]
    encodings = encode_rendered(model.tokenizer, texts, template)
    return [cut_after(encoding, suffix) for encoding, suffix in zip(encodings, suffixes, strict=True)]


def cut_after(encoding: Encoding, suffix: str) -> Encoding:
    """The tokens up to the last one of a beginning.

    Raises:
        BadInput: the text does not hold it.
    """
    at = encoding.text.rfind(suffix)
    if at < 0:
        raise BadInput(
            f"the chat template rewrites {suffix[:60]!r}, so that its tokens cannot be located: leave the gauge off."
        )
    covered = (encoding.offsets[:, 0] < at + len(suffix)) & (encoding.offsets[:, 1] > at)
    end = int(covered.nonzero().max()) + 1
    return replace(encoding, ids=encoding.ids[:end], offsets=encoding.offsets[:end], special=encoding.special[:end])
