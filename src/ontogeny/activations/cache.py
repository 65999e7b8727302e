"""On-disk activation cache: other probes, seeds and metrics need no forward pass. The least recently used entries are deleted.

An entry is one concept at one checkpoint. Its key is a digest of everything that decides the numbers: weights, config, tokenizer,
texts with positions and questions, sites, precision, and the version of the capture code. Labels are not part of it.
"""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ontogeny.activations.activations import Activations
from ontogeny.data.concept import Concept
from ontogeny.lineage import Checkpoint
from ontogeny.lineage.fetch import checkpoint_config
from ontogeny.sites import Site
from ontogeny.storage.files import content_digest, read_tensor_header, read_tensors, write_tensors

CAPTURE_VERSION = 1
"""Increased whenever the same texts and weights would give other numbers."""


def default_cache_folder() -> Path:
    """`ONTOGENY_CACHE`, else a folder in the user's cache folder."""
    named = os.environ.get("ONTOGENY_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "ontogeny" / "activations"


@dataclass(frozen=True)
class ActivationCache:
    """A folder of cached activations of limited size."""

    folder: Path
    max_bytes: int

    def get(self, key: str, device: str = "cpu") -> Activations | None:
        """The entry of a key, marked as recently used; None if it is missing or damaged."""
        path = self._path(key)
        try:
            os.utime(path)
            header, tensors = read_tensor_header(path), read_tensors(path)
            if header.pop("checksum") != _checksum(key, header, tensors):
                raise ValueError("it is damaged, or the entry of another key")
            sites: Mapping[str, list[str]] = header["sites"]
            return Activations(
                parts={part: tensors[f"parts/{part}"].to(device) for part in sites},
                sites={part: tuple(Site.parse(name) for name in names) for part, names in sites.items()},
                inputs=tensors["inputs"].to(device),
                margin=tensors.get("margin"),
                truncated=header["shortened"],
                template=header.get("template", "none"),
            )
        except FileNotFoundError:
            return None
        except Exception:  # safetensors raises its own types for a damaged file: the model is read again
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, activations: Activations) -> None:
        """Store an entry, unless it alone is larger than the cache, and trim the cache."""
        tensors = {f"parts/{part}": values for part, values in activations.parts.items()}
        tensors["inputs"] = activations.inputs
        if activations.margin is not None:
            tensors["margin"] = activations.margin
        if sum(tensor.nbytes for tensor in tensors.values()) > self.max_bytes:
            return
        sites = {part: [str(site) for site in named] for part, named in activations.sites.items()}
        header = {"sites": sites, "version": CAPTURE_VERSION, "shortened": dict(activations.truncated)}
        header["template"] = activations.template
        write_tensors(self._path(key), tensors, {**header, "checksum": _checksum(key, header, tensors)})
        self.trim()

    def trim(self) -> None:
        """Delete the least recently used entries until the rest fit."""
        entries = []
        for path in self.folder.glob("*.safetensors"):
            try:
                entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
            except FileNotFoundError:  # deleted by another process
                continue
        room = self.max_bytes
        for _, size, path in sorted(entries, reverse=True):
            room -= size
            if room < 0:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def _checksum(key: str, header: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """Checksum of an entry under its key."""
    text = json.dumps([key, json.loads(json.dumps(header))], sort_keys=True)  # keys are texts, as in the file
    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        content = tensors[name].detach().cpu().contiguous()
        value = zlib.crc32(f"{name} {content.dtype} {list(content.shape)}".encode(), value)
        value = zlib.crc32(content.reshape(-1).view(torch.uint8).numpy().tobytes(), value)
    return f"{value:08x}"


def cache_key(
    weights: str, folder: Path, tokenizer: str | None, concept: Concept, reading: Sequence[object], *, device: str
) -> str:
    """Key of an entry. `weights` is the checkpoint's fingerprint, `tokenizer` a digest of its files."""
    texts = [[example.text, example.span] for example in concept.examples]
    questions = [[answer.prompt, answer.right, answer.wrong] for answer in concept.answers]
    # Questions are asked in the template, too, since entries of an earlier version had them bare.
    template = "texts and questions" if concept.template is True and questions else concept.template
    chats = [example.chat for example in concept.examples if example.chat]
    read = [texts, questions, str(concept.position), template, *chats]
    where = [*reading, device.split(":")[0]]
    return content_digest(
        [CAPTURE_VERSION, weights, checkpoint_config(Checkpoint(str(folder))), tokenizer, read, where]
    )
