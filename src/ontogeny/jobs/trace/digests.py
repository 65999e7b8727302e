"""Digests of the weight files of a run's checkpoints, so that a further start reads only files that changed since."""

import json
from pathlib import Path

from ontogeny.lineage import FileDigests
from ontogeny.storage import checksums
from ontogeny.storage.files import DamagedPart

_FILE = "weights.json"


def read_digests(folder: Path) -> FileDigests:
    """The digests that a run directory holds; none if there is no such file, or it is damaged."""
    try:
        checksums.check_file(folder / _FILE, folder)
        known = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        if not all(isinstance(entry, list) and len(entry) == 5 for entry in known.values()):
            return FileDigests()
    except (DamagedPart, OSError, ValueError, AttributeError):
        return FileDigests()
    return FileDigests(known)


def digests_for_estimate(folder: Path) -> FileDigests:
    """As `read_digests`; without a run at `folder` no weights are read, since there is nothing to compare them with."""
    return read_digests(folder) if (folder / "records").is_dir() else FileDigests(read=False)


def write_digests(folder: Path, digests: FileDigests) -> None:
    """Write the digests, if one was added. The caller must hold the folder's lock."""
    if digests.changed:
        with checksums.atomic_part(folder / _FILE, folder) as temporary:
            temporary.write_text(json.dumps(digests.known) + "\n", encoding="utf-8")
