"""Chats: turns of a system, a user and an assistant, as data sets of conversations store them."""

import ast
import json
from typing import Any

from ontogeny.errors import BadInput

Chat = tuple[tuple[str, str], ...]
"""Role and content of each turn."""

CHAT_COLUMNS = ("messages", "conversations", "conversation", "chat")
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "developer": "system"}
_KEYS = (("role", "content"), ("from", "value"))


def is_chat(cell: object) -> bool:
    """Whether a cell is a list of turns."""
    return isinstance(cell, list) and bool(cell) and all(isinstance(turn, dict) for turn in cell)


def parse_chat(cell: object) -> Chat:
    """The turns of a cell: a list of {role, content} or {from, value}, or its text in a CSV file.

    Raises:
        BadInput: the cell is no such list, or a turn is empty.
    """
    turns = _list_in_text(cell) if isinstance(cell, str) else cell
    if not is_chat(turns):
        raise BadInput(
            f"a chat must be a list of turns with role and content, got {str(cell)[:60]!r}: correct or remove it."
        )
    assert isinstance(turns, list)
    return tuple(_turn(turn) for turn in turns)


def chat_text(chat: Chat) -> str:
    """The chat as plain text: the words of a single turn, else one paragraph per turn after its role."""
    return chat[0][1] if len(chat) == 1 else "\n\n".join(f"{role}: {content}" for role, content in chat)


def _turn(turn: dict[str, Any]) -> tuple[str, str]:
    keys = next((keys for keys in _KEYS if set(keys) <= turn.keys()), None)
    if keys is None:
        raise BadInput(f"a turn must have role and content, got {', '.join(map(str, turn))}: correct it.")
    role, content = (turn[key] for key in keys)
    if isinstance(content, list):  # parts of a multimodal message
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise BadInput("a turn must have only text, got another part such as an image: remove it.")
        content = "\n".join(part["text"] for part in content)
    if not isinstance(role, str) or not isinstance(content, str) or not content.strip():
        raise BadInput(f"a turn must have a role and words, got {role!r} and {content!r}: correct or remove it.")
    return _ROLES.get(role, role), content


def _list_in_text(text: str) -> object:
    """The list that a CSV cell holds as JSON or as Python writes it."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
