"""Chat options: what the command line says about the chats of a dashboard."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ontogeny.gauges.labels import gauge_label, parse_gauge_names

if TYPE_CHECKING:
    from ontogeny.gauges.pack import GaugePack


@dataclass(frozen=True)
class ChatOptions:
    """Options of the command line for chats."""

    template: str = ""
    """A chat template in Jinja; "" for that of the lineage or the tokenizer."""
    users: tuple[str, ...] = ()
    """Concepts about the user, with the names of their classes or without, see `parse_gauge_names`."""
    systems: tuple[str, ...] = ()
    pack: "GaugePack | None" = None
    """Gauges that take the place of those of the same concepts in the runs."""


def check_chat_options(options: ChatOptions, entries: Iterable[Mapping[str, Any]]) -> None:
    """Raise BadInput if an option names a concept that no run has, or not each of its classes.

    Args:
        options: The options.
        entries: Concepts of all runs, as run.json lists them.
    """
    known = list(entries)
    named = parse_gauge_names(options.users, options.systems, list(dict.fromkeys(str(one["name"]) for one in known)))
    for entry in known:
        gauge_label(entry, named)
