"""From a text to its tokens: offsets, special tokens, the marked span, and the user's words inside a chat template."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.data.positions import Encoding, tokens_in_span
from ontogeny.errors import BadInput

CharSpan = tuple[int, int] | None

_MARK = "ontogeny7user7words"


def encode_text(tokenizer: Any, text: str, *, span: CharSpan = None, template: bool = False) -> Encoding:
    """Tokenise one text as the model would see it: with the special tokens the tokenizer adds, or as a user's turn.

    Raises:
        BadInput: a tokenizer without offsets, or without the chat template that is asked for.
    """
    return encode_texts(tokenizer, [text], [span], template=template)[0]


def encode_texts(
    tokenizer: Any, texts: Sequence[str], spans: Sequence[CharSpan], *, template: bool = False
) -> list[Encoding]:
    """The same for many texts, in one call of the tokenizer."""
    if not tokenizer.is_fast:
        raise BadInput(
            f"the tokenizer {type(tokenizer).__name__} tells no character offsets. Save it as a fast one (tokenizer.json)."
        )
    shown = _in_template(tokenizer, texts) if template else [(0, text) for text in texts]
    made = tokenizer(
        [text for _, text in shown],
        # A rendered template holds its BOS as text: a tokenizer that adds another would shift every position.
        add_special_tokens=not template,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    known = _known_special(tokenizer)
    encodings = []
    for i, (start, whole) in enumerate(shown):
        ids = made["input_ids"][i]
        special = [
            bool(mark) or token in known for token, mark in zip(ids, made["special_tokens_mask"][i], strict=True)
        ]
        offsets = torch.tensor(made["offset_mapping"][i], dtype=torch.int64).view(-1, 2)
        span = None if (given := spans[i]) is None else (max(0, given[0] + start), given[1] + start)
        words = _own_token_range(texts[i], start, offsets) if template else (0, None)
        encodings.append(
            Encoding(
                torch.tensor(ids, dtype=torch.int64),
                offsets,
                torch.tensor(special, dtype=torch.bool),
                whole,
                span,
                words[1],
                words[0],
            )
        )
    return encodings


def _own_token_range(text: str, start: int, offsets: Int[Tensor, "token 2"]) -> tuple[int, int]:
    """First and one past the last token of the text's own words; a template that trims the text leaves its white space out."""
    tokens = (
        tokens_in_span(offsets, start + len(text) - len(text.lstrip()), start + len(text.rstrip()))
        .nonzero()
        .flatten()
        .tolist()
    )
    return (tokens[0], tokens[-1] + 1) if tokens else (0, 0)


def _in_template(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, str]]:
    """For each text, where its first character stands (or would, untrimmed) in the rendered template, and the whole."""
    if not tokenizer.chat_template:
        raise BadInput(
            "this tokenizer has no chat template. Leave the template out, or name a tokenizer that has one with --tokenizer."
        )
    # Rendered once with a mark: the words themselves ('user', say) may also stand in the template.
    head, found, tail = _render(tokenizer, _MARK).partition(_MARK)
    return [_locate_in_template(head, text, tail, _render(tokenizer, text) if found else "") for text in texts]


def _locate_in_template(head: str, text: str, tail: str, shown: str) -> tuple[int, str]:
    if shown == head + text + tail:
        return len(head), shown
    if shown == head + text.strip() + tail:
        return len(head) - (len(text) - len(text.lstrip())), shown
    raise BadInput(
        f"the chat template rewrites the text {text[:60]!r}, so its tokens cannot be told. Leave the template out."
    )


def _render(tokenizer: Any, text: str) -> str:
    turn = [{"role": "user", "content": text}]
    try:
        rendered: str = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program, kept in a sandbox: it may raise anything
        told = " ".join(str(error).split())[:160]
        raise BadInput(
            f"the chat template of this tokenizer cannot be rendered ({told}). Leave the template out, or mend it."
        ) from None
    return rendered


def _known_special(tokenizer: Any) -> frozenset[int]:
    """Ids of BOS, EOS and their like, which a template writes out; an unknown word is still a word, unless one id is both."""
    tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    unknown = tokens.pop("unk_token", None)
    others = {token for token in tokenizer.all_special_tokens if token != unknown} | set(tokens.values())
    return frozenset(tokenizer.convert_tokens_to_ids(sorted(others)))
