"""Arrivals: which checkpoints of a folder are complete, and which were deleted before they were.

A Trainer writes straight into checkpoint-N, and deletes the oldest ones (`save_total_limit`). A folder is complete once its weights
agree with their index and header, `trainer_state.json` parses, and no file has changed between two looks.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint, weight_files
from ontogeny.lineage.discover import checkpoint_folders

_STATE = "trainer_state.json"
_LOOKS_WITHOUT_STATE = 2
"""Looks between which nothing may change where no `trainer_state.json` says that the folder is complete."""
_Look = tuple[tuple[str, int, int], ...]
"""Name, size and time of each file."""


@dataclass
class FolderLook:
    """State of a folder of checkpoints after some looks at it."""

    folder: Path
    stage: str
    allow_pickle: bool = False
    looks: dict[str, tuple[_Look, int]] = field(default_factory=dict)
    """By name of a checkpoint, its files and for how many looks they have stood still."""
    ready: dict[str, Checkpoint] = field(default_factory=dict)
    """Complete checkpoints that are there now."""
    pending: dict[str, str] = field(default_factory=dict)
    """The others, with what is missing."""
    gone: list[Checkpoint] = field(default_factory=list)
    """Checkpoints that were seen, and are deleted since the last look."""
    seen: dict[str, Checkpoint] = field(default_factory=dict)

    def look(self) -> None:
        """Look at the folder once."""
        found = {c.name: c for c in checkpoint_folders(self.folder, self.stage)}
        self.gone = [checkpoint for name, checkpoint in self.seen.items() if name not in found]
        self.seen, self.ready, self.pending = found, {}, {}
        self.looks = {name: look for name, look in self.looks.items() if name in found}
        for name, checkpoint in found.items():
            if reason := self._missing(name, Path(checkpoint.source)):
                self.pending[name] = reason
            else:
                self.ready[name] = checkpoint

    def files(self, name: str) -> object:
        """Name, size and time of the files of a checkpoint at the last look."""
        return self.looks.get(name, ((), 0))[0]

    def _missing(self, name: str, folder: Path) -> str:
        """Missing files of a checkpoint, in words; empty if it is complete."""
        try:
            files = _files(folder)
        except OSError:
            return "it is being deleted"
        before, still = self.looks.get(name, ((), 0))
        still = still + 1 if files == before else 0
        self.looks[name] = files, still
        has_state = any(file == _STATE for file, _, _ in files)
        try:
            weight_files.check_model_folder(folder, allow_pickle=self.allow_pickle)
            if has_state:
                weight_files.read_json(folder / _STATE)
        except (BadInput, OSError) as error:
            return str(error)
        if still < (1 if has_state else _LOOKS_WITHOUT_STATE):
            return "its files are still changing"
        return ""


def _files(folder: Path) -> _Look:
    files = []
    for inside, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            stat = (Path(inside) / name).stat()
            files.append((os.path.relpath(Path(inside) / name, folder), stat.st_size, stat.st_mtime_ns))
    return tuple(files)


def _raise(error: OSError) -> None:
    raise error


def pin(checkpoints: Iterable[Checkpoint], place: Path) -> dict[str, Checkpoint]:
    """Hard links of checkpoints in `place`, which keep their content while the originals are deleted.

    A checkpoint that cannot be linked (another file system, an adapter whose base model is found beside it) is returned as it is; one that
    is gone is left out.
    """
    pinned = {}
    for checkpoint in checkpoints:
        source, target = Path(checkpoint.source), place / checkpoint.name
        try:
            names = [path.name for path in source.iterdir()]
            if weight_files.is_adapter(names):
                pinned[checkpoint.name] = checkpoint
                continue
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            _link_files(source, target, weights=True)
            _link_files(
                source.absolute().parent, place, weights=False
            )  # a tokenizer is often saved beside the checkpoints
            weight_files.check_model_folder(target, allow_pickle=True)
            pinned[checkpoint.name] = Checkpoint(
                str(target), stage=checkpoint.stage, step=checkpoint.step, tokens=checkpoint.tokens
            )
        except (OSError, BadInput):
            shutil.rmtree(target, ignore_errors=True)
            if source.is_dir():
                pinned[checkpoint.name] = checkpoint
    return pinned


def _link_files(source: Path, target: Path, *, weights: bool) -> None:
    """Link the files of a folder that a model is read from: weights, config and tokenizer."""
    names = [path.name for path in source.iterdir() if path.is_file()]
    wanted = set(weight_files.config_and_tokenizer_files(names))
    if weights:
        wanted |= {name for name in names if name.endswith((".safetensors", ".bin"))}
    for name in wanted:
        if not (target / name).exists():
            os.link(source / name, target / name)


def unpin(place: Path) -> None:
    """Remove the links of `pin`."""
    shutil.rmtree(place, ignore_errors=True)
