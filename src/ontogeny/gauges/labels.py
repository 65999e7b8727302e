"""Labels of gauges: whether a concept is about the user or the system, names of its classes, and whether it is sensitive.

Two groups, few gauges by default, and inferred attributes of people off until they are switched on: arXiv:2305.02469, arXiv:2406.07882.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ontogeny.errors import BadInput

GaugeSubject = Literal["user", "system"]

_SENSITIVE = re.compile(
    r"\b("
    r"age|aged|old|older|young|child|children|adolescent|adult|elder|elderly|gender|sex|male|female|man|woman|race"
    r"|racial|ethnic|ethnicity|nationality|nation|religion|religious|faith|disability|disabled|health|ill|illness"
    r"|orientation|gay|lesbian|queer|politics|political|socioeconomic|socioeco|status|income|wealth|poor|rich"
    r"|education|schooling|generation|pregnant|immigrant"
    r")\b"
)
"""Words in a name, a question or a class that tell of an attribute that people are treated worse for."""
_READING_SUFFIXES: Mapping[str, str] = {
    "user_age": "I think the age of this user is",
    "user_education": "I think the education level of this user is",
    "user_gender": "I think the gender of this user is",
    "user_status": "I think the socioeconomic status of this user is",
}
"""Begun answers of the assistant after which the packaged concepts are read, as in arXiv:2406.07882."""


@dataclass(frozen=True)
class GaugeLabel:
    """How the gauge of a concept is shown."""

    concept: str
    subject: GaugeSubject
    classes: tuple[str, ...]
    """Names in the order of the classes; of two, the second is the positive one."""
    sensitive: bool
    """Whether it is off until somebody switches it on."""
    suffix: str
    """Beginning of an answer after which it is read; "" for the end of the user's turn."""


def gauge_label(entry: Mapping[str, Any], named: Mapping[str, tuple[GaugeSubject, tuple[str, ...]]]) -> GaugeLabel:
    """The label of a concept as run.json lists it.

    A concept is about the user if its name begins with `user_` or its question names the user; else about the system.

    Args:
        entry: Of the list `concepts` in run.json.
        named: Subject and class names of concepts that were given, see `parse_gauge_names`.
    """
    name, question = str(entry["name"]), str(entry.get("question") or "")
    classes = tuple(map(str, entry.get("classes") or ()))
    if not classes and entry.get("kind", "binary") == "binary":
        classes = ("no", "yes")
    about_user = name.startswith("user_") or re.search(r"\buser\b", question.lower()) is not None
    subject: GaugeSubject = "user" if about_user else "system"
    if name in named:
        subject, given = named[name]
        if given and len(given) != len(classes):
            raise BadInput(
                f"the gauge of {name} must have {len(classes)} names of classes, got {', '.join(given)}: name each one."
            )
        classes = given or classes
    words = " ".join((name.replace("_", " "), question, *classes)).lower()
    sensitive = subject == "user" and _SENSITIVE.search(words) is not None
    return GaugeLabel(name, subject, classes, sensitive, _READING_SUFFIXES.get(name, ""))


def parse_gauge_names(
    users: Sequence[str], systems: Sequence[str], known: Sequence[str]
) -> dict[str, tuple[GaugeSubject, tuple[str, ...]]]:
    """Subject and class names from texts such as `calling` or `calling=farmer,sailor`.

    Args:
        users: Concepts that are about the user.
        systems: Concepts that are about the system.
        known: Concepts of the run.

    Raises:
        BadInput: a concept that the run lacks, one that is named twice, or an empty name of a class.
    """
    named: dict[str, tuple[GaugeSubject, tuple[str, ...]]] = {}
    groups: tuple[tuple[GaugeSubject, Sequence[str]], ...] = (("user", users), ("system", systems))
    for subject, texts in groups:
        for text in texts:
            name, equals, given = text.partition("=")
            classes = tuple(part.strip() for part in given.split(",")) if equals else ()
            if name not in known:
                raise BadInput(f"a gauge must be of a concept of the run ({', '.join(known)}), got {name!r}: name one.")
            if name in named:
                raise BadInput(f"a gauge must be named once, got {name} twice: choose user or system.")
            if equals and not all(classes):
                raise BadInput(
                    f"a gauge must have names of its classes after =, got {text!r}: write calling=farmer,sailor."
                )
            named[name] = subject, classes
    return named
