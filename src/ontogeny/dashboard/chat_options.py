"""Chat options: what the command line says about the chats of a dashboard."""

from collections.abc import Iterable
from dataclasses import dataclass

from ontogeny.gauges.labels import parse_gauge_names


@dataclass(frozen=True)
class ChatOptions:
    """What the command line says about chats."""

    template: str = ""
    """A chat template in Jinja; "" for that of the lineage or the tokenizer."""
    users: tuple[str, ...] = ()
    """Concepts about the user, with the names of their classes or without, see `parse_gauge_names`."""
    systems: tuple[str, ...] = ()


def check_chat_options(options: ChatOptions, concepts: Iterable[str]) -> None:
    """Raise BadInput if an option names a concept that no run has."""
    parse_gauge_names(options.users, options.systems, list(dict.fromkeys(concepts)))
