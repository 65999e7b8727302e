"""Tokenization of texts: ids, character offsets, special tokens, the marked span, and the user's words inside a chat template."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.positions import Encoding, tokens_in_span
from ontogeny.data.templates import Template, adds_special_tokens, apply_template, apply_template_to_prompt
from ontogeny.errors import BadInput

CharSpan = tuple[int, int] | None


def encode_text(tokenizer: Any, text: str, *, span: CharSpan = None, template: Template = False) -> Encoding:
    """Tokenize one text, with the tokenizer's special tokens, or as a user's turn in a template.

    Raises:
        BadInput: the tokenizer has no character offsets, or no chat template although `template` is set.
    """
    return encode_texts(tokenizer, [text], [span], template=template)[0]


def encode_texts(
    tokenizer: Any,
    texts: Sequence[str],
    spans: Sequence[CharSpan],
    *,
    template: Template = False,
    chats: Sequence[Chat] = (),
) -> list[Encoding]:
    """`encode_text` for many texts, in one call of the tokenizer.

    Args:
        chats: The turns of each text that is a chat, or nothing; the chat template renders them instead of the text, and the words of the
            last user's turn are the instruction.
    """
    _check_fast(tokenizer)
    chats = chats or [()] * len(texts)
    words = [_last_user_words(chat) if template and chat else text for text, chat in zip(texts, chats, strict=True)]
    rendered = apply_template(tokenizer, words, chats, template) if template else [(0, text) for text in texts]
    add_special = adds_special_tokens(tokenizer, template)
    rows = _tokenize(tokenizer, [whole for _, whole in rendered], add_special=add_special)
    encodings = []
    for i, ((start, whole), (ids, offsets, special)) in enumerate(zip(rendered, rows, strict=True)):
        span = None if (marked := spans[i]) is None else (max(0, marked[0] + start), marked[1] + start)
        if template and chats[i] and span is not None:
            raise BadInput(
                f"a chat in its template must have no span, {texts[i][:60]!r} has one: leave `template` off."
            )
        first, past = _own_token_range(words[i], start, offsets) if template else (0, None)
        encodings.append(Encoding(ids, offsets, special, whole, span, instruction_end=past, instruction_start=first))
    return encodings


def encode_rendered(tokenizer: Any, texts: Sequence[str], template: Template) -> list[Encoding]:
    """Texts that are already in the template, without the place of the user's words, in one call of the tokenizer."""
    _check_fast(tokenizer)
    rows = _tokenize(tokenizer, texts, add_special=adds_special_tokens(tokenizer, template))
    return [Encoding(*row, text) for text, row in zip(texts, rows, strict=True)]


