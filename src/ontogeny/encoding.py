"""From a concept's texts to their tokens: offsets, special tokens, the marked span, and the user's words inside a chat template."""

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ontogeny.concept import Concept, Example
from ontogeny.errors import BadInput
from ontogeny.position import Encoding

_MARK = "ontogeny7user7words"


def encode(tokenizer: Any, concept: Concept) -> list[Encoding]:
    """Tokenise each text as the model would see it: with the special tokens the tokenizer adds, or as a user's turn.

    Raises:
        BadInput: a tokenizer without offsets, or without the chat template that is asked for.
    """
    if not tokenizer.is_fast:
        raise BadInput(
            f"the tokenizer {type(tokenizer).__name__} tells no character offsets. Save it as a fast one (tokenizer.json)."
        )
    shown = _in_template(tokenizer, concept.texts) if concept.template else [(0, text) for text in concept.texts]
    made = tokenizer(
        [text for _, text in shown],
        # A rendered template holds its BOS as text: a tokenizer that adds another would shift every position.
        add_special_tokens=not concept.template,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    known = _known_special(tokenizer)
    columns = zip(made["input_ids"], made["offset_mapping"], made["special_tokens_mask"], strict=True)
    return [
        _encoding(
            example,
            start,
            text,
            ids,
            torch.tensor(offsets, dtype=torch.int64).view(-1, 2),
            _special(ids, marks, known),
            concept,
        )
        for example, (start, text), (ids, offsets, marks) in zip(concept.examples, shown, columns, strict=True)
    ]


def _encoding(
    example: Example,
    start: int,
    text: str,
    ids: list[int],
    offsets: Tensor,
    special: Bool[Tensor, " token"],
    concept: Concept,
) -> Encoding:
    span = None if example.span is None else (max(0, example.span[0] + start), example.span[1] + start)
    if not concept.template:
        return Encoding(tuple(ids), offsets, special, text, span)
    # Where the template trims the text, `start` lies before its words and `end` behind them.
    head = start + len(example.text) - len(example.text.lstrip())
    return Encoding(tuple(ids), offsets, special, text, span, start + len(example.text.rstrip()), head)


def _in_template(tokenizer: Any, texts: tuple[str, ...]) -> list[tuple[int, str]]:
    """For each text, where its first character stands in the rendered template, and the whole."""
    if not tokenizer.chat_template:
        raise BadInput(
            "this tokenizer has no chat template. Leave the template out, or trace a model that was tuned to chat."
        )
    # Rendered once with a mark: the words themselves ('user', say) may also stand in the template.
    head, found, tail = _render(tokenizer, _MARK).partition(_MARK)
    return [_placed(head, text, tail, _render(tokenizer, text) if found else "") for text in texts]


def _placed(head: str, text: str, tail: str, shown: str) -> tuple[int, str]:
    if shown == head + text + tail:
        return len(head), shown
    if shown == head + text.strip() + tail:
        return len(head) - (len(text) - len(text.lstrip())), shown
    raise BadInput(
        f"the chat template rewrites the text {text[:60]!r}, so its tokens cannot be told. Leave the template out."
    )


def _render(tokenizer: Any, text: str) -> str:
    turn = [{"role": "user", "content": text}]
    rendered: str = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return rendered


def _special(ids: list[int], marks: list[int], known: frozenset[int]) -> Bool[Tensor, " token"]:
    """What the tokenizer added, and the special tokens a template writes out."""
    return torch.tensor([bool(mark) or i in known for i, mark in zip(ids, marks, strict=True)], dtype=torch.bool)


def _known_special(tokenizer: Any) -> frozenset[int]:
    """Ids of BOS, EOS and their like; an unknown word is still a word, unless the tokenizer uses one id for both."""
    tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    unknown = tokens.pop("unk_token", None)
    others = {token for token in tokenizer.all_special_tokens if token != unknown} | set(tokens.values())
    return frozenset(tokenizer.convert_tokens_to_ids(sorted(others)))
