"""Stamp of a finished trace: the same command on unchanged files is answered from run.json, without torch and without a plan.

As `make` does, it compares names, sizes, inodes and times of files, not contents: of the checkpoints, the concept files, the parts of the
run and the package itself. Whatever it cannot tell goes the whole way, which compares contents.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ontogeny
from ontogeny.data.concept_sources import names_concept_file
from ontogeny.lineage import Lineage
from ontogeny.lineage.fetch import CLOCK_TICK_NS
from ontogeny.lineage.weight_files import ADAPTER_CONFIG
from ontogeny.plugins import is_builtin_plugin
from ontogeny.storage.files import content_digest, write_json
from ontogeny.storage.run import Run

_FILE = "finished.json"
_PARTS = frozenset({".json", ".parquet", ".safetensors"})
"""Suffixes of the files that a trace writes into its run."""
_TOKENIZER_SUFFIXES = frozenset({".json", ".jinja", ".model", ".txt"})


def request_digest(lineage: Lineage, concepts: Sequence[str], arguments: Mapping[str, Any]) -> str | None:
    """Digest of a trace as it is asked for; take it before the trace reads the files.

    Args:
        concepts: Files or plug-ins, as the user names them.
        arguments: Everything else that changes rows, as plain values.

    Returns:
        None if times of files cannot identify it: a checkpoint on the Hub or an adapter, a concept of another package or of the Hub, or a
        file that was written a moment ago.
    """
    if any(not checkpoint.is_local for checkpoint in lineage.checkpoints):
        return None
    if not all(names_concept_file(concept) or is_builtin_plugin("concepts", concept) for concept in concepts):
        return None
    try:
        files = _files_of_checkpoints([Path(checkpoint.source) for checkpoint in lineage.checkpoints])
        files |= {file for concept in concepts if names_concept_file(concept) for file in _files_below(Path(concept))}
        if any(file.name == ADAPTER_CONFIG for file in files):
            return None
        inputs = _states(files)
        package = _states(Path(ontogeny.__file__).parent.rglob("*.py"))
    except OSError:
        return None
    if time.time_ns() - max(state[-1] for state in inputs) <= CLOCK_TICK_NS:
        return None
    stages = [lineage.name, dict(lineage.parents), lineage.notes]
    checkpoints = [repr(replace(c, source=str(Path(c.source).absolute()))) for c in lineage.checkpoints]
    names = [str(Path(concept).absolute()) if names_concept_file(concept) else concept for concept in concepts]
    return content_digest([stages, checkpoints, inputs, package, names, arguments])


def is_finished(out: Path, request: str | None) -> bool:
    """Whether the run at `out` holds all of the trace, and no file of it has changed since."""
    if request is None:
        return False
    try:
        stamp = json.loads((out / _FILE).read_text(encoding="utf-8"))
        return bool(stamp == {"request": request, "run": content_digest(_states(_parts(out)))})
    except (OSError, ValueError):
        return False


def write_stamp(run: Run, request: str | None) -> None:
    """Write the stamp into a run that is finished without failures; else do nothing."""
    about = run.about
    if request is not None and about["finished"] and not about["failures"]:
        state = content_digest(_states(_parts(run.folder)))
        write_json(run.folder / _FILE, {"request": request, "run": state})


def _files_of_checkpoints(folders: Sequence[Path]) -> set[Path]:
    """The files of the checkpoints' folders, and the small ones above them, where a tokenizer may be."""
    above = {place for folder in folders for place in (folder.absolute().parent, folder.resolve().parent)}
    small = {file for place in above for file in place.iterdir() if file.suffix in _TOKENIZER_SUFFIXES}
    return {file for folder in folders for file in _files_below(folder)} | small


def _files_below(path: Path) -> set[Path]:
    return {file for file in path.rglob("*") if file.is_file()} if path.is_dir() else {path}


def _parts(folder: Path) -> Iterable[Path]:
    """The files of a run that a trace writes: what stands beside them, such as a report, is left out."""
    return (file for file in folder.rglob("*") if file.suffix in _PARTS and file.name != _FILE)


def _states(files: Iterable[Path]) -> list[tuple[str, int, int, int]]:
    """Path, size, inode and time of the last change of each file, in nanoseconds."""
    stats = ((str(file.absolute()), file.stat()) for file in files)
    return sorted((name, s.st_size, s.st_ino, max(s.st_mtime_ns, s.st_ctime_ns)) for name, s in stats)