def _tokenize(
    tokenizer: Any, texts: Sequence[str], *, add_special: bool
) -> list[tuple[Int[Tensor, " token"], Int[Tensor, "token 2"], Bool[Tensor, " token"]]]:
    """Ids, character offsets and special tokens of each text."""
    with _panic_errors():
        output = tokenizer(
            list(texts),
            add_special_tokens=add_special,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
    special_ids, bos = _special_ids(tokenizer), tokenizer.bos_token_id
    rows = []
    for text, ids, offsets, marks in zip(
        texts, output["input_ids"], output["offset_mapping"], output["special_tokens_mask"], strict=True
    ):
        if add_special and bos is not None and ids[:2] == [bos, bos]:
            raise BadInput(
                f"the text {text[:60]!r} begins with {tokenizer.bos_token!r}, which the tokenizer adds itself: remove it from the texts."
            )
        special = [bool(mark) or token in special_ids for token, mark in zip(ids, marks, strict=True)]
        rows.append(
            (
                torch.tensor(ids, dtype=torch.int64),
                torch.tensor(offsets, dtype=torch.int64).view(-1, 2),
                torch.tensor(special, dtype=torch.bool),
            )
        )
    return rows


@contextlib.contextmanager
def _panic_errors() -> Iterator[None]:
    """Turn a panic of the tokenizers library into one line, without the lines that it prints itself."""
    with tempfile.TemporaryFile() as printed:
        try:
            screen = os.dup(2)
        except OSError:  # standard error is closed, so nothing is printed
            screen = os.open(os.devnull, os.O_WRONLY)
        panicked = False
        os.dup2(printed.fileno(), 2)
        try:
            yield
        except BaseException as error:
            if type(error).__module__ != "pyo3_runtime":  # a panic is no `Exception`
                raise
            panicked = True
            reason = " ".join(str(error).split())[:160]
            raise BadInput(f"the tokenizer cannot read the texts ({reason}): give another `tokenizer`.") from None
        finally:
            os.dup2(screen, 2)
            if not panicked:  # what another thread has printed meanwhile, such as a progress bar
                printed.seek(0)
                os.write(screen, printed.read())
            os.close(screen)


def encode_answer(
    tokenizer: Any, prompt: str, answer: str, *, concept: str = "", template: Template = False
) -> tuple[Int[Tensor, " token"], Bool[Tensor, " token"], int]:
    """Token ids of prompt and answer, which are special, and the index of the answer's first token (it ends after the prompt).

    With `template` the prompt is a user's turn in it, and the answer begins the assistant's turn.

    Raises:
        BadInput: an answer without tokens, or no token before it; `concept` is named if given.
    """
    return encode_answers(tokenizer, [(prompt, answer)], concept=concept, template=template)[0]


def encode_answers(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], *, concept: str = "", template: Template = False
) -> list[tuple[Int[Tensor, " token"], Bool[Tensor, " token"], int]]:
    """`encode_answer` for many pairs of a prompt and an answer, in one call of the tokenizer."""
    if not pairs:
        return []
    _check_fast(tokenizer)
    answers = f"answers of {concept}" if concept else "answers"
    asked = _in_turns(tokenizer, pairs, template) if template else list(pairs)
    rows = []
    tokens = _tokenize(
        tokenizer, ["".join(pair) for pair in asked], add_special=adds_special_tokens(tokenizer, template)
    )
    for (prompt, answer), (ids, offsets, special) in zip(asked, tokens, strict=True):
        own = ((offsets[:, 1] > len(prompt)) & ~special).nonzero().flatten().tolist()
        if not own or not answer.strip():
            raise BadInput(f"{answers} must have tokens, got {answer!r} after {prompt[:60]!r}: give each a word.")
        if own[0] == 0:
            raise BadInput(f"{answers} must follow a prompt, got {answer[:60]!r} without one: add a prompt.")
        # Special tokens after the text, such as EOS, are not part of the answer.
        end = own[-1] + 1
        rows.append((ids[:end], special[:end], own[0]))
    return rows


def _in_turns(tokenizer: Any, pairs: Sequence[tuple[str, str]], template: Template) -> list[tuple[str, str]]:
    """Each prompt in a user's turn, and the answer as the template writes it in the assistant's turn."""
    prompts = dict.fromkeys(prompt for prompt, _ in pairs)
    asked = {prompt: apply_template_to_prompt(tokenizer, prompt, template) for prompt in prompts}
    turns = []
    for prompt, answer in pairs:
        text, space = asked[prompt]
        if space is not None:
            answer = space + answer.lstrip()
        turns.append((text, answer.lstrip() if space is None and text[-1:].isspace() else answer))
    return turns


def _check_fast(tokenizer: Any) -> None:
    if not tokenizer.is_fast:
        raise BadInput(
            f"the tokenizer {type(tokenizer).__name__} has no character offsets: save it as a fast one (tokenizer.json)."
        )


def _own_token_range(text: str, start: int, offsets: Int[Tensor, "token 2"]) -> tuple[int, int]:
    """First and one past the last token of the text; surrounding white space, which a template may trim, does not count."""
    inside = tokens_in_span(offsets, start + len(text) - len(text.lstrip()), start + len(text.rstrip()))
    tokens = inside.nonzero().flatten().tolist()
    return (tokens[0], tokens[-1] + 1) if tokens else (0, 0)


def _last_user_words(chat: Chat) -> str:
    """Words of the last user's turn.

    Raises:
        BadInput: the chat has no user's turn.
    """
    words = [content for role, content in chat if role == "user"]
    if not words:
        raise BadInput(f"a chat must have a turn of the user, got {', '.join(role for role, _ in chat)}: add one.")
    return words[-1]


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
