"""Templates around a user's words: none, the chat template of the tokenizer, or one that is given.

A given template is a chat template (Jinja), or a text with {} where the words go. Today's date in a chat template is `TEMPLATE_DATE`, and a
template may take neither long nor endless room, since it is a program.
"""

import contextlib
import functools
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ontogeny.data.chats import Chat
from ontogeny.data.rendering import render_apart
from ontogeny.errors import BadInput

Template = bool | str
"""False: none. True: the tokenizer's own. A text: this one."""

RENDER_SECONDS = 10
"""Seconds that a chat template may take for one text."""
_RENDER_GROWTH = 1_000_000
"""Characters that a chat template may add to a text."""
TEMPLATE_DATE = datetime(2024, 7, 26)
"""The date that a chat template which writes today's date gets, so that numbers do not change with the day; Llama's own default."""
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_TODAY_OF = re.compile(r"strftime_now\(\s*([^()]+?)\s*\)")
_FORMAT = re.compile(r"""(["'])([^"'\n]*%[^"'\n]*)\1""")
_MARK = "ontogeny7user7words"
_SLOT = "{}"
_JINJA = ("{{", "{%")


def parse_template(given: "Template | Path | None") -> Template:
    """A template from none, own, a file, or its text; idempotent.

    Raises:
        BadInput: no file of this name, and the text has no place for the words.
    """
    if given is None or isinstance(given, bool):
        return bool(given)
    if given in ("none", "own"):
        return given == "own"
    text, named = _file_text(given), f"the file {given}"
    if text is None:
        text, named = str(given), repr(str(given)[:60])
    if text.strip() == _SLOT:
        return False
    if _SLOT not in text and not is_chat_template(text):
        raise BadInput(
            f"`template` must be none, own, a file, or a text with {{}} where the words go, got {named}: add a {{}}.",
            argument="template",
        )
    return text


def is_chat_template(text: str) -> bool:
    """Whether a template is written in Jinja."""
    return any(mark in text for mark in _JINJA)


def template_of(tokenizer: Any, template: Template) -> Template:
    """The template of one model: False in place of its own if it has none."""
    return template if template is not True or tokenizer.chat_template else False


def template_text(tokenizer: Any, template: Template) -> str:
    """The text of a template, with the date that it gets; empty without one.

    Raises:
        BadInput: the tokenizer has no chat template although its own is asked for.
    """
    if template is not True:
        return _with_fixed_date(template or "")
    if not tokenizer.chat_template:
        raise BadInput(
            "the tokenizer has no chat template: leave `template` off, or give a `tokenizer` with one.",
            argument="template",
        )
    try:
        return _with_fixed_date(str(tokenizer.get_chat_template()))
    except ValueError:  # several templates, none of which is the default
        names = ", ".join(sorted(tokenizer.chat_template))
        raise BadInput(
            f"the tokenizer has several chat templates ({names}) and none called default: give one of them as `template`.",
            argument="template",
        ) from None


def template_name(tokenizer: Any, template: Template) -> str:
    """`none`, or whose the template of a model is and a fingerprint of its text: `own 1f2e3d4c`, `given 1f2e3d4c`."""
    template = template_of(tokenizer, template)
    if not template:
        return "none"
    text = template_text(tokenizer, template)
    return f"{'own' if template is True else 'given'} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def adds_special_tokens(tokenizer: Any, template: Template) -> bool:
    """Whether the tokenizer adds BOS and EOS to a text in this template.

    A chat template writes them itself; a text with {} does if it begins with BOS. A second one would shift every position.
    """
    if template is True or (template and is_chat_template(template)):
        return False
    bos = tokenizer.bos_token
    return not (template and bos and template.startswith(bos))


def apply_template(
    tokenizer: Any, texts: Sequence[str], chats: Sequence[Chat], template: Template
) -> list[tuple[int, str]]:
    """For each text, the place of its first character (untrimmed) in the rendered template, and the rendered template.

    Args:
        chats: The turns of each text that is a chat; they are rendered in place of the text.

    Raises:
        BadInput: a template that is missing, fails or rewrites a text, or a chat in a template of one turn.
    """
    text = template_text(tokenizer, template)
    if not is_chat_template(text):
        return [_fill_slot(text, words, chat) for words, chat in zip(texts, chats, strict=True)]
    # Rendered with a mark, because the words of a text ('user', say) may also occur in the template: once for all texts without turns.
    plain = render_chat(tokenizer, (("user", _MARK),), template) if not all(chats) else ""
    rows = []
    for words, chat in zip(texts, chats, strict=True):
        place = max((i for i, (role, _) in enumerate(chat) if role == "user"), default=0)
        turns = (*chat[:place], ("user", _MARK), *chat[place + 1 :])
        marked = render_chat(tokenizer, turns, template) if chat else plain
        head, mark, tail = marked.partition(_MARK)
        shown = render_chat(tokenizer, chat or (("user", words),), template) if mark else ""
        rows.append(_locate_words(head, words, tail, shown))
    return rows


