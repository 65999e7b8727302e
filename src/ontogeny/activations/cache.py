"""Activations kept on disk by their content, so that other fits, seeds and metrics need no model; the oldest go when room is short.

An entry is one concept at one checkpoint. Its name is a digest of all that decides the numbers: weights, configuration, tokenizer,
texts with their positions and questions, sites, precision, and the version of the reading itself. Labels are not among them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ontogeny.activations.activations import Activations
from ontogeny.data.concept import Concept
from ontogeny.lineage.weight_files import read_json
from ontogeny.sites import Site
from ontogeny.storage.files import content_digest, read_tensor_header, read_tensors, write_tensors

CAPTURE_VERSION = 1
"""Raised whenever the same texts and weights would be read otherwise."""


def default_cache_folder() -> Path:
    """`ONTOGENY_CACHE`, else the user's cache folder."""
    named = os.environ.get("ONTOGENY_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "ontogeny" / "activations"


@dataclass(frozen=True)
class ActivationCache:
    folder: Path
    most: int
    """Bytes."""

    def get(self, key: str, device: str = "cpu") -> Activations | None:
        """The entry, which is then the youngest; None where there is none, or one that cannot be read."""
        path = self._path(key)
        try:
            os.utime(path)
            header, tensors = read_tensor_header(path), read_tensors(path)
            sites: Mapping[str, list[str]] = header["sites"]
            return Activations(
                parts={part: tensors[f"parts/{part}"].to(device) for part in sites},
                sites={part: tuple(Site.parse(name) for name in names) for part, names in sites.items()},
                inputs=tensors["inputs"].to(device),
                margin=tensors.get("margin"),
                shortened=header["shortened"],
            )
        except FileNotFoundError:
            return None
        except Exception:  # safetensors raises its own for a damaged file: it is then read again from the model
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, seen: Activations) -> None:
        """Keep an entry, unless it alone is larger than the cache, and let the oldest go until all fit."""
        tensors = {f"parts/{part}": values for part, values in seen.parts.items()} | {"inputs": seen.inputs}
        if seen.margin is not None:
            tensors["margin"] = seen.margin
        if sum(tensor.nbytes for tensor in tensors.values()) > self.most:
            return
        sites = {part: [str(site) for site in named] for part, named in seen.sites.items()}
        write_tensors(
            self._path(key), tensors, {"sites": sites, "version": CAPTURE_VERSION, "shortened": dict(seen.shortened)}
        )
        self.trim()

    def trim(self) -> None:
        """Delete the entries that were used longest ago until the rest fit."""
        entries = []
        for path in self.folder.glob("*.safetensors"):
            try:
                entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
            except FileNotFoundError:  # another process was faster
                continue
        room = self.most
        for _, size, path in sorted(entries, reverse=True):
            room -= size
            if room < 0:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def cache_key(
    weights: str, folder: Path, tokenizer: str | None, concept: Concept, reading: Sequence[object], *, device: str
) -> str:
    """The name of an entry. `weights` is the checkpoint's fingerprint, `tokenizer` a digest of its files."""
    texts = [[example.text, example.span] for example in concept.examples]
    questions = [[answer.prompt, answer.right, answer.wrong] for answer in concept.answers]
    read = [texts, questions, str(concept.position), concept.template]
    where = [*reading, device.split(":")[0]]
    return content_digest([CAPTURE_VERSION, weights, read_json(folder / "config.json"), tokenizer, read, where])
