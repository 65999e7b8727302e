"""What `-c` names: a concept file, or a concept from `ontogeny list concepts`."""

from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.concept import Concept


def concept_named(
    name: str,
    *,
    position: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    template: bool = False,
    text: str | None = None,
    label: str | None = None,
) -> "Concept":
    """The concept of a file or a name; a file goes before a name, a folder does not. `text` and `label` name columns of files.

    Raises:
        BadInput: there is neither, or the file is no concept.
    """
    from dataclasses import replace

    from ontogeny import plugins
    from ontogeny.concept import Concept
    from ontogeny.position import Position

    where = Position.parse(position) if position else None
    is_file = Path(name).is_file()
    if not is_file and name in plugins.names("concepts"):
        made: Concept = plugins.load("concepts", name).concept(seed)
        made = replace(made, position=where or made.position)
    elif not is_file and "/" not in name and "." not in name:
        plugins.load("concepts", name)  # says which names there are
        raise BadInput(f"no concept file {name}.")
    else:
        made = Concept.from_file(name, position=where, text=text, label=label)
    made = replace(made, template=made.template or template)
    return made if limit is None else made.limited(limit, seed)
