"""Lineage file `lineage.toml`: a lineage described by hand.

    name = "my-run"                       # optional; else the name of the file's folder

    [[stages]]
    name = "pretrain"
    source = "EleutherAI/pythia-160m"     # a repository, or a folder, relative to this file
    steps = "log"                         # optional selector
    train_seed = 0                        # optional

    [[stages]]
    name = "sft"
    source = "sft"
    parent = "pretrain"                   # optional: the stage before; "" for an independent run

A folder with a file of this name is opened through it.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput, unknown_name

LINEAGE_FILE = "lineage.toml"
_STAGE_KEYS = {"name": str, "source": str, "steps": str, "parent": str, "train_seed": int}


@dataclass(frozen=True)
class StageEntry:
    """One stage in the file."""

    name: str
    source: str
    steps: str = "all"
    parent: str | None = None
    """None for the stage before, "" for an independent run."""
    train_seed: int | None = None


def load_manifest(path: Path) -> tuple[str, tuple[StageEntry, ...]]:
    """Name and stages of a lineage file.

    Raises:
        BadInput: the file cannot be read or has the wrong format.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({' '.join(str(error).split())}): correct the file.") from None
    for key in content:
        if key not in ("name", "stages"):
            raise BadInput(f"{path}: {unknown_name('key', key, ('name', 'stages'))}")
    stages = content.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise BadInput(f"{path} has no stages: write a block [[stages]] with name and source for each.")
    name = content.get("name", path.resolve().parent.name)
    if not isinstance(name, str):
        raise BadInput(f"{path}: name must be a text, got {name!r}.")
    return name, tuple(_parse_stage(path, stage, number) for number, stage in enumerate(stages, 1))


def proposed(folder: Path, names: Sequence[str], *, siblings: bool = False) -> str:
    """Advice with the lineage.toml that a folder of stages needs, in one line; `siblings` are independent runs."""
    listed = names[:8]
    entries = []
    for place, name in enumerate(listed):
        parent = (
            ', parent = ""'
            if siblings and place
            else ""
            if siblings or not place
            else f', parent = "{listed[place - 1]}"'
        )
        entries.append(f'{{ name = "{name}", source = "{name}"{parent} }}')
    more = ", …" if len(names) > len(listed) else ""
    return f"write {folder / LINEAGE_FILE} with the right order: stages = [{', '.join(entries)}{more}]"


def _parse_stage(path: Path, stage: dict[str, Any], number: int) -> StageEntry:
    where = f"{path}, stage {number}"
    for key, value in stage.items():
        if key not in _STAGE_KEYS:
            raise BadInput(f"{where}: {unknown_name('key', key, _STAGE_KEYS)}")
        if not isinstance(value, _STAGE_KEYS[key]) or isinstance(value, bool):
            kind = "a whole number" if _STAGE_KEYS[key] is int else "a text"
            raise BadInput(f"{where}: {key} must be {kind}, got {value!r}.")
    for key in ("name", "source"):
        if not stage.get(key):
            raise BadInput(f'{where} has no {key}: add {key} = "…".')
    return StageEntry(**{**stage, "source": _resolve_source(path, stage["source"])})


def _resolve_source(path: Path, source: str) -> str:
    """Resolve folders relative to the file; leave repositories unchanged."""
    here = path.parent / Path(source).expanduser()
    return str(here) if here.exists() or source.startswith((".", "/", "~")) else source
