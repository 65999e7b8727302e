"""What `-c` names: a concept file, or a concept from `ontogeny list concepts`."""

from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.data.concept import Concept
    from ontogeny.direction import Direction


def concept_from_argument(
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
    from ontogeny.data.concept import Concept
    from ontogeny.data.positions import Position

    where = Position.parse(position) if position else None
    is_file = Path(name).is_file()
    if not is_file and name in plugins.list_plugins("concepts"):
        made: Concept = plugins.load_plugin("concepts", name).concept(seed)
        made = replace(made, position=where or made.position)
    elif not is_file and "/" not in name and "." not in name:
        plugins.load_plugin("concepts", name)  # says which names there are
        raise BadInput(f"no concept file {name}.")
    else:
        made = Concept.from_file(name, position=where, text=text, label=label)
    made = replace(made, template=made.template or template)
    return made if limit is None else made.limited(limit, seed)


def check_device(device: str) -> None:
    """Raises BadInput where this machine has no such device."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise BadInput(
            f"the device {device!r} cannot be used ({first}). Choose cpu, or one that this machine has."
        ) from None


def direction_from_argument(text: str, site: str | None, method: str) -> "Direction":
    """From the Hub (`hub:REPO`), a file, or a run (`RUN:CONCEPT`)."""
    from ontogeny.storage.directions import direction_from_hub, load_direction

    if text.startswith("hub:"):
        return direction_from_hub(text.removeprefix("hub:"))
    if text.endswith(".safetensors") or ":" not in text:
        return load_direction(text)
    from ontogeny.storage.run import Run

    folder, concept = text.rsplit(":", 1)
    return Run.open(folder).direction(concept, site=site, method=method)
