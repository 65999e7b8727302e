"""Tokenization of texts: ids, character offsets, special tokens, the marked span, and the user's words inside a chat template."""

import contextlib
import ctypes
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.positions import Encoding, tokens_in_span
from ontogeny.errors import BadInput

CharSpan = tuple[int, int] | None

_MARK = "ontogeny7user7words"
_RENDER_SECONDS = 10
_RENDER_GROWTH = 1_000_000
"""Characters that a chat template may add to a text."""
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
TEMPLATE_DATE = datetime(2024, 7, 26)
"""The date that a chat template which writes today's date gets, so that numbers do not change with the day; Llama's own default."""


def encode_text(tokenizer: Any, text: str, *, span: CharSpan = None, template: bool = False) -> Encoding:
    """Tokenize one text, with the tokenizer's special tokens, or as a user's turn in its chat template.

    Raises:
        BadInput: the tokenizer has no character offsets, or no chat template although `template` is set.
    """
    return encode_texts(tokenizer, [text], [span], template=template)[0]


def encode_texts(
    tokenizer: Any,
    texts: Sequence[str],
    spans: Sequence[CharSpan],
    *,
    template: bool = False,
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
    rendered = _in_template(tokenizer, words, chats) if template else [(0, text) for text in texts]
    # A rendered template contains its BOS as text: a second one would shift every position.
    rows = _tokenize(tokenizer, [whole for _, whole in rendered], add_special=not template)
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


def _tokenize(
    tokenizer: Any, texts: Sequence[str], *, add_special: bool
) -> list[tuple[Int[Tensor, " token"], Int[Tensor, "token 2"], Bool[Tensor, " token"]]]:
    """Ids, character offsets and special tokens of each text."""
    try:
        output = tokenizer(
            list(texts),
            add_special_tokens=add_special,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # a panic of the library is no `Exception`
            raise
        reason = " ".join(str(error).split())[:160]
        raise BadInput(f"the tokenizer cannot read the texts ({reason}): give another `tokenizer`.") from None
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


def encode_answer(
    tokenizer: Any, prompt: str, answer: str, *, concept: str = "", template: bool = False
) -> tuple[Int[Tensor, " token"], Bool[Tensor, " token"], int]:
    """Token ids of prompt and answer, which are special, and the index of the answer's first token (it ends after the prompt).

    With `template` the prompt is a user's turn of the chat template, and the answer begins the assistant's turn.

    Raises:
        BadInput: an answer without tokens, or no token before it; `concept` is named if given.
    """
    _check_fast(tokenizer)
    answers = f"answers of {concept}" if concept else "answers"
    if template:
        prompt, answer = _in_turns(tokenizer, prompt, answer)
    ids, offsets, special = _tokenize(tokenizer, [prompt + answer], add_special=not template)[0]
    own = ((offsets[:, 1] > len(prompt)) & ~special).nonzero().flatten().tolist()
    if not own or not answer.strip():
        raise BadInput(f"{answers} must have tokens, got {answer!r} after {prompt[:60]!r}: give each a word.")
    if own[0] == 0:
        raise BadInput(f"{answers} must follow a prompt, got {answer[:60]!r} without one: add a prompt.")
    # Special tokens after the text, such as EOS, are not part of the answer.
    end = own[-1] + 1
    return ids[:end], special[:end], own[0]


def _in_turns(tokenizer: Any, prompt: str, answer: str) -> tuple[str, str]:
    """The prompt in a user's turn, and the answer as the template writes it in the assistant's turn."""
    ((_, asked),) = _in_template(tokenizer, [prompt], [()])
    try:
        answered = _render(tokenizer, (("user", prompt), ("assistant", _MARK)))
    except BadInput:  # a template of one turn
        answered = ""
    space, mark, _ = answered.removeprefix(asked).partition(_MARK)
    if answered.startswith(asked) and mark and not space.strip():
        return asked, space + answer.lstrip()
    return asked, answer.lstrip() if asked[-1:].isspace() else answer


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


def _in_template(tokenizer: Any, texts: Sequence[str], chats: Sequence[Chat]) -> list[tuple[int, str]]:
    """For each text, the place of its first character (untrimmed) in the rendered template, and the rendered template."""
    if not tokenizer.chat_template:
        raise BadInput(
            "the tokenizer has no chat template: leave `template` off, or give a `tokenizer` with one.",
            argument="template",
        )
    # Rendered with a mark, because the words of a text ('user', say) may also occur in the template: once for all texts without turns.
    plain = _render(tokenizer, (("user", _MARK),)) if not all(chats) else ""
    rows = []
    for text, chat in zip(texts, chats, strict=True):
        place = max((i for i, (role, _) in enumerate(chat) if role == "user"), default=0)
        marked = _render(tokenizer, (*chat[:place], ("user", _MARK), *chat[place + 1 :])) if chat else plain
        head, mark, tail = marked.partition(_MARK)
        rows.append(
            _locate_in_template(head, text, tail, _render(tokenizer, chat or (("user", text),)) if mark else "")
        )
    return rows


def _last_user_words(chat: Chat) -> str:
    """Words of the last user's turn.

    Raises:
        BadInput: the chat has no user's turn.
    """
    words = [content for role, content in chat if role == "user"]
    if not words:
        raise BadInput(f"a chat must have a turn of the user, got {', '.join(role for role, _ in chat)}: add one.")
    return words[-1]


def _locate_in_template(head: str, text: str, tail: str, shown: str) -> tuple[int, str]:
    if shown == head + text + tail:
        return len(head), shown
    if shown == head + text.strip() + tail:
        return len(head) - (len(text) - len(text.lstrip())), shown
    raise BadInput(
        f"the chat template rewrites the text {text[:60]!r}, so its tokens cannot be located: leave `template` off."
    )


def _with_fixed_date(template: str) -> str:
    """The template with `TEMPLATE_DATE` where it asks for today's date."""
    return re.sub(_TODAY, lambda call: repr(TEMPLATE_DATE.strftime(call[2])), template)


def _render(tokenizer: Any, chat: Chat) -> str:
    """The turns in the template; after a user's turn follows the beginning of the assistant's."""
    turns = [{"role": role, "content": content} for role, content in chat]
    try:
        with _time_limit(_RENDER_SECONDS):
            rendered: str = tokenizer.apply_chat_template(
                turns,
                chat_template=_with_fixed_date(tokenizer.get_chat_template()),
                tokenize=False,
                add_generation_prompt=chat[-1][0] != "assistant",
                date_string=TEMPLATE_DATE.strftime("%d %b %Y"),
            )
        if len(rendered) > (most := _RENDER_GROWTH + 10 * sum(len(content) for _, content in chat)):
            raise ValueError(f"it writes {len(rendered):,} characters, more than {most:,}")
    except Exception as error:  # a template is a sandboxed program: it may raise anything
        reason = " ".join(str(error).split())[:160]
        raise BadInput(
            f"the chat template of the tokenizer cannot be rendered ({reason}): leave `template` off, or fix it."
        ) from None
    return rendered


class _TooSlow(Exception):
    """Raised in a thread whose call takes too long."""

    def __str__(self) -> str:
        return f"it takes more than {_RENDER_SECONDS} s"


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `_TooSlow` in this thread if the block takes longer; a call that is one step of Python is not interrupted."""
    thread, lock, done = threading.get_ident(), threading.Lock(), False

    def stop() -> None:
        with lock:
            if not done:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TooSlow))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            done = True
        timer.cancel()


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
