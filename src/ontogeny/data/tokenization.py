"""Tokenization of texts: ids, character offsets, special tokens, the marked span, and the user's words inside a chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.data.positions import Encoding, tokens_in_span
from ontogeny.errors import BadInput

CharSpan = tuple[int, int] | None

_MARK = "ontogeny7user7words"


def encode_text(tokenizer: Any, text: str, *, span: CharSpan = None, template: bool = False) -> Encoding:
    """Tokenize one text, with the tokenizer's special tokens, or as a user's turn in its chat template.

    Raises:
        BadInput: the tokenizer has no character offsets, or no chat template although `template` is set.
    """
    return encode_texts(tokenizer, [text], [span], template=template)[0]


def encode_texts(
    tokenizer: Any, texts: Sequence[str], spans: Sequence[CharSpan], *, template: bool = False
) -> list[Encoding]:
    """`encode_text` for many texts, in one call of the tokenizer."""
    if not tokenizer.is_fast:
        raise BadInput(
            f"the tokenizer {type(tokenizer).__name__} has no character offsets: save it as a fast one (tokenizer.json)."
        )
    rendered = _in_template(tokenizer, texts) if template else [(0, text) for text in texts]
    output = tokenizer(
        [text for _, text in rendered],
        # A rendered template contains its BOS as text: a second one would shift every position.
        add_special_tokens=not template,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    special_ids = _special_ids(tokenizer)
    encodings = []
    for i, (start, whole) in enumerate(rendered):
        ids, marks = output["input_ids"][i], output["special_tokens_mask"][i]
        special = [bool(mark) or token in special_ids for token, mark in zip(ids, marks, strict=True)]
        offsets = torch.tensor(output["offset_mapping"][i], dtype=torch.int64).view(-1, 2)
        span = None if (marked := spans[i]) is None else (max(0, marked[0] + start), marked[1] + start)
        first, past = _own_token_range(texts[i], start, offsets) if template else (0, None)
        encodings.append(
            Encoding(
                torch.tensor(ids, dtype=torch.int64),
                offsets,
                torch.tensor(special, dtype=torch.bool),
                whole,
                span,
                instruction_end=past,
                instruction_start=first,
            )
        )
    return encodings


def encode_answer(
    tokenizer: Any, prompt: str, answer: str, *, concept: str = ""
) -> tuple[Int[Tensor, " token"], Bool[Tensor, " token"], int]:
    """Token ids of prompt and answer, which are special, and the index of the answer's first token (it ends after the prompt).

    Raises:
        BadInput: an answer without tokens, or no token before it; `concept` is named if given.
    """
    encoding = encode_text(tokenizer, prompt + answer)
    own = ((encoding.offsets[:, 1] > len(prompt)) & ~encoding.special).nonzero().flatten().tolist()
    answers = f"answers of {concept}" if concept else "answers"
    if not own or not answer.strip():
        raise BadInput(f"{answers} must have tokens, got {answer!r} after {prompt[:60]!r}: give each a word.")
    if own[0] == 0:
        raise BadInput(f"{answers} must follow a prompt, got {answer[:60]!r} without one: add a prompt.")
    # Special tokens after the text, such as EOS, are not part of the answer.
    end = own[-1] + 1
    return encoding.ids[:end], encoding.special[:end], own[0]


def _own_token_range(text: str, start: int, offsets: Int[Tensor, "token 2"]) -> tuple[int, int]:
    """First and one past the last token of the text; surrounding white space, which a template may trim, does not count."""
    inside = tokens_in_span(offsets, start + len(text) - len(text.lstrip()), start + len(text.rstrip()))
    tokens = inside.nonzero().flatten().tolist()
    return (tokens[0], tokens[-1] + 1) if tokens else (0, 0)


def _in_template(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, str]]:
    """For each text, the place of its first character (untrimmed) in the rendered template, and the rendered template."""
    if not tokenizer.chat_template:
        raise BadInput(
            "the tokenizer has no chat template: leave `template` off, or give a `tokenizer` with one.",
            argument="template",
        )
    # Rendered once with a mark, because the words of a text ('user', say) may also occur in the template.
    head, mark, tail = _render(tokenizer, _MARK).partition(_MARK)
    return [_locate_in_template(head, text, tail, _render(tokenizer, text) if mark else "") for text in texts]


def _locate_in_template(head: str, text: str, tail: str, shown: str) -> tuple[int, str]:
    if shown == head + text + tail:
        return len(head), shown
    if shown == head + text.strip() + tail:
        return len(head) - (len(text) - len(text.lstrip())), shown
    raise BadInput(
        f"the chat template rewrites the text {text[:60]!r}, so its tokens cannot be located: leave `template` off."
    )


def _render(tokenizer: Any, text: str) -> str:
    turn = [{"role": "user", "content": text}]
    try:
        rendered: str = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a sandboxed program: it may raise anything
        reason = " ".join(str(error).split())[:160]
        raise BadInput(
            f"the chat template of the tokenizer cannot be rendered ({reason}): leave `template` off, or fix it."
        ) from None
    return rendered


def _special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of BOS, EOS and similar tokens, which a template writes as text; an unknown word is a word, unless one id is both."""
    tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    unknown = tokens.pop("unk_token", None)
    others = {token for token in tokenizer.all_special_tokens if token != unknown} | set(tokens.values())
    return frozenset(tokenizer.convert_tokens_to_ids(sorted(others)))


def shared_token_strings(
    one: Mapping[str, int], other: Mapping[str, int], special: Sequence[str] = ()
) -> list[tuple[int, int]]:
    """Pairs of ids of the token strings that two vocabularies share; the two marks for a space count as the same."""
    left, right = _normalised_strings(one, special), _normalised_strings(other, special)
    return [(left[string], right[string]) for string in sorted(left.keys() & right.keys())]


def _normalised_strings(vocabulary: Mapping[str, int], special: Sequence[str]) -> dict[str, int]:
    return {string.replace("▁", " ").replace("Ġ", " "): i for string, i in vocabulary.items() if string not in special}
