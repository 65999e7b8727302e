"""Directions on disk and on the Hub: one safetensors file, whose header says in JSON what the vector is."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.errors import BadInput
from ontogeny.lineage.hub import plainly
from ontogeny.lineage.patience import patiently
from ontogeny.sites import Site
from ontogeny.store import read_header, read_tensors, write_tensors

if TYPE_CHECKING:
    from ontogeny.direction import Direction

FORMAT = "ontogeny-direction-1"
FILE = "direction.safetensors"
_KINDS = {"origin": str, "scale": str, "position": str, "facts": dict, "sign": str, "tokenizer": str}


def save(direction: "Direction", path: str | Path) -> Path:
    """Write one direction; a file that is there is replaced as a whole."""
    target = Path(path)
    if target.suffix != ".safetensors":
        raise BadInput(f"a direction is kept as .safetensors, not as {target.name}. Give the file that ending.")
    write_tensors(target, {"vector": direction.vector.detach().cpu()}, about(direction))
    return target


def load(path: str | Path) -> "Direction":
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
        header, tensors = read_header(file), read_tensors(file)
    except BadInput:
        # The store speaks of runs; this file belongs to none.
        raise _none_in(file, "it is damaged, or none of ours") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _none_in(file, "its header does not say so")
    try:
        told = {name: header[name] for name in ("origin", "scale", "position", "facts", "sign", "tokenizer")}
        if wrong := [name for name, kind in _KINDS.items() if not isinstance(told[name], kind)]:
            raise _none_in(file, f"its {wrong[0]} is {told[wrong[0]]!r}")
        if not all(isinstance(fact, int | float) for fact in told["facts"].values()):
            raise _none_in(file, "a fact of it is no number")
        if not tensors["vector"].is_floating_point():
            raise _none_in(file, f"its numbers are {tensors['vector'].dtype}")
        return Direction(vector=tensors["vector"], site=Site.parse(header["site"]), **told)
    except (KeyError, TypeError, AttributeError) as error:
        raise _none_in(file, f"{error} is missing or wrong") from None


def _none_in(file: Path, why: str) -> BadInput:
    return BadInput(f"{file} holds no direction ({why}). Save it again, or import it as a plain vector.")


def about(direction: "Direction") -> dict[str, Any]:
    """The header: all but the numbers."""
    told = {name: value for name, value in asdict(direction).items() if name not in ("vector", "site")}
    return {"format": FORMAT, "site": str(direction.site), "width": len(direction.vector), **told}


def push_to_hub(
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
    with tempfile.TemporaryDirectory() as folder, plainly(repository):
        file = save(direction, Path(folder) / FILE)
        patiently(lambda: api.create_repo(repository, private=private, exist_ok=True))
        operations = [
            CommitOperationAdd(FILE, str(file)),
            CommitOperationAdd("README.md", card(direction).encode()),
        ]
        done = patiently(
            lambda: api.create_commit(
                repository, operations, commit_message=f"Direction {direction.origin}", revision=revision
            )
        )
    return str(done.commit_url)


def from_hub(repository: str, *, revision: str | None = None, token: str | None = None) -> "Direction":
    """The direction that a repository holds, at a branch, a tag or a commit.

    Raises:
        BadInput: no such repository, revision or file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with plainly(repository, revision or "main"):
        try:
            path = patiently(lambda: hf_hub_download(repository, FILE, revision=revision, token=token))
        except RemoteEntryNotFoundError:
            raise BadInput(f"{repository} has no {FILE}, so it holds no direction. Name another repository.") from None
    return load(path)


def card(direction: "Direction") -> str:
    """What a reader of the repository needs to know."""
    told = "\n".join(f"| {name} | {_cell(value)} |" for name, value in about(direction).items())
    return (
        f"---\nlibrary_name: ontogeny\ntags: [steering-vector]\n---\n# {direction.origin}\n\n| | |\n|---|---|\n{told}\n"
    )


def _cell(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
