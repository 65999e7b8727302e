"""Directions on disk and on the Hub: one safetensors file, whose header says in JSON what the vector is."""

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
_KINDS = {"origin": str, "scale": str, "position": str, "facts": dict, "sign": str, "tokenizer": str}


def save_direction(direction: "Direction", path: str | Path) -> Path:
    """Write one direction; a file that is there is replaced as a whole."""
    target = Path(path)
    if target.suffix != ".safetensors":
        raise BadInput(f"a direction is kept as .safetensors, not as {target.name}. Give the file that ending.")
    write_tensors(target, {"vector": direction.vector.detach().cpu()}, direction_header(direction))
    return target


def load_direction(path: str | Path) -> "Direction":
    """Read what `save` wrote.

    Raises:
        BadInput: there is no such file, or it holds no direction.
    """
    from ontogeny.direction import Direction

    file = Path(path)
    if not file.is_file():
        raise BadInput(
            f"there is no file {file}. Save a direction with direction_files.save, or name a run and a concept."
        )
    try:
        header, tensors = read_tensor_header(file), read_tensors(file)
    except BadInput:
        # The store speaks of runs; this file belongs to none.
        raise _not_a_direction(file, "it is damaged, or none of ours") from None
    if not isinstance(header, dict) or header.get("format") != DIRECTION_FORMAT:
        raise _not_a_direction(file, "its header does not say so")
    try:
        told = {name: header[name] for name in ("origin", "scale", "position", "facts", "sign", "tokenizer")}
        if wrong := [name for name, kind in _KINDS.items() if not isinstance(told[name], kind)]:
            raise _not_a_direction(file, f"its {wrong[0]} is {told[wrong[0]]!r}")
        if not all(isinstance(fact, int | float) for fact in told["facts"].values()):
            raise _not_a_direction(file, "a fact of it is no number")
        if not tensors["vector"].is_floating_point():
            raise _not_a_direction(file, f"its numbers are {tensors['vector'].dtype}")
        return Direction(vector=tensors["vector"], site=Site.parse(header["site"]), **told)
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_a_direction(file, f"{error} is missing or wrong") from None


def _not_a_direction(file: Path, why: str) -> BadInput:
    return BadInput(f"{file} holds no direction ({why}). Save it again, or import it as a plain vector.")


def direction_header(direction: "Direction") -> dict[str, Any]:
    """The header: all but the numbers."""
    told = {name: value for name, value in asdict(direction).items() if name not in ("vector", "site")}
    return {"format": DIRECTION_FORMAT, "site": str(direction.site), "width": len(direction.vector), **told}


def push_direction_to_hub(
    direction: "Direction",
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a direction with a short card; the repository is made where there is none. Gives the commit's address.

    Raises:
        BadInput: no such owner, no rights, or no Hub.
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
    """The direction that a repository holds, at a branch, a tag or a commit.

    Raises:
        BadInput: no such repository, revision or file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with friendly_errors(repository, revision or "main"):
        try:
            path = retry(lambda: hf_hub_download(repository, DIRECTION_FILE, revision=revision, token=token))
        except RemoteEntryNotFoundError:
            raise BadInput(
                f"{repository} has no {DIRECTION_FILE}, so it holds no direction. Name another repository."
            ) from None
    return load_direction(path)


def direction_card(direction: "Direction") -> str:
    """What a reader of the repository needs to know."""
    told = "\n".join(f"| {name} | {_cell(value)} |" for name, value in direction_header(direction).items())
    return (
        f"---\nlibrary_name: ontogeny\ntags: [steering-vector]\n---\n# {direction.origin}\n\n| | |\n|---|---|\n{told}\n"
    )


def _cell(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
