"""Directions on disk and on the Hub: one safetensors file each, with a JSON header."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.errors import BadInput
from ontogeny.lineage.hub import friendly_errors
from ontogeny.lineage.retry import retry
from ontogeny.sites import Site
from ontogeny.storage.files import read_tensor_header, read_tensors, write_tensors

if TYPE_CHECKING:
    from ontogeny.direction import Direction

DIRECTION_FORMAT = "ontogeny-direction-1"
DIRECTION_FILE = "direction.safetensors"
_KINDS = {"origin": str, "scale": str, "position": str, "facts": dict, "sign": str, "tokenizer": str, "fitted_on": str}
_DEFAULTS: dict[str, Any] = {"fitted_on": ""}
"""Fields that files of earlier versions lack."""


def save_direction(direction: "Direction", path: str | Path) -> Path:
    """Write one direction; an existing file is replaced."""
    target = Path(path)
    if target.suffix != ".safetensors":
        raise BadInput(f"a direction's file must end in .safetensors, got {target.name}: rename it.")
    write_tensors(target, {"vector": direction.vector.detach().cpu()}, direction_header(direction))
    return target


def load_direction(path: str | Path) -> "Direction":
    """Read a file of `save_direction`.

    Raises:
        BadInput: there is no such file, or it is not a direction.
    """
    from ontogeny.direction import Direction

    file = Path(path)
    if not file.is_file():
        raise BadInput(f"there is no file {file}: write one with save_direction, or name a run and a concept.")
    try:
        header, tensors = read_tensor_header(file), read_tensors(file)
    except BadInput:  # its message is about files of a run
        raise _not_a_direction(file, "it is damaged or has another format") from None
    if not isinstance(header, dict) or header.get("format") != DIRECTION_FORMAT:
        raise _not_a_direction(file, "its header has another format")
    try:
        fields = {name: (_DEFAULTS | header)[name] for name in _KINDS}
        if wrong := [name for name, kind in _KINDS.items() if not isinstance(fields[name], kind)]:
            raise _not_a_direction(file, f"its {wrong[0]} is {fields[wrong[0]]!r}")
        if not all(isinstance(fact, int | float) for fact in fields["facts"].values()):
            raise _not_a_direction(file, "one of its facts is not a number")
        if not tensors["vector"].is_floating_point():
            raise _not_a_direction(file, f"its dtype is {tensors['vector'].dtype}")
        return Direction(vector=tensors["vector"], site=Site.parse(header["site"]), **fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_a_direction(file, f"{error} is missing or wrong") from None


def _not_a_direction(file: Path, why: str) -> BadInput:
    return BadInput(f"{file} is not a direction ({why}): save it again, or read it as a plain vector with read_vector.")


def direction_header(direction: "Direction") -> dict[str, Any]:
    """All fields but the vector, as the header of its file."""
    fields = {name: value for name, value in asdict(direction).items() if name not in ("vector", "site")}
    return {"format": DIRECTION_FORMAT, "site": str(direction.site), "width": len(direction.vector), **fields}


def push_direction_to_hub(
    direction: "Direction",
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a direction with a short card, creating the repository if needed; returns the URL of the commit.

    Raises:
        BadInput: the owner does not exist, the token lacks the rights, or the Hub cannot be reached.
    """
    import tempfile

    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder, friendly_errors(repository):
        file = save_direction(direction, Path(folder) / DIRECTION_FILE)
        retry(lambda: api.create_repo(repository, private=private, exist_ok=True))
        operations = [
            CommitOperationAdd(DIRECTION_FILE, str(file)),
            CommitOperationAdd("README.md", direction_card(direction).encode()),
        ]
        done = retry(
            lambda: api.create_commit(
                repository, operations, commit_message=f"Direction {direction.origin}", revision=revision
            )
        )
    return str(done.commit_url)


def direction_from_hub(repository: str, *, revision: str | None = None, token: str | None = None) -> "Direction":
    """Download the direction of a repository at a branch, tag or commit.

    Raises:
        BadInput: there is no such repository, revision or file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with friendly_errors(repository, revision or "main"):
        try:
            path = retry(lambda: hf_hub_download(repository, DIRECTION_FILE, revision=revision, token=token))
        except RemoteEntryNotFoundError:
            raise BadInput(f"{repository} has no {DIRECTION_FILE}: name a repository with a direction.") from None
    return load_direction(path)


def direction_card(direction: "Direction") -> str:
    """README of a direction's repository: its header as a table."""
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in direction_header(direction).items())
    return f"---\nlibrary_name: ontogeny\ntags: [steering-vector]\n---\n# {direction.origin}\n\n| | |\n|---|---|\n{table}\n"


def _cell(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