def apply_template_to_prompt(tokenizer: Any, prompt: str, template: Template) -> tuple[str, str | None]:
    """The prompt in a user's turn, and the white space that the template writes before an answer; None if it does not say."""
    ((_, asked),) = apply_template(tokenizer, [prompt], [()], template)
    answered = ""
    if is_chat_template(template_text(tokenizer, template)):
        with contextlib.suppress(BadInput):  # a template of one turn
            answered = render_chat(tokenizer, (("user", prompt), ("assistant", _MARK)), template)
    space, mark, _ = answered.removeprefix(asked).partition(_MARK)
    return asked, space if answered.startswith(asked) and mark and not space.strip() else None


def render_chat(tokenizer: Any, chat: Chat, template: Template) -> str:
    """The turns in a chat template; after a user's turn follows the beginning of the assistant's.

    Raises:
        BadInput: the template fails, takes too long or writes too much.
    """
    turns = [{"role": role, "content": content} for role, content in chat]
    try:
        text = template_text(tokenizer, template)
        request = {
            "conversation": turns,
            "chat_template": text,
            "tokenize": False,
            "add_generation_prompt": chat[-1][0] != "assistant",
            "date_string": TEMPLATE_DATE.strftime("%d %b %Y"),
        }
        specials = tuple(map(str, tokenizer.special_tokens_map.values()))
        rendered = render_apart((text, specials), tokenizer.apply_chat_template, request, RENDER_SECONDS)
        if len(rendered) > (most := _RENDER_GROWTH + 10 * sum(len(content) for _, content in chat)):
            raise ValueError(f"it writes {len(rendered):,} characters, more than {most:,}")
    except Exception as error:  # a template is a sandboxed program: it may raise anything
        reason = " ".join(str(error).split())[:160]
        whose = "the chat template of the tokenizer" if template is True else "the given `template`"
        raise BadInput(f"{whose} cannot be rendered ({reason}): leave `template` off, or fix it.") from None
    return rendered


def _file_text(given: "str | Path") -> str | None:
    """The text of a file without the line break at its end; None if there is no such file."""
    try:
        if not Path(given).is_file():
            return None
        return Path(given).read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError:
        raise BadInput(
            f"`template` must be a text file in UTF-8, got {given}: save it as one.", argument="template"
        ) from None
    except (OSError, ValueError):  # a text that is not a name of a file
        return None


def _fill_slot(text: str, words: str, chat: Chat) -> tuple[int, str]:
    """The words in every {} of a text; the first place is theirs."""
    if len(chat) > 1:
        raise BadInput(
            f"a chat of {len(chat)} turns needs a chat template, got a text with {{}}: give one in Jinja, or single texts.",
            argument="template",
        )
    return text.index(_SLOT), text.replace(_SLOT, words)


def _locate_words(head: str, words: str, tail: str, shown: str) -> tuple[int, str]:
    if shown == head + words + tail:
        return len(head), shown
    if shown == head + words.strip() + tail:
        return len(head) - (len(words) - len(words.lstrip())), shown
    raise BadInput(
        f"the chat template rewrites the text {words[:60]!r}, so its tokens cannot be located: leave `template` off."
    )


@functools.lru_cache(maxsize=64)
def _with_fixed_date(text: str) -> str:
    """The template with `TEMPLATE_DATE` where it asks for today's date.

    A format in a variable is one of the texts of the template: the call becomes a lookup among these.
    """
    text = re.sub(_TODAY, lambda call: repr(TEMPLATE_DATE.strftime(call[2])), text)
    dates = {quoted[2]: TEMPLATE_DATE.strftime(quoted[2]) for quoted in re.finditer(_FORMAT, text)}
    unknown = "raise_exception('today’s date in an unknown format')"
    return re.sub(_TODAY_OF, lambda call: f"({dates!r}[{call[1]}] or {unknown})", text)
