"""Repair of a run: parts that are damaged or lost are removed, so that a job measures their units again."""

from collections.abc import Mapping
from pathlib import Path

from ontogeny.storage import checksums, parts
from ontogeny.storage.files import DamagedPart, read_tensor_header
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run

_WHOLE_BELOW = 2**28
"""Tensors of at most so many bytes are read before a job goes on; those of larger runs where they are needed."""


def repair_run(run: Run) -> None:
    """Remove the parts that are damaged or lost, so that a job measures their units again.

    Raises:
        BadInput: there are some, and another process is writing into the run.
    """
    if find_damaged_parts(run.folder):
        with run_lock(run.folder):
            remove_damaged_parts(run)


def remove_damaged_parts(run: Run, *, whole: bool = False) -> int:
    """Remove the parts that are damaged or lost, and write that into the ledger; returns their number. The caller must hold the lock.

    Args:
        whole: Read all tensors, however large they are.
    """
    damaged = find_damaged_parts(run.folder, whole=whole)
    for name, reason in damaged.items():
        run.log({"removed": name, "reason": reason})
        parts.remove_part(run.folder, name)
    return len(damaged)


def find_damaged_parts(folder: Path, *, whole: bool = False) -> dict[str, str]:
    """The names of parts that are damaged or lost, each with the reason.

    Records are compared with their checksums, tensors as well if they are small or `whole`. Parts of earlier versions, which have no
    checksums, must have a readable header and a file of each kind.
    """
    files = {kind: parts.part_names(folder, kind) for kind in parts.KINDS}
    size = sum(path.stat().st_size for kind in parts.KINDS[1:] for path in files[kind].values())
    damaged: dict[str, str] = {}
    for kind in parts.KINDS:
        for path in checksums.lost_files(folder, kind):
            damaged.setdefault(path.stem, str(DamagedPart(path, "lost")))
        for name, path in files[kind].items():
            try:
                if kind == "records" or whole or size <= _WHOLE_BELOW:
                    checksums.check_file(path)
                parts.check_header(folder, kind, name)
            except DamagedPart as error:
                damaged.setdefault(name, str(error))
    for name in files["records"].keys() - damaged.keys():
        absent = [kind for kind in parts.KINDS[1:] if name not in files[kind]]
        if len(absent) == 1 and _needs(folder, name, absent[0], files):
            damaged[name] = str(DamagedPart(folder / absent[0] / f"{name}.safetensors", "lost"))
    return damaged


def _needs(folder: Path, name: str, absent: str, files: Mapping[str, Mapping[str, Path]]) -> bool:
    """Whether a part of an earlier version, with directions or scores only, must have had both: those of a trained model have."""
    present = files[next(kind for kind in parts.KINDS[1:] if kind != absent)][name]
    if checksums.is_entered(present):
        return False
    if absent == "scores":
        return True
    header = read_tensor_header(present)
    return any(
        header_of_unit.keys() >= set(parts.UNIT_HEADER_KEYS) and header_of_unit["checkpoint"] != "untrained"
        for header_of_unit in (header["units"].values() if "units" in header else [header])
    )
