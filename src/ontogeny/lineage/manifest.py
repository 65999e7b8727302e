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
    data_share = 0.1                      # optional: share of the data that sibling stages differ in (docs/data-mix.md)

A folder with a file of this name is opened through it. Of a repository whose branches need more than their names, a stage may have
`revision`, `branches`, `order` or `path`; the manifests of public runs in `suites/lineages/` use them, see docs/add-a-suite.md.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput, unknown_name

LINEAGE_FILE = "lineage.toml"
_TEXTS, _NUMBERS = "a list of texts", "a list of numbers"
_STAGE_KEYS: dict[str, Any] = {
    "name": str,
    "source": str,
    "steps": str,
    "parent": str,
    "train_seed": int,
    "data_share": float,
    "revision": str,
    "branches": str,
    "order": _TEXTS,
    "order_tokens": _NUMBERS,
    "path": str,
    "tokens_per_step": int,
    "off_trajectory": str,
    "off_nodes": dict,
    "notes": _TEXTS,
    "unverified": str,
}
_LINEAGE_KEYS: dict[str, Any] = {
    "name": str,
    "summary": str,
    "parameters": str,
    "gigabytes": float,
    "reference": str,
    "notes": _TEXTS,
}
_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    dict: "a table of texts",
    _TEXTS: _TEXTS,
    _NUMBERS: _NUMBERS,
}
OFF_TRAJECTORY_KINDS = ("annealed", "averaged", "branch")


@dataclass(frozen=True)
class StageEntry:
    """One stage in the file."""

    name: str
    source: str
    steps: str = "all"
    parent: str | None = None
    """None for the stage before, "" for an independent run."""
    train_seed: int | None = None
    data_share: float | None = None
    """Share of the data that sibling stages differ in, from 0 to 1."""
    revision: str = ""
    """The one branch or tag that is read; of `path`, the one whose folders are."""
    branches: str = ""
    """Regular expression for the whole name of the branches that are read; its groups `step` and `tokens` (of 10^9) are numbers."""
    order: tuple[str, ...] = ()
    """Named branches in the order of training; their steps are 1, 2, …"""
    order_tokens: tuple[float, ...] = ()
    """Tokens of each branch in `order`, in 10^9."""
    path: str = ""
    """Regular expression for the whole path of the folders of one revision that hold a checkpoint each, with groups as `branches`."""
    tokens_per_step: int | None = None
    off_trajectory: str = ""
    """Kind of a stage whose steps do not follow from its parent's."""
    off_nodes: Mapping[str, str] = field(default_factory=dict)
    """Regular expression for the whole name of a checkpoint -> the kind of its place off the path."""
    notes: tuple[str, ...] = ()
    """Remarks for readers of the results, such as another tokenizer."""
    unverified: str = ""
    """Parts of this entry that were not seen on the Hub."""

    @property
    def is_filtered(self) -> bool:
        """Whether checkpoints are picked by more than the names of branches."""
        return bool(self.revision or self.branches or self.order or self.path)


@dataclass(frozen=True)
class LineageManifest:
    """A lineage file."""

    name: str
    stages: tuple[StageEntry, ...]
    summary: str = ""
    parameters: str = ""
    """Size of the model: 7B."""
    gigabytes: float | None = None
    """Download of one checkpoint: its weights once."""
    reference: str = ""
    notes: tuple[str, ...] = ()


def load_manifest(path: Path) -> LineageManifest:
    """The content of a lineage file.

    Raises:
        BadInput: the file cannot be read or has the wrong format.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # an editor may write a byte order mark
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({' '.join(str(error).split())}): correct the file.") from None
    _check_keys(str(path), {k: v for k, v in content.items() if k != "stages"}, _LINEAGE_KEYS, ("stages",))
    stages = content.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise BadInput(f"{path} has no stages: write a block [[stages]] with name and source for each.")
    entries = tuple(_parse_stage(path, stage, number) for number, stage in enumerate(stages, 1))
    fields = _frozen({"name": path.resolve().parent.name, **content, "stages": entries})
    return LineageManifest(**fields)


def packaged_manifests() -> dict[str, Path]:
    """The manifests of public runs that come with the package, by the name that opens them."""
    folder = Path(str(files("ontogeny.suites"))) / "lineages"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _frozen(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}


def _check_keys(where: str, content: Mapping[str, Any], known: Mapping[str, Any], more: tuple[str, ...] = ()) -> None:
    for key, value in content.items():
        if key not in known:
            raise BadInput(f"{where}: {unknown_name('key', key, (*known, *more))}")
        if not _fits(value, known[key]):
            raise BadInput(f"{where}: {key} must be {_KINDS[known[key]]}, got {value!r}.")


def _fits(value: Any, kind: Any) -> bool:
    if kind in (_TEXTS, _NUMBERS):
        return isinstance(value, list) and all(_fits(v, str if kind == _TEXTS else float) for v in value)
    if kind is dict:
        return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    return isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)


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
    _check_keys(where, stage, _STAGE_KEYS)
    for key in ("name", "source"):
        if not stage.get(key):
            raise BadInput(f'{where} has no {key}: add {key} = "…".')
    if not 0 <= stage.get("data_share", 0) <= 1:
        raise BadInput(
            f"{where}: data_share must be a share from 0 to 1, got {stage['data_share']:g}: write 10 % as 0.1."
        )
    for key in ("branches", "path"):
        _check_pattern(where, key, stage.get(key, ""))
    for pattern, kind in (("", stage.get("off_trajectory", "")), *stage.get("off_nodes", {}).items()):
        _check_pattern(where, "off_nodes", pattern)
        if kind and kind not in OFF_TRAJECTORY_KINDS:
            raise BadInput(f"{where}: {unknown_name('kind', kind, OFF_TRAJECTORY_KINDS)}")
    if "order_tokens" in stage and len(stage["order_tokens"]) != len(stage.get("order", ())):
        raise BadInput(f"{where}: order_tokens must have one number for each name in order.")
    return StageEntry(**_frozen({**stage, "source": _resolve_source(path, stage["source"])}))


def _check_pattern(where: str, key: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise BadInput(f"{where}: {key} must be a regular expression, got {pattern!r} ({error}).") from None


def _resolve_source(path: Path, source: str) -> str:
    """Resolve folders relative to the file; leave repositories unchanged."""
    here = path.parent / Path(source).expanduser()
    return str(here) if here.exists() or source.startswith((".", "/", "~")) else source
