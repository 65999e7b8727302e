"""A run.json from the parts of a run, in place of one that is damaged or lost."""

from collections.abc import Mapping, Sequence
from typing import Any


def about_from_parts(
    headers: Mapping[str, Mapping[str, Any]], lineages: Sequence[str], concepts: Sequence[str]
) -> dict[str, Any]:
    """Lineage, checkpoints and concepts of a run as run.json lists them; how it was made is not in its parts.

    Args:
        headers: Header of the directions of each unit.
        lineages: Names in the records.
        concepts: Names in the records.
    """
    measured = sorted((h for h in headers.values() if h["stage"] is not None), key=lambda header: header["order"])
    stages = list(dict.fromkeys(header["stage"] for header in measured))
    places = {(header["stage"], header["checkpoint"]): header for header in measured}
    return {
        "ontogeny": "",
        "command": None,
        "rebuilt": True,
        "lineage": {
            "name": lineages[0],
            "source": "",
            "stages": stages,
            "parents": dict(zip(stages, [None, *stages], strict=False)),
            "notes": ["run.json was damaged: this one is from the records, which do not say how the run was made"],
            "checkpoints": [
                {
                    "name": name,
                    "source": "",
                    "commit": None,
                    "stage": stage,
                    "bytes": 0,
                    **{key: header.get(key) for key in ("revision", "step", "tokens", "train_seed")},
                }
                for (stage, name), header in places.items()
            ],
        },
        "concepts": [
            {"name": name, "classes": [], "position": "last", "hash": None, "warnings": []} for name in concepts
        ],
        "settings": {},
        "failures": [],
        "finished": False,
    }
